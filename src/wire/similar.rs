//! The word that was probably meant.

/// Returns the word most similar to the typed one, if at most a third of that differs.
pub(crate) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let len = typed.chars().count();
    // The lengths alone differ by less, which is faster to see.
    let words = words.filter(|word| 3 * word.chars().count().abs_diff(len) <= len);
    let (distance, nearest) = words.map(|word| (strsim::osa_distance(typed, word), word)).min()?;
    (3 * distance <= len).then_some(nearest)
}

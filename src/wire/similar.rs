//! The word that was probably meant.

/// Returns the word most similar to the typed one, if at most a third of that differs.
pub(crate) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = words.map(|word| (strsim::osa_distance(typed, word), word)).min()?;
    (3 * distance <= typed.chars().count()).then_some(nearest)
}

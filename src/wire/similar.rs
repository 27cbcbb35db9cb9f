//! The word that was probably meant.

/// Returns the word most similar to the typed one, if at most half of that differs.
///
/// # Examples
///
/// ```
/// use framelet::wire::nearest;
///
/// assert_eq!(nearest("snd", ["serve", "send"].into_iter()), Some("send"));
/// assert_eq!(nearest("bake", ["serve", "send"].into_iter()), None);
/// ```
pub fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = words.map(|word| (distance(typed, word), word)).min()?;
    (nearest.0 <= 2 && 2 * nearest.0 <= typed.chars().count()).then_some(nearest.1)
}

/// Returns the Levenshtein distance: how many characters must be added, removed or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (place, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_far_apart_as_their_changes() {
        for (one, other, expected) in
            [("", "", 0), ("", "abc", 3), ("send", "snd", 1), ("sevre", "serve", 2), ("é", "e", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected));
        }
    }
}

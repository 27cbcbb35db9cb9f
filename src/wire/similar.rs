//! The word that was probably meant.

/// Returns the word most similar to the typed one, if at most a third of that differs.
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
    (3 * nearest.0 <= typed.chars().count()).then_some(nearest.1)
}

/// Returns how many characters must be added, removed, changed or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let [one, other] = [one, other].map(|word| word.chars().collect::<Vec<char>>());
    // The distances between the first characters of both.
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (i, j) in (0..=one.len()).flat_map(|i| (0..=other.len()).map(move |j| (i, j))) {
        rows[i][j] = match (i, j) {
            (0, _) | (_, 0) => i + j,
            _ => {
                let changed = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                let is_swapped =
                    i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                let swapped = if is_swapped { rows[i - 2][j - 2] + 1 } else { changed };
                changed.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            }
        };
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_far_apart_as_their_changes() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("send", "snd", 1),
            ("sevre", "serve", 1),
            ("redis", "radius", 2),
            ("é", "e", 1),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected));
        }
    }
}

//! Suggestions for mistyped words, and for words of other programs.

/// Names of the commands in other programs.
const SYNONYMS: [(&str, &str); 16] = [
    ("listen", "serve"),
    ("server", "serve"),
    ("recv", "serve"),
    ("receive", "serve"),
    ("run", "serve"),
    ("start", "serve"),
    ("client", "send"),
    ("connect", "send"),
    ("write", "send"),
    ("frame", "encode"),
    ("read", "decode"),
    ("unframe", "decode"),
    ("guess", "detect"),
    ("identify", "detect"),
    ("benchmark", "bench"),
    ("load", "bench"),
];

/// Returns the command that was probably meant, if any.
pub(crate) fn command(typed: &str, commands: &[&'static str]) -> Option<&'static str> {
    let typed = typed.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(word, _)| *word == typed);
    synonym.map(|(_, command)| *command).or_else(|| nearest(&typed, commands.iter().copied()))
}

/// Returns the word most similar to the typed one, if at most half of that differs.
pub(crate) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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

    #[test]
    fn a_word_that_is_like_none_is_not_taken_for_one() {
        let commands = ["serve", "send", "encode", "decode", "bench"];
        for (typed, meant) in [
            ("snd", Some("send")),
            ("Send", Some("send")),
            ("sevre", Some("serve")),
            ("listen", Some("serve")),
            ("encod", Some("encode")),
            ("bake", None),
            ("se", None),
            ("", None),
        ] {
            assert_eq!(command(typed, &commands), meant, "{typed}");
        }
    }
}

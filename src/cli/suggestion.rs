//! Suggestions for mistyped words, and for words of other programs.

/// Names of the commands in other programs.
const SYNONYMS: [(&str, &str); 18] = [
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
    ("presets", "layouts"),
    ("protocols", "layouts"),
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

/// Returns the word most similar to the typed one, if at most a third of that differs.
pub(crate) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = words.map(|word| (strsim::osa_distance(typed, word), word)).min()?;
    (3 * distance <= typed.chars().count()).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

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

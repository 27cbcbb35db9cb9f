//! What may follow an option, or be an argument.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, PositionalInfo};
use framelet::format::{InputFormat, OutputFormat};
use framelet::wire::PRESETS;

/// The layouts that are a length alone.
const LENGTHS: [&str; 10] =
    ["u8", "u16be", "u16le", "u24be", "u24le", "u32be", "u32le", "u64be", "u64le", "varint"];

/// Values that nobody can list.
const FREE: [&str; 11] = [
    "AMOUNT",
    "DURATION",
    "HEX",
    "ID",
    "MODE",
    "N",
    "NAME",
    "NETWORK",
    "SIZE",
    "TEXT",
    "USER[:GROUP]",
];

/// What a shell can offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// Whole values.
    pub(super) words: Vec<String>,
    /// What precedes the path of a file: `file:`, or nothing.
    pub(super) before_paths: Vec<&'static str>,
}

impl Values {
    fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Values {
        let words = words.into_iter().map(String::from).collect();
        Values { words, before_paths: Vec::new() }
    }

    fn and_paths(self, before_paths: &[&'static str]) -> Values {
        Values { before_paths: before_paths.to_vec(), ..self }
    }

    /// Returns what can be offered for a value of this name; `None` if the name is not known.
    fn named(name: &str, flag: &str, program: &CommandInfoWithArgs) -> Option<Values> {
        Some(match (name, flag) {
            ("ADDR", _) => Values::words(["127.0.0.1:4747", ":4747"]).and_paths(&["unix:"]),
            ("FILE" | "PATH", _) => Values::default().and_paths(&[""]),
            ("FORMAT", "--input") => Values::words(InputFormat::names()),
            ("FORMAT", _) => Values::words(OutputFormat::names()),
            ("LAYOUT", _) => {
                Values::words(LENGTHS.into_iter().chain(PRESETS.iter().map(|of| of.name)))
            }
            ("SINK", _) => {
                Values::words(["stdout", "redis://", "rediss://"]).and_paths(&["file:", "sqlite:"])
            }
            ("WHAT", _) => Values { words: generated(program).collect(), ..Values::default() },
            ("WHEN", _) => Values::words(["always", "never"]),
            ("V", _) => Values::words(["v1", "v2"]),
            (alternatives, _) if alternatives.contains('|') => {
                Values::words(alternatives.split('|'))
            }
            (name, _) if FREE.contains(&name) => Values::default(),
            _ => return None,
        })
    }

    pub(super) fn of_flag(flag: &FlagInfo, program: &CommandInfoWithArgs) -> Option<Values> {
        match flag.kind {
            FlagInfoKind::Switch => None,
            FlagInfoKind::Option { arg_name } => {
                Some(Values::named(arg_name, flag.long, program).unwrap_or_default())
            }
        }
    }

    pub(super) fn of_argument(argument: &PositionalInfo, program: &CommandInfoWithArgs) -> Values {
        Values::named(argument.name, "", program).unwrap_or_default()
    }
}

/// Returns the names of all that can be generated.
pub(super) fn generated(program: &CommandInfoWithArgs) -> impl Iterator<Item = String> {
    let pages = program.commands.iter().map(|sub| format!("man-{}", sub.name));
    ["bash", "zsh", "fish", "man"].into_iter().map(String::from).chain(pages)
}

/// Returns the options of a command, without those for help.
pub(super) fn flags(command: &CommandInfoWithArgs) -> impl Iterator<Item = &FlagInfo<'static>> {
    command.flags.iter().filter(|flag| flag.long != "--help")
}

#[cfg(test)]
mod tests {
    use framelet::Layout;

    use super::super::super::arguments::program;
    use super::*;

    #[test]
    fn the_value_of_each_option_is_known_to_be_a_list_a_path_or_free() {
        let program = program();
        for command in program.commands.iter().map(|sub| &sub.command) {
            for argument in command.positionals {
                assert!(Values::named(argument.name, "", &program).is_some(), "{}", argument.name);
            }
            for flag in flags(command) {
                if let FlagInfoKind::Option { arg_name } = flag.kind {
                    let values = Values::named(arg_name, flag.long, &program);
                    assert!(values.is_some(), "{} of {} {}", arg_name, command.name, flag.long);
                }
            }
        }
    }

    #[test]
    fn each_length_is_a_layout() {
        for length in LENGTHS {
            assert!(length.parse::<Layout>().is_ok(), "{length}");
        }
    }
}

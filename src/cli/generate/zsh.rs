//! Completions for zsh.

use argh::{CommandInfoWithArgs, FlagInfoKind};

use super::values::{Values, flags};

const SCRIPT: &str = r#"#compdef framelet
# Completions of framelet for zsh, from `framelet generate zsh`.

# Offers words; each argument after `--` is what precedes the path of a file.
_framelet_values() {
  local before
  local -i dashes=${argv[(i)--]}
  (( dashes > 1 )) && compadd -Q -- "${(@)argv[1,dashes-1]}"
  for before in "${(@)argv[dashes+1,-1]}"; do
    if [[ $PREFIX != $before* ]]; then
      compadd -Q -S '' -- "$before"
    elif [[ -z $before ]]; then
      _files
    else
      compset -P "$before" && _files
    fi
  done
}

_framelet() {
  local -a commands line
  local state
  local context
  typeset -A opt_args
  commands=(
@COMMANDS@  )
  _arguments -C \
@PROGRAM@    '1:command:->command' \
    '*::argument:->arguments' && return
  case $state in
  command) _describe command commands ;;
  arguments)
    case $line[1] in
@CASES@    esac
    ;;
  esac
}

if [[ $funcstack[1] == _framelet ]]; then
  _framelet "$@"
else
  compdef _framelet framelet
fi
"#;

/// Returns a description as it stands between brackets, in single quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\'' => escaped += r"'\''",
            '[' | ']' | ':' | '\\' => escaped.extend(['\\', character]),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Returns the action that offers these values.
fn offer(values: &Values) -> String {
    if *values == Values::default() {
        return " ".into();
    }
    // A colon would end the action.
    let words: Vec<String> = values.words.iter().map(|word| word.replace(':', r"\:")).collect();
    let before = values.before_paths.iter().map(|before| match *before {
        "" => "\"\"".into(),
        before => before.replace(':', r"\:"),
    });
    let before = before.collect::<Vec<_>>().join(" ");
    format!("_framelet_values {} -- {before}", words.join(" "))
}

/// Returns the specifications of a command's options.
fn options(command: &CommandInfoWithArgs, program: &CommandInfoWithArgs, indent: &str) -> String {
    let mut text = format!("{indent}'(-h --help)'{{-h,--help}}'[show this help]' \\\n");
    for flag in flags(command) {
        let (value, about) = (Values::of_flag(flag, program), escaped(flag.description));
        let value = match (&flag.kind, value) {
            (FlagInfoKind::Option { arg_name }, Some(values)) => {
                format!(":{}:{}", escaped(arg_name), offer(&values))
            }
            _ => String::new(),
        };
        let repeated = if flag.optionality == argh::Optionality::Repeating { "*" } else { "" };
        text += indent;
        text += &match flag.short {
            Some(short) => format!(
                "'(-{short} {long})'{{-{short},{long}}}'[{about}]{value}'",
                long = flag.long
            ),
            None => format!("'{repeated}{}[{about}]{value}'", flag.long),
        };
        text += " \\\n";
    }
    text
}

/// Returns the script.
pub(super) fn script(program: &CommandInfoWithArgs) -> String {
    let mut commands = String::new();
    let mut cases = String::new();
    for sub in &program.commands {
        let (name, command) = (sub.name, &sub.command);
        commands += &format!("    '{name}:{}'\n", escaped(command.description));
        cases +=
            &format!("    {name})\n      _arguments \\\n{}", options(command, program, "        "));
        for (index, argument) in (1..).zip(command.positionals) {
            let values = Values::of_argument(argument, program);
            cases += &format!("        '{index}:{}:{}' \\\n", argument.name, offer(&values));
        }
        cases = cases.trim_end_matches(" \\\n").into();
        cases += "\n      ;;\n";
    }
    SCRIPT
        .replace("@COMMANDS@", &commands)
        .replace("@PROGRAM@", &options(program, program, "    "))
        .replace("@CASES@", &cases)
}

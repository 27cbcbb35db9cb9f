//! Completions for fish.

use argh::{CommandInfoWithArgs, FlagInfoKind};

use super::values::{Values, flags};

const BEGIN: &str = r#"# Completions of framelet for fish, from `framelet generate fish`.

function __framelet_paths
    set -l current (commandline -ct)
    for before in $argv
        if string match -q -- "$before*" $current
            set -l path (string sub -s (math (string length -- $before) + 1) -- $current)
            for found in (__fish_complete_path $path)
                echo $before$found
            end
        else
            echo $before
        end
    end
end

complete -c framelet -f
"#;

/// Returns a text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Returns the arguments of `complete` that offer these values.
fn offer(values: &Values) -> String {
    let mut offered = values.words.join(" ");
    match &values.before_paths[..] {
        [] => {}
        [""] => return "-F".into(),
        before => offered += &format!(" (__framelet_paths {})", before.join(" ")),
    }
    format!("-a {}", quoted(offered.trim()))
}

/// Returns the script.
pub(super) fn script(program: &CommandInfoWithArgs) -> String {
    let names: Vec<&str> = program.commands.iter().map(|sub| sub.name).collect();
    let none = quoted(&format!("not __fish_seen_subcommand_from {}", names.join(" ")));
    let mut text = String::from(BEGIN);
    text += "complete -c framelet -s h -l help -d 'show this help'\n";
    for sub in &program.commands {
        let about = quoted(sub.command.description);
        text += &format!("complete -c framelet -n {none} -a {} -d {about}\n", sub.name);
    }
    let with_conditions = program.commands.iter().map(|sub| {
        let seen = format!("__fish_seen_subcommand_from {}", sub.name);
        (&sub.command, quoted(&seen))
    });
    for (command, condition) in with_conditions.chain([(program, none)]) {
        let line = format!("complete -c framelet -n {condition}");
        for argument in command.positionals {
            let values = Values::of_argument(argument, program);
            text += &format!("{line} {}\n", offer(&values));
        }
        for flag in flags(command) {
            text += &format!("{line} -l {}", flag.long.trim_start_matches('-'));
            if let Some(short) = flag.short {
                text += &format!(" -s {short}");
            }
            if let (FlagInfoKind::Option { .. }, Some(values)) =
                (&flag.kind, Values::of_flag(flag, program))
            {
                let exclusive = if values.before_paths == [""] { "-r" } else { "-x" };
                let values =
                    if values == Values::default() { String::new() } else { offer(&values) };
                text += &format!(" {exclusive} {values}");
            }
            text += &format!(" -d {}\n", quoted(flag.description));
        }
    }
    text
}

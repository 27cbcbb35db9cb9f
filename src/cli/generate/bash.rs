//! Completions for bash.

use argh::CommandInfoWithArgs;

use super::values::{Values, flags};

/// The script, but for what depends on the options. Words are those of the line, since bash breaks them at
/// colons, which are in most addresses and sinks.
const SCRIPT: &str = r#"# Completions of framelet for bash, from `framelet generate bash`.

_framelet() {
    local line=${COMP_LINE:0:COMP_POINT} typed word words='' paths='' command='' before
    local current=${line##*[[:space:]]}
    read -ra typed <<<"${line%"$current"}"
    for word in "${typed[@]:1}"; do
        case $word in
        @COMMANDS@)
            command=$word
            break
            ;;
        esac
    done
    case "$command ${typed[${#typed[@]} - 1]}" in
@OPTIONS@    *)
        case "$command $current" in
@NAMES@        esac
        ;;
    esac
    COMPREPLY=()
    while read -r word; do
        [[ -n $word ]] && COMPREPLY+=("$word")
    done < <(compgen -W "$words" -- "$current")
    for before in $paths; do
        [[ $before == path ]] && before=
        if [[ $current != "$before"* ]]; then
            [[ $before == "$current"* ]] && COMPREPLY+=("$before") && compopt -o nospace
            continue
        fi
        compopt -o filenames
        while read -r word; do
            COMPREPLY+=("$before$word")
        done < <(compgen -f -- "${current#"$before"}")
    done
    # bash replaces only what follows the last colon.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}

complete -F _framelet framelet
"#;

/// Returns the assignments that offer these values.
fn offer(values: &Values) -> String {
    let paths =
        values.before_paths.iter().map(|before| if before.is_empty() { "path" } else { before });
    let paths = paths.collect::<Vec<_>>().join(" ");
    format!("words='{}' paths='{paths}'", values.words.join(" "))
}

/// Returns the script.
pub(super) fn script(program: &CommandInfoWithArgs) -> String {
    let names: Vec<&str> = program.commands.iter().map(|sub| sub.name).collect();
    let mut options = String::new();
    let mut choices = String::new();
    for command in program.commands.iter().map(|sub| &sub.command) {
        let name = command.name;
        for flag in flags(command) {
            if let Some(values) = Values::of_flag(flag, program) {
                options += &format!("    '{name} {}') {} ;;\n", flag.long, offer(&values));
            }
        }
        choices += &format!("        '{name} -'*) words='{}' ;;\n", written(command));
        if let Some(argument) = command.positionals.first() {
            let values = Values::of_argument(argument, program);
            choices += &format!("        '{name} '*) {} ;;\n", offer(&values));
        }
    }
    choices += &format!("        ' -'*) words='{}' ;;\n", written(program));
    choices += &format!("        ' '*) words='{}' ;;\n", names.join(" "));
    SCRIPT
        .replace("@COMMANDS@", &names.join(" | "))
        .replace("@OPTIONS@", &options)
        .replace("@NAMES@", &choices)
}

/// Returns the options of a command as they are written.
fn written(command: &CommandInfoWithArgs) -> String {
    let long = flags(command).map(|flag| flag.long.to_owned());
    let short = flags(command).filter_map(|flag| flag.short).map(|short| format!("-{short}"));
    let help = ["--help".to_owned(), "-h".to_owned()];
    long.chain(short).chain(help).collect::<Vec<_>>().join(" ")
}

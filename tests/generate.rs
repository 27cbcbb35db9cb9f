//! Completions and manual pages: that they know what the help knows, and that shells accept them.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use common::program::{FRAMELET, check, docs_show_help_of, framelet};
use framelet::wire::PRESETS;

fn generate(what: &str) -> String {
    let output = framelet(&["generate", what], b"");
    check(&output, 0, &[]);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the first words of a list of the help.
fn listed(command: &[&str], title: &str) -> Vec<String> {
    let help = framelet(&[command, &["--help"]].concat(), b"").stdout;
    let help = String::from_utf8(help).unwrap();
    let rows = help.split_once(&format!("\n{title}:\n")).map_or("", |(_, rows)| rows);
    let rows = rows.lines().take_while(|row| !row.is_empty());
    let rows = rows.filter_map(|row| row.strip_prefix("  ")).filter(|row| !row.starts_with(' '));
    let words = rows.flat_map(|row| row.split("  ").next().unwrap().split([',', ' ']));
    words.filter(|word| !word.is_empty()).map(String::from).collect()
}

fn commands() -> Vec<String> {
    let commands = listed(&[], "Commands");
    assert!(commands.len() >= 8, "{commands:?}");
    commands
}

/// Returns the options of a command, from its help.
fn options(command: &str) -> Vec<String> {
    let options = listed(&[command], "Options");
    let options: Vec<_> = options.into_iter().filter(|word| word.starts_with('-')).collect();
    assert!(options.contains(&"--help".into()), "{options:?}");
    options
}

/// Returns whether a program is there; in CI it must be.
fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap();
    let found = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found || env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        println!("NOT RUN: there is no {program}");
    }
    found
}

/// Runs a program on a script, and returns what it prints.
fn run(program: &str, arguments: &[&str], script: &str, folder: &Path) -> String {
    let path = Path::new(FRAMELET).parent().unwrap().to_str().unwrap();
    let path = format!("{path}:{}", env::var("PATH").unwrap());
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("PATH", path)
        .env("HOME", folder)
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A shell that completes a line in a folder.
type Complete = fn(&str, &Path) -> Vec<String>;

fn bash(line: &str, folder: &Path) -> Vec<String> {
    let script = format!(
        "source <(framelet generate bash); compopt() {{ :; }}; COMP_LINE='{line}' COMP_POINT={}; _framelet; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len()
    );
    let printed = run("bash", &["--norc"], &script, folder);
    // bash keeps what precedes the last colon of the line.
    let current = line.rsplit(' ').next().unwrap();
    let kept = current.rfind(':').map_or("", |colon| &current[..=colon]);
    printed.lines().filter(|word| !word.is_empty()).map(|word| format!("{kept}{word}")).collect()
}

fn fish(line: &str, folder: &Path) -> Vec<String> {
    let script = format!("framelet generate fish | source; complete -C '{line}'");
    let printed = run("fish", &["--no-config"], &script, folder);
    printed.lines().map(|row| row.split('\t').next().unwrap().into()).collect()
}

/// zsh completes only on a terminal: this starts one, and prints what the completions add.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty child zsh -f -i
zpty -w child 'PROMPT= RPROMPT= TMOUT=60; source ./init'
zpty -w -n child "$LINE"$'\t'
zpty -r child all $'*\n=the end*'
for line in "${(@f)all}"; do
  line=${line%$'\r'}
  [[ $line == hit=* ]] && print -r -- "${line#hit=}"
done
exit 0
"#;

const ZSH_INIT: &str = r#"
autoload -U compinit
compinit -u -D
source <(framelet generate zsh)
compadd() {
  if (( ! ${@[(I)-[OAD]]} )); then
    local -a hits
    local prefix=$IPREFIX
    builtin compadd -O hits "$@"
    (( $#hits )) && print -rl -- '' "hit="$prefix$^hits
  fi
  builtin compadd "$@"
}
ended() { print -r -- $'\n=the end'; exit }
comppostfuncs=(ended)
bindkey '^I' complete-word
"#;

fn zsh(line: &str, folder: &Path) -> Vec<String> {
    fs::write(folder.join("init"), ZSH_INIT).unwrap();
    let printed = run("zsh", &["-f", "-s"], &format!("LINE='{line}'\n{ZSH}"), folder);
    printed.lines().map(String::from).collect()
}

fn shells() -> impl Iterator<Item = (&'static str, Complete)> {
    let shells: [(_, Complete); 3] = [("bash", bash), ("fish", fish), ("zsh", zsh)];
    shells.into_iter().filter(|(shell, _)| is_there(shell))
}

#[test]
fn each_shell_completes_commands_options_values_and_paths() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("messages.db"), "").unwrap();
    let cases: [(&str, &[&str], &[&str]); 16] = [
        ("framelet ", &["serve", "send", "generate"], &["--to", "messages.db"]),
        ("framelet se", &["serve", "send"], &["decode"]),
        ("framelet --v", &["--version"], &["--verbose"]),
        ("framelet serve --", &["--to", "--help", "--max-message"], &["--ack", "stdout"]),
        ("framelet serve --echo --max-c", &["--max-connections"], &["--max-message"]),
        ("framelet send --ack --s", &["--sender", "--sender-file", "--skip"], &["--sync"]),
        ("framelet serve --to ", &["stdout", "file:", "sqlite:", "redis://"], &["messages.db"]),
        ("framelet serve --to file:mes", &["file:messages.db"], &["stdout"]),
        ("framelet serve --layout post", &["postgres"], &["u32be"]),
        ("framelet serve --sync ", &["always", "never"], &["stdout"]),
        ("framelet send --input ", &["whole", "lines"], &["raw", "none", "hexdump"]),
        ("framelet send --output h", &["hex", "hexdump"], &["whole", "json"]),
        ("framelet send uni", &["unix:"], &["messages.db"]),
        ("framelet decode mes", &["messages.db"], &["--help"]),
        ("framelet detect --output ", &["lines", "json"], &["hex"]),
        ("framelet generate man-s", &["man-serve", "man-send"], &["bash"]),
    ];
    for (shell, complete) in shells() {
        for (line, offered, not_offered) in cases {
            let words = complete(line, folder.path());
            for word in offered {
                assert!(
                    words.contains(&(*word).into()),
                    "{shell}: {line:?}: no {word} in {words:?}"
                );
            }
            for word in not_offered {
                assert!(!words.contains(&(*word).into()), "{shell}: {line:?}: {word} in {words:?}");
            }
        }
    }
}

#[test]
fn each_shell_knows_all_options_of_the_help_and_all_layouts() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, complete) in shells() {
        for command in commands() {
            let words = complete(&format!("framelet {command} -"), folder.path());
            for option in options(&command) {
                assert!(words.contains(&option), "{shell}: {command}: no {option} in {words:?}");
            }
        }
        let words = complete("framelet layouts ", folder.path());
        for preset in PRESETS {
            assert!(words.contains(&preset.name.into()), "{shell}: no {}", preset.name);
        }
    }
}

#[test]
fn the_manual_has_a_page_for_each_command_with_all_its_options() {
    for command in commands() {
        let page = generate(&format!("man-{command}"));
        for option in options(&command) {
            let styled = format!("\\fB{}\\fR", option.replace('-', "\\-"));
            assert!(page.contains(&styled), "{command}: no {option} in\n{page}");
        }
    }
    let page = generate("man");
    for command in commands() {
        assert!(page.contains(&format!(".TP\n\\fB{command}\\fR\n")), "no {command} in\n{page}");
    }
}

#[test]
fn mandoc_finds_nothing_wrong_with_the_manual() {
    if !is_there("mandoc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = commands().into_iter().map(|command| format!("man-{command}"));
    for what in pages.chain(["man".into()]) {
        // The date is left out, so that the same source makes the same page.
        let lint = ["-c", "mandoc -T lint -W warning || :"];
        let lint = run("sh", &lint, &generate(&what), folder.path());
        let lint: Vec<_> = lint.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(lint.is_empty(), "{what}: {lint:?}");
    }
}

#[test]
fn the_docs_show_the_help_as_it_is() {
    docs_show_help_of(&["generate"]);
}

#[test]
fn what_cannot_be_generated_is_refused_with_a_list() {
    let output = framelet(&["generate", "man-listen"], b"");
    check(&output, 2, &["cannot generate \"man-listen\"", "bash zsh fish man man-serve"]);
}

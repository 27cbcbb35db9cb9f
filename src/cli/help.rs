//! The help of a command: what its options are, and what all help texts share.

use argh::{CommandInfoWithArgs, FlagInfoKind, Optionality};

/// The width of the text.
const WIDTH: usize = 80;

/// An example for each command, and one for the program.
const EXAMPLES: [(&str, &str); 10] = [
    ("", r"framelet serve &  printf 'two\nlines\n\n' | framelet send --retry 5s"),
    ("serve", "framelet serve 127.0.0.1:4747 --output json >> messages.json"),
    ("send", r"printf 'two\nlines\n\nanother message' | framelet send 127.0.0.1:4747"),
    ("ping", "framelet ping 127.0.0.1:4747 --timeout 2s"),
    ("encode", "framelet encode --input lines < lines.txt > frames.bin"),
    ("decode", "framelet decode --output json < frames.bin"),
    ("detect", "framelet detect capture.bin"),
    ("layouts", "framelet layouts postgres"),
    ("bench", "framelet serve --echo --output none &  framelet bench --echo --retry 5s"),
    ("generate", "source <(framelet generate bash)"),
];

/// Descriptions of values, shown for commands that take such a value.
const VALUES: [(&str, &str, &str); 8] = [
    ("ADDR", "ADDR", "HOST:PORT, [IPV6]:PORT, :PORT (on 127.0.0.1) or unix:PATH"),
    (
        "SINK",
        "SINK",
        "stdout, file:PATH (appended to), sqlite:PATH, or \
         redis://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N] (the password is better in the \
         variable FRAMELET_REDIS_PASSWORD)",
    ),
    (
        "FORMAT",
        "--input",
        "of --input: text (lines up to an empty line), lines, nul (up to a NUL byte), hex, base64, json \
         (objects with payload or payload_base64, and header), frames (u32be, or the layout if it has \
         headers), whole (all input is one message)",
    ),
    (
        "FORMAT",
        "--output",
        "of --output: lines, text (each followed by an empty line), nul, hex, base64, json, hexdump \
         (for people), frames (u32be, or the layout if it has headers), raw (nothing in between), none; \
         only json and frames have headers",
    ),
    (
        "LAYOUT",
        "LAYOUT",
        "u8 u16be u16le u24be u24le u32be u32le u64be u64le varint, with +self if the length counts its \
         own bytes; a protocol such as postgres; or items such as h1:u32be (see framelet layouts --help)",
    ),
    (
        "NETWORK",
        "NETWORK",
        "an address, or the first one and a number of bits: 10.0.0.0/8, 2001:db8::/32",
    ),
    ("SIZE", "SIZE", "bytes, or a number with k M G (thousands) or KiB MiB GiB (1024), as in 8MiB"),
    ("DURATION", "DURATION", "a number with ms, s, m or h, as in 30s; a timeout can be off"),
];

/// The exit codes of all commands.
const EXIT_CODES: [(&str, &str); 6] = [
    ("0", "success: all that was asked for was done"),
    ("1", "network: refused, reset, closed early, not acknowledged"),
    ("2", "usage, a local file, or input that is not in its format"),
    ("3", "protocol: message too long, truncated or malformed, no acknowledgements"),
    ("4", "timed out, or fewer replies than expected (--expect, --each)"),
    ("141", "standard output was closed by its reader, as after SIGPIPE"),
];

/// What there is to say about a command: the content of its help and of its manual page.
pub(crate) struct Page<'a> {
    /// The command; empty for the program itself.
    pub(crate) name: &'a str,
    pub(crate) example: &'a str,
    /// What is typed after the command.
    pub(crate) usage: String,
    pub(crate) description: &'a str,
    /// Commands, arguments, options and values: each list with its title.
    pub(crate) lists: Vec<(&'static str, Vec<(String, &'a str)>)>,
    pub(crate) notes: &'a [&'a str],
    pub(crate) exit_codes: Vec<(String, &'a str)>,
}

impl Page<'_> {
    /// Collects what there is to say about a command.
    pub(crate) fn of(command: &CommandInfoWithArgs) -> Page<'_> {
        // Only the program itself has commands.
        let name = if command.commands.is_empty() { command.name } else { "" };
        let example =
            EXAMPLES.iter().find(|(of, _)| *of == name).map_or("", |(_, example)| *example);
        let usage = match command.positionals.first() {
            _ if name.is_empty() => "COMMAND [OPTIONS]".into(),
            Some(positional) if positional.optionality == Optionality::Required => {
                format!("{} [OPTIONS]", positional.name)
            }
            Some(positional) => format!("[{}] [OPTIONS]", positional.name),
            None => "[OPTIONS]".into(),
        };
        let commands = command.commands.iter();
        let commands = commands.map(|sub| (sub.name.into(), sub.command.description));
        let arguments = command.positionals.iter().map(|of| (of.name.into(), of.description));
        let help = [("-h, --help".into(), "show this help")];
        let options = command.flags.iter().filter(|flag| flag.long != "--help").map(|flag| {
            let short = flag.short.map_or(String::new(), |short| format!("-{short}, "));
            let value = match flag.kind {
                FlagInfoKind::Option { arg_name } => format!(" {arg_name}"),
                FlagInfoKind::Switch => String::new(),
            };
            (format!("{short}{}{value}", flag.long), flag.description)
        });
        // The output of detect is not messages.
        let is_shown = |of: &str| has(command, of) && (name, of) != ("detect", "--output");
        let values = VALUES.iter().filter(|(_, of, _)| is_shown(of));
        Page {
            name,
            example,
            usage,
            description: command.description,
            lists: vec![
                ("Commands", commands.collect()),
                ("Arguments", arguments.collect()),
                ("Options", options.chain(help).collect()),
                ("Values", values.map(|(name, _, what)| ((*name).into(), *what)).collect()),
            ],
            notes: command.notes,
            exit_codes: EXIT_CODES.iter().map(|(code, what)| ((*code).into(), *what)).collect(),
        }
    }
}

/// Returns the help of a command.
pub(crate) fn of(command: &CommandInfoWithArgs) -> String {
    let page = Page::of(command);
    let mut text = String::new();
    if !page.example.is_empty() {
        text += &format!("Example: {}\n\n", page.example);
    }
    let space = if page.name.is_empty() { "" } else { " " };
    text += &format!("Usage: framelet {}{space}{}\n\n", page.name, page.usage);
    text += &wrapped("", &[("", page.description)], 0);
    for (title, rows) in &page.lists {
        text += &list(title, rows);
    }
    if !page.notes.is_empty() {
        text += "\nNotes:\n";
        text += &page.notes.iter().map(|note| wrapped("  ", &[("", *note)], 2)).collect::<String>();
    }
    text + &list("Exit codes", &page.exit_codes)
}

/// Returns whether a command takes a value, or has an option.
fn has(command: &CommandInfoWithArgs, what: &str) -> bool {
    let named = |kind: &FlagInfoKind<'_>| matches!(kind, FlagInfoKind::Option { arg_name } if *arg_name == what);
    command.positionals.iter().any(|positional| positional.name == what)
        || command.flags.iter().any(|flag| flag.long == what || named(&flag.kind))
}

/// Returns names and what they mean, in two columns below a title.
fn list(title: &str, rows: &[(String, &str)]) -> String {
    let Some(longest) = rows.iter().map(|(name, _)| name.len()).max() else {
        return String::new();
    };
    let rows: Vec<_> = rows.iter().map(|(name, what)| (name.as_str(), *what)).collect();
    format!("\n{title}:\n{}", wrapped("  ", &rows, longest + 4))
}

/// Formats rows of a name and a text; the texts start at the same column and are wrapped.
pub(crate) fn wrapped(indent: &str, rows: &[(&str, &str)], column: usize) -> String {
    let mut text = String::new();
    for (name, what) in rows {
        let mut line = format!("{:column$}", format!("{indent}{name}"));
        for (number, word) in what.split_whitespace().enumerate() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && number > 0 {
                text += &format!("{line}\n");
                line = " ".repeat(column);
            } else if number > 0 {
                line.push(' ');
            }
            line += word;
        }
        text += &format!("{line}\n");
    }
    text
}

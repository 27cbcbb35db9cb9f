//! The command line, parsed.

use std::ffi::OsString;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};
use framelet::wire::WithoutPassword;

use super::bench::Bench;
use super::decode::Decode;
use super::detect::Detect;
use super::encode::Encode;
use super::exit_code::Exit;
use super::failure::Failure;
use super::generate::Generate;
use super::help;
use super::layouts::Layouts;
use super::ping::Ping;
use super::send::Send;
use super::serve::Serve;
use super::suggestion;

/// What the command line asks for.
pub(crate) enum Request {
    Run(Box<Command>),
    /// To show a text: help, or the version.
    Show(String),
}

/// Carries whole messages over TCP: puts a length before each message.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    name = "framelet",
    help_triggers("-h", "--help", "help"),
    note = "Messages and replies go to standard output, everything else to standard error.",
    note = "framelet COMMAND --help explains a command and its values."
)]
struct Arguments {
    /// show the version and the features built in
    #[argh(switch)]
    version: bool,

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Send(Send),
    Ping(Ping),
    Encode(Encode),
    Decode(Decode),
    Layouts(Layouts),
    Detect(Detect),
    Bench(Bench),
    Generate(Generate),
}

/// The commands, by name.
const COMMANDS: [&str; 9] =
    ["serve", "send", "ping", "encode", "decode", "detect", "layouts", "bench", "generate"];

/// The features that this build has, as Cargo calls them.
const FEATURES: [(&str, bool); 8] = [
    ("detect", cfg!(feature = "detect")),
    ("generate", cfg!(feature = "generate")),
    ("bench", cfg!(feature = "bench")),
    ("metrics", cfg!(feature = "metrics")),
    ("progress", cfg!(feature = "progress")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("redis", cfg!(feature = "redis")),
    ("tls", cfg!(feature = "tls")),
];

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Command::Serve(serve) => serve.run(),
            Command::Send(send) => send.run(),
            Command::Ping(ping) => ping.run(),
            Command::Encode(encode) => encode.run(),
            Command::Decode(decode) => decode.run(),
            Command::Layouts(layouts) => layouts.run(),
            Command::Detect(detect) => detect.run(),
            Command::Bench(bench) => bench.run(),
            Command::Generate(generate) => generate.run(&program()),
        }
    }
}

/// Returns all commands and options.
pub(crate) fn program() -> CommandInfoWithArgs {
    Arguments::get_args_info()
}

/// Parses the command line.
pub(crate) fn parse(typed: impl Iterator<Item = OsString>) -> Result<Request, Failure> {
    let typed = typed.skip(1).map(text).collect::<Result<Vec<_>, _>>()?;
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    let program = program();
    let mut words = typed.iter().filter(|argument| !argument.starts_with('-'));
    // `framelet help send` is `framelet send --help`.
    let named = words.find(|word| **word != "help").copied();
    let command = program.commands.iter().map(|sub| &sub.command);
    let command = command.clone().find(|command| Some(command.name) == named).unwrap_or(&program);
    match Arguments::from_args(&["framelet"], &typed) {
        Ok(Arguments { version: true, .. }) => Ok(Request::Show(version())),
        Ok(Arguments { command: Some(command), .. }) => Ok(Request::Run(Box::new(command))),
        Ok(Arguments { command: None, .. }) => Err(Failure::new(
            Exit::Usage,
            "which command? serve, send, ping, encode, decode, detect, layouts, bench or generate (see framelet --help)",
        )),
        Err(early) if early.status.is_ok() => Ok(Request::Show(help::of(command))),
        Err(early) => Err(Failure::new(Exit::Usage, usage_error(&early.output, &typed, command))),
    }
}

/// Returns an argument as text.
fn text(argument: OsString) -> Result<String, Failure> {
    argument.into_string().map_err(|argument| {
        let argument = argument.to_string_lossy();
        let argument = WithoutPassword(&argument).to_string();
        Failure::new(Exit::Usage, format!("an argument is not UTF-8: {argument:?}"))
    })
}

fn version() -> String {
    let features: Vec<&str> =
        FEATURES.iter().filter(|(_, built)| *built).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".into() } else { features.join(", ") };
    format!("framelet {}\nfeatures: {features}\n", env!("CARGO_PKG_VERSION"))
}

/// Describes a wrong command line in one line, with a suggestion.
fn usage_error(output: &str, typed: &[&str], command: &CommandInfoWithArgs) -> String {
    let what: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Run "))
        .collect();
    let what = what.join(" ");
    let name = if command.commands.is_empty() { command.name } else { "" };
    let see = format!("see framelet {name}{}--help", if name.is_empty() { "" } else { " " });
    let unknown = what.strip_prefix("Unrecognized argument: ");
    let message = match unknown {
        Some(word) if name.is_empty() && !word.starts_with('-') => no_such_command(word),
        Some(flag) if flag.starts_with('-') => {
            let flags = command.flags.iter().map(|flag| flag.long);
            let meant = suggestion::nearest(flag, flags);
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
            format!("unrecognized argument: {flag}{meant}")
        }
        Some(word) if name == "send" => format!(
            "unrecognized argument: {word}; to send it as a text, write --message {word:?}; to send a file, \
             framelet send ADDR < {word}"
        ),
        _ => {
            let (first, rest) = what.split_at(what.chars().next().map_or(0, char::len_utf8));
            first.to_lowercase() + rest
        }
    };
    // The message quotes the command line, which may contain a URL with a password.
    let message = typed.iter().fold(message, |message, typed| {
        message.replace(typed, &WithoutPassword(typed).to_string())
    });
    format!("{message} ({see})")
}

fn no_such_command(word: &str) -> String {
    match suggestion::command(word, &COMMANDS) {
        Some(meant) => format!("no such command `{word}`; did you mean `{meant}`?"),
        None => format!(
            "no such command `{word}`; the commands are serve, send, ping, encode, decode, detect, layouts, bench and generate"
        ),
    }
}

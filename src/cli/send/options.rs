//! The options of `framelet send`.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use framelet::Layout;
use framelet::format::{InputFormat, OutputFormat};
use framelet::wire::{EmptyFrames, ProxyVersion, SenderId};

use super::super::values::{
    Bytes, DEFAULT_ADDRESS, DefaultHeader, Timeout, bytes, count, duration, empty, header, layout,
    size, timeout,
};

/// Sends messages from standard input, and prints replies.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "send",
    help_triggers("-h", "--help", "help"),
    note = "Without --expect and --each, send waits at the end of the input until the server closes the connection: it has then read everything, and a framelet server has also written it. Through a proxy, a close proves nothing; only --ack proves delivery. While the server does not read, send waits without limit, and says so once.",
    note = "The sender's id is that of --sender-file or --sender, else of the variable FRAMELET_SENDER, else a random one. Anyone who knows it can take the sender's place; --sender shows it in the list of processes."
)]
pub(crate) struct Send {
    /// where to connect to (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    pub(super) addr: String,

    /// how messages are read from the input (default: text)
    #[argh(option, arg_name = "FORMAT")]
    pub(super) input: Option<InputFormat>,

    /// send this text instead of standard input; may be repeated
    #[argh(option, arg_name = "TEXT")]
    pub(super) message: Vec<String>,

    /// end after the first message
    #[argh(switch)]
    pub(super) once: bool,

    /// how replies are printed (default: lines)
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::Lines")]
    pub(super) output: OutputFormat,

    /// end once everything is sent and this many replies have come
    #[argh(option, arg_name = "N", from_str_fn(count))]
    pub(super) expect: Option<u64>,

    /// wait for a reply after each message, and end after the last reply
    #[argh(switch)]
    pub(super) each: bool,

    /// with --expect or --each: half-close after the last reply; wait until the server closes the connection
    #[argh(switch)]
    pub(super) hang_up: bool,

    /// longest wait to connect, for each reply, for the server to close; with --ack, for any answer (default: 10s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(timeout),
        default = "Timeout(Some(Duration::from_secs(10)))"
    )]
    pub(super) timeout: Timeout,

    /// give up after this long without a connection (default: at once; with --ack 30s)
    #[argh(option, arg_name = "DURATION", from_str_fn(duration))]
    pub(super) retry: Option<Duration>,

    /// ask for acknowledgements; reconnect and send again what is not committed
    #[argh(switch)]
    pub(super) ack: bool,

    /// with --ack: most messages without acknowledgement, of at most 8 MiB together (default: 4000)
    #[argh(option, arg_name = "N", from_str_fn(window))]
    pub(super) window: Option<usize>,

    /// with --ack: file that holds the sender's id and progress; created if missing
    #[argh(option, arg_name = "PATH")]
    pub(super) sender_file: Option<String>,

    /// with --ack: the sender's id, 32 hexadecimal digits (default: a random one)
    #[argh(option, arg_name = "ID")]
    pub(super) sender: Option<SenderId>,

    /// with an id: skip what is committed; give the same input as before, from its start (another one is
    /// refused)
    #[argh(switch)]
    pub(super) resume: bool,

    /// with --ack: if the server has lost messages, number the rest after those it has
    #[argh(switch)]
    pub(super) renumber: bool,

    /// how messages are framed (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    pub(super) layout: Layout,

    /// header of messages that come without one, in hexadecimal, if the layout has headers (default: zeros)
    #[argh(option, arg_name = "HEX", from_str_fn(header), default = "DefaultHeader::default()")]
    pub(super) header: DefaultHeader,

    /// speak TLS, and check that the server's certificate is for the host of ADDR
    #[argh(switch)]
    pub(super) tls: bool,

    /// with --tls: PEM file of the authorities to trust (default: those of the system)
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_ca: Option<String>,

    /// with --tls: PEM file of this client's certificate, if the server asks for one
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_cert: Option<String>,

    /// with --tls-cert: PEM file of its key
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_key: Option<String>,

    /// with --tls: the name that the server's certificate must be for, instead of the host
    #[argh(option, arg_name = "NAME")]
    pub(super) tls_name: Option<String>,

    /// send a PROXY header first, as a load balancer does: v1 or v2
    #[argh(option, arg_name = "V")]
    pub(super) proxy_protocol: Option<ProxyVersion>,

    /// bytes to send first, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    pub(super) preamble: Bytes,

    /// how many bytes the other side sends first, to be skipped (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    pub(super) skip: u64,

    /// what an empty frame is: a message, or a heartbeat to skip or to echo (default: message)
    #[argh(option, arg_name = "WHAT", from_str_fn(empty), default = "EmptyFrames::Message")]
    pub(super) empty: EmptyFrames,

    /// longest message to send or accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    pub(super) max_message: Option<usize>,

    /// log attempts to connect, and how much was sent
    #[argh(switch, short = 'v')]
    pub(super) verbose: bool,
}

/// Parses how many messages may wait.
fn window(text: &str) -> Result<usize, String> {
    let window = text.parse().map_err(|_| "not a number; write digits only")?;
    if window == 0 { Err("must be at least 1".into()) } else { Ok(window) }
}

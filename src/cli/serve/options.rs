//! The options of `framelet serve`.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use framelet::Layout;
use framelet::format::OutputFormat;
use framelet::net::Network;
use framelet::sink::{FileSync, Keep, SinkTarget};
use framelet::wire::EmptyFrames;

use super::super::log::LogFormat;
use super::super::values::{
    Bytes, DEFAULT_ADDRESS, Timeout, bytes, count, duration, empty, keep, layout, size, timeout,
};
use super::access::{Owner, mode};

/// Receives messages and writes each one, whole and as it arrives, to standard output, a file, a
/// database or Redis.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "serve",
    help_triggers("-h", "--help", "help"),
    note = "SIGTERM or SIGINT shuts down gracefully within --grace; a second one exits at once.",
    note = "SIGHUP finishes the current file, then reopens file:PATH (for log rotation), and reads the files of --tls-cert, --tls-key and --tls-client-ca again, for new connections. Without any of these, it ends the server.",
    note = "SIGUSR1 logs the figures once: connections, messages, memory, commits.",
    note = "The address systemd is the socket that a socket unit passes; systemd:NAME is one of several."
)]
pub(crate) struct Serve {
    /// where to listen; port 0 picks a free port (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    pub(super) addr: String,

    /// where messages go (default: stdout)
    #[argh(option, arg_name = "SINK", default = "SinkTarget::Stdout")]
    pub(super) to: SinkTarget,

    /// how messages are written to stdout or a file (default: lines)
    #[argh(option, arg_name = "FORMAT")]
    pub(super) output: Option<OutputFormat>,

    /// fsync the file at each commit (always) or leave it to the system (never) (default: always)
    #[argh(option, arg_name = "WHEN")]
    pub(super) sync: Option<FileSync>,

    /// keep only the latest messages in the database: an age, a size or a number; can be repeated
    #[argh(option, arg_name = "AMOUNT", from_str_fn(keep))]
    pub(super) keep: Vec<Keep>,

    /// send each message back
    #[argh(switch)]
    pub(super) echo: bool,

    /// serve only clients that ask for acknowledgements
    #[argh(switch)]
    pub(super) require_ack: bool,

    /// how messages are framed (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    pub(super) layout: Layout,

    /// expect a PROXY header, v1 or v2: the peer is the one that the load balancer names
    #[argh(switch)]
    pub(super) proxy_protocol: bool,

    /// with --proxy-protocol: take headers only from this network; can be repeated
    #[argh(option, arg_name = "NETWORK")]
    pub(super) proxy_from: Vec<Network>,

    /// serve over TLS, with the certificate in this PEM file
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_cert: Option<String>,

    /// with --tls-cert: PEM file of its key
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_key: Option<String>,

    /// require a certificate of each client, by an authority in this PEM file; it names the peer
    #[argh(option, arg_name = "FILE")]
    pub(super) tls_client_ca: Option<String>,

    /// with --tls-client-ca: sender ids must begin with the common name of the client's certificate
    #[argh(switch)]
    pub(super) tls_bind_sender: bool,

    /// bytes to send first on each connection, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    pub(super) preamble: Bytes,

    /// how many bytes the other side sends first, to be skipped (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    pub(super) skip: u64,

    /// what an empty frame is: a message, or a heartbeat to skip or to echo (default: message)
    #[argh(option, arg_name = "WHAT", from_str_fn(empty), default = "EmptyFrames::Message")]
    pub(super) empty: EmptyFrames,

    /// longest message to accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    pub(super) max_message: Option<usize>,

    /// most connections at once (default: the limit of open files less 32, at most 10000)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    pub(super) max_connections: Option<u64>,

    /// how long to be idle before giving way when connections run out (default: 10s)
    #[argh(option, arg_name = "DURATION", from_str_fn(timeout))]
    pub(super) evict_idle: Option<Timeout>,

    /// most connections of one address; an IPv6 address counts by its first 64 bits (default: no limit)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    pub(super) max_per_address: Option<u64>,

    /// serve only peers with an address in this network; can be repeated (default: all)
    #[argh(option, arg_name = "NETWORK")]
    pub(super) allow: Vec<Network>,

    /// permissions of the file of a Unix socket, such as 0660
    #[argh(option, arg_name = "MODE", from_str_fn(mode))]
    pub(super) mode: Option<u16>,

    /// user and group that own the file of a Unix socket
    #[argh(option, arg_name = "USER[:GROUP]")]
    pub(super) owner: Option<Owner>,

    /// most time for a message to arrive, and for a peer to take replies (default: 30s)
    #[argh(option, arg_name = "DURATION", from_str_fn(timeout))]
    pub(super) message_timeout: Option<Timeout>,

    /// longest silence on a connection (default: off)
    #[argh(option, arg_name = "DURATION", from_str_fn(timeout))]
    pub(super) idle_timeout: Option<Timeout>,

    /// most memory for messages not yet written (default: 64MiB, at least twice --max-message)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    pub(super) memory: Option<usize>,

    /// most time to shut down (default: 10s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(duration),
        default = "Duration::from_secs(10)"
    )]
    pub(super) grace: Duration,

    /// where to serve figures for Prometheus, over HTTP (/metrics, and /healthz)
    #[argh(option, arg_name = "ADDR")]
    pub(super) metrics: Option<String>,

    /// threads that run the connections (default: 1)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    pub(super) threads: Option<u64>,

    /// text for people, or json: an object a line (default: text)
    #[argh(option, arg_name = "text|json", default = "LogFormat::Text")]
    pub(super) log_format: LogFormat,

    /// show the figures in a live line on the terminal
    #[argh(switch)]
    pub(super) status: bool,

    /// start each line of the log with the time
    #[argh(switch)]
    pub(super) log_time: bool,

    /// log each connection, too
    #[argh(switch, short = 'v')]
    pub(super) verbose: bool,

    /// log errors only
    #[argh(switch, short = 'q')]
    pub(super) quiet: bool,
}

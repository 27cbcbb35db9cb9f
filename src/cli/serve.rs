//! `framelet serve`: receives messages and puts them into a sink.

use std::io;
use std::time::Duration;

use ::log::{LevelFilter, info, warn};
use argh::{ArgsInfo, FromArgs};
use framelet::format::OutputFormat;
use framelet::server::{Echo, Reopen, ServeError};
use framelet::sink::{FileSync, SinkTarget};
use framelet::wire::Count;
use framelet::{Address, Layout, Server};
use futures_lite::future;

use super::exit_code::Exit;
use super::failure::{Failure, missing_directory, plain};
use super::flags;
use super::log;
use super::process::{check_threads, raise_file_limit, set_threads};
use super::signals::{reopen_at_signal, stop_signal, survive_limits};
use super::values::{
    Bytes, DEFAULT_ADDRESS, Timeout, address, bytes, count, duration, layout, size, timeout,
};

mod sink;

/// Receives messages and writes each one, whole and as it arrives, to standard output, a file, a
/// database or Redis.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "serve",
    help_triggers("-h", "--help", "help"),
    note = "SIGTERM or SIGINT shuts down gracefully within --grace; a second one exits at once.",
    note = "SIGHUP finishes the current file, then reopens file:PATH (for log rotation)."
)]
pub(crate) struct Serve {
    /// where to listen; port 0 picks a free port (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    addr: String,

    /// where messages go (default: stdout)
    #[argh(option, arg_name = "SINK", default = "SinkTarget::Stdout")]
    to: SinkTarget,

    /// how messages are written to stdout or a file (default: lines)
    #[argh(option, arg_name = "FORMAT")]
    output: Option<OutputFormat>,

    /// fsync the file at each commit (always) or leave it to the system (never) (default: always)
    #[argh(option, arg_name = "WHEN")]
    sync: Option<FileSync>,

    /// send each message back
    #[argh(switch)]
    echo: bool,

    /// serve only clients that ask for acknowledgements
    #[argh(switch)]
    require_ack: bool,

    /// how lengths are written (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// expect a PROXY header, v1 or v2: the peer is the one that the load balancer names
    #[argh(switch)]
    proxy_protocol: bool,

    /// bytes to send first on each connection, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    preamble: Bytes,

    /// how many bytes the other side sends first, to be skipped (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    skip: u64,

    /// longest message to accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    max_message: Option<usize>,

    /// most connections at once (default: the limit of open files less 32, at most 10000)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    max_connections: Option<u64>,

    /// most time for a message to arrive, and for a peer to take replies (default: 30s)
    #[argh(option, arg_name = "DURATION", from_str_fn(timeout))]
    message_timeout: Option<Timeout>,

    /// longest silence on a connection (default: off)
    #[argh(option, arg_name = "DURATION", from_str_fn(timeout))]
    idle_timeout: Option<Timeout>,

    /// most memory for messages not yet written (default: 64MiB, at least twice --max-message)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    memory: Option<usize>,

    /// most time to shut down (default: 10s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(duration),
        default = "Duration::from_secs(10)"
    )]
    grace: Duration,

    /// threads that run the connections (default: 1)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    threads: Option<u64>,

    /// start each line of the log with the time
    #[argh(switch)]
    log_time: bool,

    /// log each connection, too
    #[argh(switch, short = 'v')]
    verbose: bool,

    /// log errors only
    #[argh(switch, short = 'q')]
    quiet: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let level = match (self.verbose, self.quiet) {
            (true, true) => {
                return Err(Failure::new(Exit::Usage, "-v and -q contradict each other"));
            }
            (true, false) => LevelFilter::Debug,
            (false, true) => LevelFilter::Error,
            (false, false) => LevelFilter::Info,
        };
        // Done first, while nothing would be lost by a restart of the program.
        self.threads.map_or_else(check_threads, set_threads)?;
        if self.log_time {
            log::show_times();
        }
        log::start(level);
        raise_file_limit();
        // Runs on a thread that polls no reactor, so that events stay with the threads that run the
        // connections.
        future::block_on(smol::spawn(self.serve()))
    }

    async fn serve(self) -> Result<(), Failure> {
        let address = address(&self.addr).map_err(|failure| {
            let is_sink = self.addr.parse::<SinkTarget>().is_ok();
            failure.advise(if is_sink {
                "; to put messages there, write it after --to"
            } else {
                ""
            })
        })?;
        let listener = address.listen().await.map_err(|error| {
            Failure::new(
                Exit::Network,
                format!("cannot listen on {address}: {}", why(&address, &error)),
            )
        })?;
        let bound = listener.address();
        let mut server = self.options(Server::new(listener));
        server.check().map_err(failure)?;
        self.check_sink()?;
        if let Some(sink) = self.sink()? {
            server = server.collect(sink);
        }
        if let SinkTarget::File(_) = self.to {
            let reopen = Reopen::default();
            reopen_at_signal(reopen.clone())?;
            server = server.reopen(reopen);
        }
        survive_limits()?;
        let stopped = stop_signal()?;
        match bound {
            Ok(address) => log::say(format!("listening on {address}")),
            Err(error) => warn!("listening, but the address is unknown: {}", plain(&error)),
        }
        let summary = server.run(stopped).await.map_err(failure)?;
        info!(
            "{} over {}",
            Count(summary.messages, "message"),
            Count(summary.connections, "connection")
        );
        Ok(())
    }

    fn options(&self, mut server: Server) -> Server {
        server = server.layout(self.layout).grace(self.grace).require_acks(self.require_ack);
        server = server.proxy_protocol(self.proxy_protocol);
        server = server.preamble(&self.preamble.0).skip(self.skip);
        if let Some(max) = self.max_message {
            server = server.max_message(max);
        }
        if let Some(max) = self.max_connections {
            server = server.max_connections(usize::try_from(max).unwrap_or(usize::MAX));
        }
        if let Some(Timeout(timeout)) = self.message_timeout {
            server = server.message_timeout(timeout);
        }
        if let Some(Timeout(timeout)) = self.idle_timeout {
            server = server.idle_timeout(timeout);
        }
        if let Some(memory) = self.memory {
            server = server.memory(memory);
        }
        if self.echo { server.answer(Echo) } else { server }
    }
}

/// Why it cannot listen, with advice for the usual causes.
fn why(address: &Address, error: &io::Error) -> String {
    let hint = match (address, error.kind()) {
        (Address::Unix(path), io::ErrorKind::NotFound) => &missing_directory(path),
        (Address::Tcp { .. }, io::ErrorKind::AddrInUse) => {
            "; another server may be running there (port 0 picks a free port)"
        }
        (Address::Tcp { .. }, io::ErrorKind::PermissionDenied) => {
            "; ports below 1024 need a privilege"
        }
        (Address::Tcp { .. }, io::ErrorKind::AddrNotAvailable) => {
            "; this machine does not have that address"
        }
        (_, io::ErrorKind::AddrInUse) => "; another server is running there",
        _ => "",
    };
    format!("{}{hint}", plain(error))
}

fn failure(error: ServeError) -> Failure {
    let exit = match &error {
        ServeError::Sink { error, .. } if error.kind() == io::ErrorKind::BrokenPipe => {
            Exit::ClosedOutput
        }
        ServeError::Sink { .. } => Exit::Usage,
        ServeError::Unfinished { .. } => Exit::Timeout,
        _ => Exit::Usage,
    };
    Failure::new(exit, flags::of_server(&error))
}

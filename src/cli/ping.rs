//! `framelet ping`: finds out whether a server works.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use framelet::client::{AckError, AckOptions, AnswerError};
use framelet::tls::TlsConnector;
use framelet::wire::{ProxyVersion, RefusalCode};
use framelet::{AckClient, Address, Layout};
use futures_lite::FutureExt;
use smol::Timer;

use super::connect::connect;
use super::exit_code::Exit;
use super::failure::Failure;
use super::flags;
use super::tls;
use super::values::{DEFAULT_ADDRESS, address, duration, layout};

/// Checks that a server works: connects, asks for acknowledgements as send --ack does, and leaves.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "ping",
    help_triggers("-h", "--help", "help"),
    note = "The server asks its sink before it answers, so the answer shows that the sink works, too. Nothing is stored. A server of another kind, or one with --skip, may take the question for a message: use --connect there."
)]
pub(crate) struct Ping {
    /// the server to check (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    addr: String,

    /// only connect, and ask nothing
    #[argh(switch)]
    connect: bool,

    /// most time for all of it (default: 5s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(duration),
        default = "Duration::from_secs(5)"
    )]
    timeout: Duration,

    /// how lengths are written (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// speak TLS, and check that the server's certificate is for the host of ADDR
    #[argh(switch)]
    tls: bool,

    /// with --tls: PEM file of the authorities to trust (default: those of the system)
    #[argh(option, arg_name = "FILE")]
    tls_ca: Option<String>,

    /// with --tls: PEM file of this client's certificate, if the server asks for one
    #[argh(option, arg_name = "FILE")]
    tls_cert: Option<String>,

    /// with --tls-cert: PEM file of its key
    #[argh(option, arg_name = "FILE")]
    tls_key: Option<String>,

    /// with --tls: the name that the server's certificate must be for, instead of the host
    #[argh(option, arg_name = "NAME")]
    tls_name: Option<String>,

    /// send a PROXY header first, as a load balancer does: v1 or v2
    #[argh(option, arg_name = "V")]
    proxy_protocol: Option<ProxyVersion>,
}

/// What was seen of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Connects,
    Acknowledges,
    /// It answers, but gives no acknowledgements, for a reason that is no failure.
    Refuses(RefusalCode),
}

impl Ping {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let address = address(&self.addr)?;
        let tls = tls::ClientOptions {
            tls: self.tls,
            ca: self.tls_ca.as_deref(),
            certificate: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            name: self.tls_name.as_deref(),
        };
        let tls = tls.connector(&address)?;
        let started = Instant::now();
        let seen = smol::block_on(self.look(&address, tls.as_ref()))?;
        let took = started.elapsed().as_secs_f64() * 1000.0;
        let line = format!("{address} {seen}, {took:.1} ms\n");
        io::stdout().write_all(line.as_bytes()).map_err(|error| Failure::output(&error))
    }

    /// Finds out what the server does, within the time limit.
    async fn look(&self, address: &Address, tls: Option<&TlsConnector>) -> Result<Seen, Failure> {
        let deadline = Instant::now().checked_add(self.timeout);
        let time_is_up = || async {
            deadline.map_or_else(Timer::never, Timer::at).await;
        };
        let connected = connect(address, self.proxy_protocol, tls, Some(self.timeout)).await;
        let stream = connected.map_err(|error| Failure::to_connect(address, "", &error, ""))?;
        if self.connect {
            return Ok(Seen::Connects);
        }
        let late = async {
            time_is_up().await;
            Err(self.no_answer(address))
        };
        let asking = async {
            match self.ask(stream).await {
                Ok(()) => Ok(Seen::Acknowledges),
                Err(AckError::Refused { refusal, .. }) if is_alive(refusal.code) => {
                    Ok(Seen::Refuses(refusal.code))
                }
                Err(error) => Err(failed(address, &error)),
            }
        };
        asking.or(late).await
    }

    async fn ask(&self, stream: framelet::net::ByteStream) -> Result<(), AckError> {
        let mut stream = Some(stream);
        let connector = move || {
            let stream = stream.take();
            async move { stream.ok_or_else(|| io::ErrorKind::NotConnected.into()) }
        };
        let options = AckOptions::new().layout(self.layout).retry(Duration::ZERO);
        // The time limit is that of the whole command.
        let mut client = AckClient::connect_with(connector, options.server_timeout(None)).await?;
        client.finish().await
    }

    fn no_answer(&self, address: &Address) -> Failure {
        let time = humantime::format_duration(self.timeout);
        let message = format!(
            "{address} accepts connections, but has not answered within {time}: its sink waits, or it \
             gives no acknowledgements (--connect only connects)"
        );
        Failure::new(Exit::Timeout, message)
    }
}

/// Returns whether a server that refuses for this reason works as it should.
fn is_alive(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::Replies | RefusalCode::NoSink | RefusalCode::Sender)
}

fn failed(address: &Address, error: &AckError) -> Failure {
    let exit = match error {
        AckError::NoAcknowledgements(AnswerError::Frame(_) | AnswerError::Payload(_))
        | AckError::Protocol { .. } => Exit::Protocol,
        AckError::Layout(_) => Exit::Usage,
        _ => Exit::Network,
    };
    let why = match error {
        AckError::Layout(_) => {
            let message = format!("{} (--connect only connects)", flags::of_client(error));
            return Failure::new(exit, message);
        }
        AckError::Refused { refusal, .. } => format!("it refuses clients: {refusal}"),
        AckError::NoAcknowledgements(AnswerError::Io(error)) => {
            format!("it closed the connection without an answer: {}", flags::of_io(error))
        }
        AckError::NoAcknowledgements(AnswerError::Frame(frame)) if flags::is_tls(frame) => {
            "it speaks TLS (--tls)".into()
        }
        AckError::NoAcknowledgements(answer) => format!("it gives no acknowledgements: {answer}"),
        AckError::Lost { error, .. } => flags::of_io(error),
        _ => error.to_string(),
    };
    Failure::new(exit, format!("{address} accepts connections, but {why}"))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Connects => f.write_str("accepts connections"),
            Seen::Acknowledges => f.write_str("accepts connections and acknowledges"),
            Seen::Refuses(code) => write!(f, "accepts connections and answers ({code})"),
        }
    }
}

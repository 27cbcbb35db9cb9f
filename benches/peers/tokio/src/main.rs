//! What a Rust programmer would plainly write with tokio and `LengthDelimitedCodec`.
//!
//! ```text
//! peer-tokio count|echo [ADDR:PORT] [--threads N] [--buffer BYTES] [--tls CERT KEY]
//! ```
//!
//! `--threads 1`, the default, is the current-thread runtime. `--buffer` is the size of each
//! connection's read buffer at first, which is how much a read takes when there is much to read; by
//! default it is what the codec's own constructor takes. `--tls` has PEM files; as with framelet, no
//! session is resumed.

use futures_util::{StreamExt, TryStreamExt};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

const LIMIT: usize = 8 * 1024 * 1024;
const BACKLOG: u32 = 4096;

static MESSAGES: AtomicU64 = AtomicU64::new(0);

/// The messages of one connection, which join the others when its task ends or is dropped.
#[derive(Default)]
struct Count(u64);

impl Drop for Count {
    fn drop(&mut self) {
        MESSAGES.fetch_add(self.0, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Count,
    Echo,
}

struct Options {
    mode: Mode,
    address: SocketAddr,
    threads: usize,
    buffer: usize,
    tls: Option<TlsAcceptor>,
}

/// Reads a certificate and its key.
fn acceptor(certificate: &str, key: &str) -> Option<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate).ok()?.collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_file(key).ok()?;
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).ok()?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Some(TlsAcceptor::from(Arc::new(config)))
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LIMIT).new_codec()
}

async fn count(stream: impl AsyncRead + Unpin, buffer: usize) -> io::Result<()> {
    let mut messages = FramedRead::with_capacity(stream, codec(), buffer);
    let mut count = Count::default();
    while let Some(message) = messages.next().await {
        message?;
        count.0 += 1;
    }
    Ok(())
}

/// `forward` feeds replies for as long as messages are ready, and flushes when none is.
async fn echo(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    buffer: usize,
) -> io::Result<()> {
    let mut count = Count::default();
    FramedRead::with_capacity(reader, codec(), buffer)
        .map_ok(|message| {
            count.0 += 1;
            message.freeze()
        })
        .forward(FramedWrite::new(writer, codec()))
        .await
}

async fn serve(options: &Options) -> io::Result<()> {
    let &Options { mode, address, buffer, .. } = options;
    let tls = &options.tls;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let mut terminate = signal(SignalKind::terminate())?;
    eprintln!("listening on {}", listener.local_addr()?);
    loop {
        let mut socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    eprintln!("cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ = terminate.recv() => return Ok(()),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            if let Err(error) = socket.set_nodelay(true) {
                eprintln!("{error}");
            }
            let served = match (mode, tls) {
                (Mode::Count, None) => count(socket, buffer).await,
                (Mode::Count, Some(tls)) => match tls.accept(socket).await {
                    Ok(mut stream) => match count(&mut stream, buffer).await {
                        Ok(()) => stream.shutdown().await,
                        failed => failed,
                    },
                    Err(error) => Err(error),
                },
                (Mode::Echo, None) => {
                    let (reader, writer) = socket.split();
                    echo(reader, writer, buffer).await
                }
                (Mode::Echo, Some(tls)) => match tls.accept(socket).await {
                    Ok(stream) => {
                        let (reader, writer) = tokio::io::split(stream);
                        echo(reader, writer, buffer).await
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = served {
                eprintln!("{error}");
            }
        });
    }
}

fn options() -> Option<Options> {
    let mut mode = None;
    let mut address = None;
    let mut threads = 1;
    let mut buffer = 8 * 1024;
    let mut tls = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next()?.parse().ok().filter(|&n| n > 0)?,
            "--buffer" => buffer = arguments.next()?.parse().ok()?,
            "--tls" => tls = Some(acceptor(&arguments.next()?, &arguments.next()?)?),
            "count" if mode.is_none() => mode = Some(Mode::Count),
            "echo" if mode.is_none() => mode = Some(Mode::Echo),
            text if mode.is_some() && address.is_none() => address = Some(text.parse().ok()?),
            _ => return None,
        }
    }
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    Some(Options { mode: mode?, address, threads, buffer, tls })
}

fn run(options: &Options) -> io::Result<()> {
    let runtime = match options.threads {
        1 => runtime::Builder::new_current_thread().enable_all().build()?,
        n => runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
    };
    runtime.block_on(serve(options))?;
    drop(runtime); // and with it the tasks, so that their counts are in
    eprintln!("{} messages", MESSAGES.load(Ordering::Relaxed));
    Ok(())
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!(
            "usage: peer-tokio count|echo [ADDR:PORT] [--threads N] [--buffer BYTES] [--tls CERT KEY]"
        );
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

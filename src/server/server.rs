//! A server, and what it is told before it runs.

use std::fmt;
use std::io;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, Stream, StreamExt};

use super::error::ServeError;
use super::figures::Monitor;
use super::handler::Handler;
use super::incoming::Incoming;
use super::options::Options;
use super::reopen::Reopen;
use super::upgrade::Upgrade;
use crate::net::byte_stream::{ByteStream, Peer};
use crate::net::listener::Listener;
use crate::net::network::Network;
use crate::sink::message_sink::MessageSink;
use crate::tls::TlsAcceptor;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::layout::Layout;

/// A server of messages: it [collects](Server::collect) them in a sink, [answers](Server::answer) them,
/// does both, or only counts them.
///
/// Each connection is a task of its own on smol's executor. Run the server as a task, too:
/// `block_on(smol::spawn(server.run(…)))`. A thread that polls the reactor itself, as [`smol::block_on`]
/// does, would take events away from the threads that run the connections.
///
/// # The end of a connection
///
/// A connection ends cleanly only if its peer has closed its own direction and everything it sent is
/// committed. All other connections are reset, even idle ones at shutdown: data on its way from the peer
/// will not be read, and the peer must not take the end for success. If the server is killed, its
/// connections are reset as well. Unix sockets and other streams have no reset; there the server marks an
/// unclean end with one byte, `ff`, which is half a frame in every layout. It completes a reply that lacked
/// only its last byte, but never an acknowledgement. A server that was killed cannot write it.
///
/// A reset would destroy replies in flight. So a server with a handler of your own closes its connections
/// cleanly at shutdown, after the replies to everything it has read. If the handler fails, or the peer sends
/// something that is no message, the replies to earlier requests arrive, and the byte `ff` marks the unclean
/// end.
///
/// # Acknowledgements
///
/// A client that starts with a [`Hello`](crate::wire::Hello) is told how many messages of its sender are
/// committed, and again whenever that number grows. Nothing is ever sent to clients that do not ask, except
/// replies of a server that answers, and what [`Server::preamble`] and [`Server::empty`] say.
///
/// # Examples
///
/// ```
/// use framelet::server::Request;
/// use framelet::{Address, Client, Server};
/// use futures_lite::future;
///
/// # future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let address = listener.address()?;
/// let server = Server::new(listener)
///     .answer(|request: Request| async move { request.payload().to_ascii_uppercase() });
/// let (stop, stopped) = smol::channel::bounded::<()>(1);
/// let server = smol::spawn(server.run(async move { let _ = stopped.recv().await; }));
///
/// let mut client = Client::connect(&address).await?;
/// assert_eq!(client.request(b"hello").await?, b"HELLO");
/// drop(stop);
/// assert_eq!(server.await?.messages, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// Limits, for a server that anyone can reach:
///
/// ```
/// use framelet::server::Echo;
/// use framelet::{Address, Server};
/// use std::time::Duration;
///
/// # futures_lite::future::block_on(async {
/// let server = Server::new("127.0.0.1:0".parse::<Address>()?.listen().await?)
///     .answer(Echo)
///     .max_message(64 * 1024)
///     .memory(16 * 1024 * 1024)
///     .max_connections(1000)
///     .max_per_address(20)
///     .evict_idle(Duration::from_secs(60)) // only once there are 1000
///     .message_timeout(Duration::from_secs(10))
///     .idle_timeout(Duration::from_secs(600))
///     .pipeline(4)
///     .grace(Duration::from_secs(5));
/// server.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use = "a server does nothing until it is run"]
pub struct Server {
    pub(super) incoming: Incoming,
    pub(super) sink: Option<Box<dyn MessageSink>>,
    pub(super) options: Options,
}

impl Server {
    /// Returns a server of the connections that `listener` accepts.
    pub fn new(listener: impl Into<Listener>) -> Server {
        Server::of(Incoming::Listener(listener.into()))
    }

    /// Returns a server of streams of any kind, such as pipes in memory. Once `streams` has ended and all
    /// connections have, the server ends too.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::net::Peer;
    /// use framelet::server::Echo;
    /// use framelet::Server;
    /// use futures_lite::{future, io::Cursor, stream};
    ///
    /// # future::block_on(async {
    /// let streams = stream::once(Ok((Cursor::new(b"\0\0\0\x02hi".to_vec()), Peer::Unix)));
    /// let server = Server::accept_from(streams).answer(Echo);
    /// assert_eq!(server.run(future::pending()).await?.messages, 1);
    /// # Ok::<(), framelet::server::ServeError>(()) }).unwrap();
    /// ```
    pub fn accept_from<S: AsyncRead + AsyncWrite + Send + 'static>(
        streams: impl Stream<Item = io::Result<(S, Peer)>> + Send + 'static,
    ) -> Server {
        let streams = streams.map(|accepted: io::Result<(S, Peer)>| {
            accepted.map(|(stream, peer)| (ByteStream::new(stream), peer))
        });
        Server::of(Incoming::Streams(Box::pin(streams)))
    }

    fn of(incoming: Incoming) -> Server {
        Server { incoming, sink: None, options: Options::default() }
    }

    /// Stores messages in a sink.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::OutputFormat;
    /// use framelet::sink::{FileSink, FileSync};
    /// use framelet::{Address, Client, Server};
    /// # use futures_lite::future;
    ///
    /// # future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let mut client = Client::connect(listener.address()?).await?;
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("messages");
    /// let sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Always)?;
    /// let server = smol::spawn(Server::new(listener).collect(sink).run(future::pending()));
    /// client.send(b"21.5").await?;
    /// client.finish().await?; // waits until the server has committed everything
    /// assert_eq!(std::fs::read(&path)?, b"21.5\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn collect(self, sink: impl MessageSink + 'static) -> Server {
        Server { sink: Some(Box::new(sink)), ..self }
    }

    /// Answers messages with replies. A handler that fails or panics ends its connection, and the error is
    /// logged.
    ///
    /// A reply does not mean that its message is committed, even with a sink: only an acknowledgement says
    /// that, and a server that answers sends none.
    pub fn answer(mut self, handler: impl Handler) -> Server {
        self.options.answering = handler.into_answering();
        self
    }

    /// Sets how many requests of one connection are answered at the same time. Default: 16.
    pub fn pipeline(mut self, requests: usize) -> Server {
        self.options.pipeline = requests;
        self
    }

    /// Prepares each connection before messages travel on it, such as by a TLS handshake. That runs in the
    /// connection's own task and must finish within [`Server::message_timeout`].
    ///
    /// # Examples
    ///
    /// A password before the first message:
    ///
    /// ```
    /// use framelet::net::ByteStream;
    /// use framelet::server::Echo;
    /// # use framelet::{Address, Client, Server};
    /// use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
    ///
    /// # future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let mut stream = listener.address()?.connect().await?;
    /// let server = Server::new(listener).answer(Echo).upgrade(|mut stream: ByteStream| async move {
    ///     let mut password = [0; 6];
    ///     stream.read_exact(&mut password).await?;
    ///     match &password {
    ///         b"sesame" => Ok(stream),
    ///         _ => Err(std::io::ErrorKind::PermissionDenied.into()),
    ///     }
    /// });
    /// # let server = smol::spawn(server.run(future::pending()));
    /// stream.write_all(b"sesame").await?;
    /// assert_eq!(Client::new(stream).request(b"hello").await?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn upgrade<F, Fut, S>(mut self, upgrade: F) -> Server
    where
        F: Fn(ByteStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.options.upgrade = Some(Upgrade::new(upgrade));
        self
    }

    /// Serves over TLS only. The handshake runs in the connection's own task and must finish within
    /// [`Server::message_timeout`]. A client certificate names the [peer](crate::Message::peer). Replaces an
    /// [`upgrade`](Server::upgrade).
    ///
    /// A client's clean end is `close_notify`: without it the connection was cut, which the log says.
    pub fn tls(mut self, acceptor: TlsAcceptor) -> Server {
        self.options.upgrade = Some(Upgrade::tls(acceptor));
        self
    }

    /// Sets how messages are framed, in both directions. Default: `u32be`.
    pub fn layout(mut self, layout: Layout) -> Server {
        self.options.layout = layout;
        self
    }

    /// Expects a PROXY header, version 1 or 2, before anything else on each connection, and takes the peer that it
    /// names for the peer; a connection without one is ended. The header must arrive within
    /// [`Server::message_timeout`]. Default: no.
    ///
    /// Anyone who can connect can name any peer. So let nobody but the load balancer reach the port.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::server::Request;
    /// use framelet::wire::ProxyVersion;
    /// # use framelet::{Address, Client, Server};
    /// # use futures_lite::future;
    ///
    /// # future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let address = listener.address()?;
    /// let who = |request: Request| async move { request.peer().to_string() };
    /// let server = Server::new(listener).answer(who).proxy_protocol(true);
    /// # let server = smol::spawn(server.run(future::pending()));
    /// let header = ProxyVersion::V2.header(Some(("203.0.113.7:40000".parse()?, "192.0.2.1:80".parse()?)));
    /// let mut client = Client::connect(address).await?.preamble(&header);
    /// assert_eq!(client.request(b"who am I?").await?, b"203.0.113.7:40000");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn proxy_protocol(mut self, expect: bool) -> Server {
        self.options.proxy_protocol = expect;
        self
    }

    /// With [`Server::proxy_protocol`]: expects load balancers only at TCP addresses in these networks, and closes connections
    /// from others at once, since each could name any peer. Several calls add up; after a call with no network, no address is
    /// that of a load balancer. Unix sockets and other streams are not concerned. Default: any address may be one, so only load
    /// balancers must reach the port.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Server;
    /// use framelet::server::Echo;
    /// # use framelet::Address;
    ///
    /// # futures_lite::future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// let server = Server::new(listener).answer(Echo).proxy_protocol(true).proxy_from(["10.0.0.0/24".parse()?]);
    /// server.check()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn proxy_from(mut self, networks: impl IntoIterator<Item = Network>) -> Server {
        self.options.proxy_from.get_or_insert_default().extend(networks);
        self
    }

    /// Sends these bytes first on each connection, before anything is read. Clients cannot ask for
    /// acknowledgements then.
    pub fn preamble(mut self, bytes: &[u8]) -> Server {
        self.options.preamble = bytes.into();
        self
    }

    /// Skips the first `bytes` bytes of each connection, which must arrive within
    /// [`Server::message_timeout`]. Clients cannot ask for acknowledgements then.
    ///
    /// # Examples
    ///
    /// Both sides begin with four bytes of their protocol:
    ///
    /// ```
    /// use framelet::server::Echo;
    /// # use framelet::{Address, Client, Server};
    /// # use futures_lite::future;
    ///
    /// # future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let address = listener.address()?;
    /// let server = Server::new(listener).answer(Echo).preamble(b"OLEH").skip(4);
    /// # let server = smol::spawn(server.run(future::pending()));
    /// let mut client = Client::connect(address).await?.preamble(b"HELO").skip(4);
    /// assert_eq!(client.request(b"hi").await?, b"hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn skip(mut self, bytes: u64) -> Server {
        self.options.skip = bytes;
        self
    }

    /// Sets what empty frames are, those without payload and header. Default: messages.
    ///
    /// Heartbeats are not passed on, not counted and not given a number, but the peer is not silent: see
    /// [`Server::idle_timeout`]. With [`EmptyFrames::Echo`] they are sent back at once, before the replies to earlier
    /// requests that are still being answered; so the server can also be one that only collects. While a peer
    /// takes none of them, or while there is no room for its messages, nothing more is read from it.
    ///
    /// On a connection with acknowledgements each frame is a message, whatever is set here.
    pub fn empty(mut self, empty: EmptyFrames) -> Server {
        self.options.empty = empty;
        self
    }

    /// Sets the longest payload to accept and to reply with, in bytes. Default: 8 MiB, or the layout's
    /// maximum if that is less.
    pub fn max_message(mut self, bytes: usize) -> Server {
        self.options.max_message = Some(bytes);
        self
    }

    /// Sets how many connections may be open at the same time, those in a handshake included; more are closed at
    /// once, unless an idle one gives way: see [`Server::evict_idle`]. Default: the limit of open files less 32, at
    /// most 10,000.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.options.max_connections = Some(connections);
        self
    }

    /// Sets how many connections one address may have at the same time; more are closed at once. Of IPv6, all
    /// addresses that begin with the same 64 bits count as one. Unix sockets and other streams have no addresses and no such
    /// limit. With [`Server::proxy_protocol`], the peer that is named counts, and not the load balancer.
    /// Default: no limit, since a load balancer has one address for all its peers.
    pub fn max_per_address(mut self, connections: usize) -> Server {
        self.options.max_per_address = Some(connections);
        self
    }

    /// Serves TCP peers only if their address is in one of these networks; others are closed at once, before
    /// [`Server::upgrade`]. Several calls add up; after a call with no network, no address is allowed. Unix sockets
    /// and other streams have no addresses and are not concerned. With [`Server::proxy_protocol`], the peer that is named must be
    /// allowed; if none is named, the load balancer itself. Default: all are served.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::{Address, Client, Server};
    /// use framelet::server::Echo;
    /// # use futures_lite::future;
    ///
    /// # future::block_on(async {
    /// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let address = listener.address()?;
    /// let server = Server::new(listener).answer(Echo).allow(["127.0.0.0/8".parse()?, "::1".parse()?]);
    /// # let server = smol::spawn(server.run(future::pending()));
    /// let mut client = Client::connect(address).await?;
    /// assert_eq!(client.request(b"from 127.0.0.1").await?, b"from 127.0.0.1");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn allow(mut self, networks: impl IntoIterator<Item = Network>) -> Server {
        self.options.allow.get_or_insert_default().extend(networks);
        self
    }

    /// Sets after how long an idle connection may have to give way: if [`Server::max_connections`] are open and another
    /// peer connects, the one that has been idle longest is reset, of the address that has the most connections. A peer
    /// does not take the place of one whose address has fewer connections than its own. With `None`, idle
    /// connections stay, and new ones are closed. Default: 10 s.
    ///
    /// Idle means: the peer has sent nothing of its next message (or of its part of a handshake), and all that it had
    /// sent is committed, acknowledged if it asked for that, and replied to if the server replies. A client with
    /// acknowledgements connects again and loses nothing.
    pub fn evict_idle(mut self, after: impl Into<Option<Duration>>) -> Server {
        self.options.evict_idle = after.into();
        self
    }

    /// Sets how long a message may take from its first byte to its last, and how long a peer may take none
    /// of its replies; `None` is no limit. Default: 30 s.
    pub fn message_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Server {
        self.options.message_timeout = timeout.into();
        self
    }

    /// Sets how long a connection may be silent between messages. Default: `None`, no limit.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Server {
        self.options.idle_timeout = timeout.into();
        self
    }

    /// Sets how many bytes of received messages are held in memory, for all connections together; when they
    /// are used up, connections wait. Incomplete messages and replies that are not taken may use only part
    /// of it, and the longer a message is, the smaller its part: so shorter messages get through beside
    /// stalled longer ones. Once a message has waited for its part, connections that use it are ended if
    /// they are slower than [`Server::message_timeout`] (or 30 s) allows.
    ///
    /// It does not bound replies: each connection whose replies are over 64 KiB holds one reply at a time,
    /// until the peer has taken it.
    ///
    /// Default: 64 MiB or twice the longest message, whichever is more. Less than twice the longest message
    /// is an error. The effective minimum is 1 MiB plus the longest message.
    pub fn memory(mut self, bytes: usize) -> Server {
        self.options.memory = Some(bytes);
        self
    }

    /// Sets how long a graceful shutdown may take. Default: 10 s.
    pub fn grace(mut self, grace: Duration) -> Server {
        self.options.grace = grace;
        self
    }

    /// Sets whether only clients that ask for acknowledgements are served. Default: no.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::server::{Echo, ServeError};
    /// use framelet::{Address, Server};
    ///
    /// # futures_lite::future::block_on(async {
    /// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// let server = Server::new(listener).require_acks(true);
    /// server.check()?;
    /// // A server that answers gives no acknowledgements.
    /// assert!(matches!(server.answer(Echo).check(), Err(ServeError::AnswerAcks)));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn require_acks(mut self, require: bool) -> Server {
        self.options.require_acks = require;
        self
    }

    /// Sets the [`Reopen`] that tells the sink to reopen its output; keep a clone of it.
    pub fn reopen(mut self, reopen: Reopen) -> Server {
        self.options.reopen = reopen;
        self
    }

    /// Sets the [`Monitor`] that gives the figures of the server; keep a clone of it.
    pub fn monitor(mut self, monitor: Monitor) -> Server {
        self.options.monitor = monitor;
        self
    }

    /// Checks that the options are consistent, as [`Server::run`] does first.
    ///
    /// # Errors
    ///
    /// [`ServeError::Limit`], [`ServeError::Memory`], [`ServeError::Zero`], [`ServeError::Acks`],
    /// [`ServeError::AnswerAcks`], [`ServeError::PreambleAcks`] or [`ServeError::EmptyAcks`].
    pub fn check(&self) -> Result<(), ServeError> {
        self.options.check().map(|_| ())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("incoming", &self.incoming)
            .field("sink", &self.sink.is_some())
            .field("options", &self.options)
            .finish()
    }
}

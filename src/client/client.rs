//! Connects to a server of framed messages, sends and receives.

use std::future::{pending, poll_fn};
use std::io;
use std::iter;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use smol::Timer;

use super::error::{FinishError, RequestError};
use crate::net::address::{Address, ParseAddressError};
use crate::net::byte_stream::ByteStream;
use crate::stream::arrival::{self, Arrival};
use crate::stream::error::{ReadError, WriteError};
use crate::stream::framed::Framed;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::layout::{Header, Layout, LimitError};

/// One connection to a server, over a socket or any other stream.
///
/// Either send requests and get their replies with [`request`](Client::request) and
/// [`request_all`](Client::request_all), or send and receive messages independently of each other with
/// [`send`](Client::send) and [`receive`](Client::receive). To do both on one connection, first receive the
/// replies to what was sent: a request takes the next message that arrives for its reply.
///
/// # Examples
///
/// A request, to a server that returns each message:
///
/// ```
/// use framelet::Client;
/// use std::time::Duration;
///
/// # smol::block_on(async {
/// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # smol::spawn(async move {
/// #     let mut stream = listener.accept().await.unwrap().0;
/// #     smol::io::copy(stream.clone(), &mut stream).await
/// # })
/// # .detach();
/// let mut client = Client::connect(address).await?.timeout(Duration::from_secs(5));
/// assert_eq!(client.request(b"ping").await?, b"ping");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// Messages to a server that does not reply:
///
/// ```
/// # use framelet::{Address, Client, Server};
/// # futures_lite::future::block_on(async {
/// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// # let address = listener.address()?;
/// # let server = smol::spawn(Server::new(listener).run(std::future::pending()));
/// let mut client = Client::connect(address).await?;
/// client.feed(b"one message\nof two lines").await?;
/// client.feed(b"another one").await?;
/// client.finish().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Client<S = ByteStream> {
    framed: Framed<S>,
    /// The longest payload that was asked for; `None` is the layout's default.
    max_message: Option<usize>,
    timeout: Option<Duration>,
    /// What the empty frames of the server are.
    empty: EmptyFrames,
    /// How many heartbeats of the server are still to be sent back.
    heartbeats: u64,
    /// How many requests have no reply yet. Between two calls these are the ones that were given up.
    unanswered: u64,
}

impl Client {
    /// Connects to an [`Address`], or to one as text: `"127.0.0.1:4747"`, `"unix:/run/framelet.sock"`.
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "connection refused". [`io::ErrorKind::InvalidInput`] if the
    /// text is not a valid address.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    pub async fn connect<A>(address: A) -> io::Result<Client>
    where
        A: TryInto<Address, Error: Into<ParseAddressError>>,
    {
        let invalid = |error: A::Error| io::Error::new(io::ErrorKind::InvalidInput, error.into());
        let address = address.try_into().map_err(invalid)?;
        Ok(Client::new(address.connect().await?))
    }
}

impl<S> Client<S> {
    /// Returns a client over a connected stream. Unless options say otherwise, it reads and writes `u32be`
    /// frames of at most [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes and waits for replies
    /// without a time limit.
    pub fn new(stream: S) -> Client<S> {
        let framed = Framed::new(stream, Layout::U32BE);
        let (max_message, timeout, empty) = (None, None, EmptyFrames::Message);
        Client { framed, max_message, timeout, empty, heartbeats: 0, unanswered: 0 }
    }

    /// Sets how messages are framed. Call it before the first message.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach the limit that
    /// [`max_message`](Client::max_message) has set. Either can be called first.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Client;
    /// use futures_lite::io::Cursor;
    ///
    /// let client = Client::new(Cursor::new(vec![0])).max_message(100_000)?;
    /// assert!(client.layout("u16be".parse()?).is_err()); // up to 65535 bytes
    ///
    /// let client = Client::new(Cursor::new(vec![0])).max_message(100_000)?;
    /// assert!(client.layout("u32le".parse()?).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn layout(mut self, layout: Layout) -> Result<Client<S>, LimitError> {
        self.framed.set_layout(layout, layout.limit(self.max_message)?);
        Ok(self)
    }

    /// Sets the longest payload to send and to accept, in bytes. Default: 8 MiB, or the layout's maximum if
    /// that is less.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach that limit.
    pub fn max_message(self, limit: usize) -> Result<Client<S>, LimitError> {
        let framed = self.framed.max_message(limit)?;
        Ok(Client { framed, max_message: Some(limit), ..self })
    }

    /// Sends these bytes before the first message; a client that only receives sends them with
    /// [`flush`](Client::flush).
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Client;
    /// use futures_lite::io::Cursor;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut client = Client::new(Cursor::new(Vec::new())).preamble(b"HELO");
    /// client.send(b"hi").await?;
    /// assert_eq!(client.into_framed().into_inner().into_inner(), b"HELO\0\0\0\x02hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn preamble(self, bytes: &[u8]) -> Client<S> {
        Client { framed: self.framed.preamble(bytes), ..self }
    }

    /// Skips the first `bytes` bytes that the server sends; see
    /// [`FrameReader::skip`](crate::FrameReader::skip).
    #[must_use]
    pub fn skip(self, bytes: u64) -> Client<S> {
        Client { framed: self.framed.skip(bytes), ..self }
    }

    /// Sets what the empty frames of the server are. Default: messages.
    ///
    /// With [`EmptyFrames::Echo`], empty frames are sent back while the client waits for messages or replies; see
    /// [`receive`](Client::receive). While the server takes none of them, no more is read.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::EmptyFrames;
    /// use framelet::{Client, Framed, Layout};
    /// # use smol::net::{TcpListener, TcpStream};
    ///
    /// # smol::block_on(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let mut client = Client::new(stream).empty(EmptyFrames::Echo);
    /// let mut server = Framed::new(listener.accept().await?.0, Layout::U32BE);
    ///
    /// server.send(b"").await?; // are you there?
    /// server.send(b"21.5").await?;
    /// assert_eq!(client.receive().await?, Some(b"21.5".to_vec()));
    /// assert_eq!(server.read().await?, Some(vec![]));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn empty(self, empty: EmptyFrames) -> Client<S> {
        let framed = self.framed.skip_empty(empty != EmptyFrames::Message);
        Client { framed, empty, ..self }
    }

    /// Sets how long a request may wait for its reply. `None`, the default, waits without a limit.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Client<S> {
        self.timeout = timeout.into();
        self
    }

    /// Returns the reader and writer below. Replies to requests that were given up may still arrive there.
    pub fn into_framed(self) -> Framed<S> {
        self.framed
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends a message and returns the reply, which is the next message of the server.
    ///
    /// The server must reply to each request with one message, in the order of the requests. Replies have
    /// no other mark that says whose they are. So the reply to a request that was given up, because it
    /// timed out or because its future was dropped, is awaited and dropped before the next one.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    ///
    /// # Cancel safety
    ///
    /// A dropped `request` has sent its message whole or not at all, and its reply is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::{Client, Framed, Layout};
    /// use futures_lite::future;
    /// use smol::net::{TcpListener, TcpStream};
    ///
    /// # smol::block_on(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let mut client = Client::new(TcpStream::connect(listener.local_addr()?).await?);
    /// let mut server = Framed::new(listener.accept().await?.0, Layout::U32BE);
    ///
    /// let answer = async {
    ///     let request = server.read().await.unwrap().unwrap();
    ///     server.send(&request.to_ascii_uppercase()).await.unwrap();
    /// };
    /// let (reply, ()) = future::zip(client.request(b"ping"), answer).await;
    /// assert_eq!(reply?, b"PING");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn request(&mut self, payload: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut reply = Vec::new();
        let request = iter::once(([], payload));
        self.exchange(request, |_, payload| payload, |received| reply = received).await?;
        Ok(reply)
    }

    /// Sends a message with a [header](crate::wire::Header), and returns the header and the payload of the
    /// reply. An empty header stands for zeros.
    ///
    /// # Errors
    ///
    /// [`RequestError`], with [`WriteError::Encode`] if the layout has no such header.
    ///
    /// # Cancel safety
    ///
    /// That of [`request`](Client::request).
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::server::{Reply, Request};
    /// use framelet::{Address, Client, Layout, Server};
    /// use futures_lite::future;
    ///
    /// // The layout of Modbus: the reply carries the transaction id of its request.
    /// async fn read_registers(request: Request) -> Reply {
    ///     Reply::from(b"\x01\x03\x02\0\x2a".to_vec()).with_header(request.header().to_vec())
    /// }
    /// # future::block_on(async {
    /// let modbus: Layout = "h2:x0000:u16be".parse()?;
    /// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// let mut client = Client::connect(listener.address()?).await?.layout(modbus)?;
    /// let server = Server::new(listener).layout(modbus).answer(read_registers);
    /// # let server = smol::spawn(server.run(future::pending()));
    ///
    /// let request = b"\x01\x03\0\0\0\x01";
    /// let (header, reply) = client.request_with_header(b"\0\x07", request).await?;
    /// assert_eq!((header, reply), (b"\0\x07".to_vec(), b"\x01\x03\x02\0\x2a".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn request_with_header(
        &mut self,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), RequestError> {
        let mut reply = Default::default();
        let request = iter::once((header, payload));
        let whole = |header: Header<'_>, payload| (header.to_vec(), payload);
        self.exchange(request, whole, |received| reply = received).await?;
        Ok(reply)
    }

    /// Sends all messages without waiting for replies in between, and returns the replies in the same order.
    ///
    /// It reads while it writes, so there may be any number of requests: with [`send`](Client::send) and
    /// [`receive`](Client::receive) one after the other, a server that waits until its replies are taken
    /// could wait forever. The time limit is for each reply, counted from the one before.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; replies that had arrived are dropped.
    ///
    /// # Cancel safety
    ///
    /// A dropped `request_all` has sent some of its messages, each whole. Their replies are dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use framelet::Client;
    /// # smol::block_on(async {
    /// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let mut client = Client::connect(listener.local_addr()?).await?;
    /// # let mut stream = listener.accept().await?.0;
    /// # smol::spawn(async move { smol::io::copy(stream.clone(), &mut stream).await }).detach();
    /// let replies = client.request_all(["a", "b", "c"]).await?;
    /// assert_eq!(replies.concat(), b"abc");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn request_all<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Vec<Vec<u8>>, RequestError> {
        let mut replies = Vec::new();
        let requests = payloads.into_iter().map(|payload| ([], payload));
        self.exchange(requests, |_, payload| payload, |reply| replies.push(reply)).await?;
        Ok(replies)
    }

    /// Sends requests, each a header and a payload, and takes the reply to each: what `make` makes of its
    /// header and its payload.
    async fn exchange<R: AsRef<[u8]>, P: AsRef<[u8]>, M>(
        &mut self,
        mut requests: impl Iterator<Item = (R, P)>,
        make: impl Fn(Header<'_>, Vec<u8>) -> M,
        mut take: impl FnMut(M),
    ) -> Result<(), RequestError> {
        let timeout = self.timeout;
        let mut late = self.unanswered;
        let mut unsent = requests.next();
        while unsent.is_some() || self.unanswered > late {
            let reply =
                poll_fn(|cx| self.poll_reply(cx, &mut requests, &mut unsent, &mut late, &make));
            take(reply.or(timed_out(timeout)).await?);
        }
        Ok(())
    }

    /// Sends as many requests as there is room for, and reads the next reply after `late` others.
    fn poll_reply<R: AsRef<[u8]>, P: AsRef<[u8]>, M>(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut impl Iterator<Item = (R, P)>,
        unsent: &mut Option<(R, P)>,
        late: &mut u64,
        make: impl Fn(Header<'_>, Vec<u8>) -> M,
    ) -> Poll<Result<M, RequestError>> {
        let mut failed = None;
        while let Some((header, payload)) = unsent {
            match self.framed.poll_feed(cx, header.as_ref(), payload.as_ref()) {
                Poll::Ready(Ok(())) => {
                    // From here on there will be a reply, whatever becomes of the future that asks for it.
                    self.unanswered += 1;
                    *unsent = requests.next();
                }
                Poll::Ready(Err(WriteError::Io(error))) => {
                    failed = Some(WriteError::Io(error));
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RequestError::Write(error))),
                Poll::Pending => break,
            }
        }
        // While there is no room for the next request, that waits for the stream to take more.
        if unsent.is_none()
            && let Poll::Ready(Err(error)) = self.framed.poll_flush(cx)
        {
            failed = Some(error);
        }
        while self.unanswered > 0 {
            match self.poll_receive(cx, &make) {
                Poll::Ready(Ok(Some(reply))) => {
                    self.unanswered -= 1;
                    match late.checked_sub(1) {
                        Some(left) => *late = left,
                        None => return Poll::Ready(Ok(reply)),
                    }
                }
                // Only now: the server may have replied and closed before it read everything.
                _ if failed.is_some() => break,
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(RequestError::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RequestError::Read(error))),
                Poll::Pending => break,
            }
        }
        match failed {
            Some(error) => Poll::Ready(Err(RequestError::Write(error))),
            None => Poll::Pending,
        }
    }

    /// Queues a message; see [`Framed::feed`].
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the message is too long or the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed` has not queued its message.
    pub async fn feed(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.framed.feed(payload).await
    }

    /// Queues a message with a header; see [`Framed::feed_with_header`].
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the message is too long, the layout has no such header, or the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed_with_header` has not queued its message.
    pub async fn feed_with_header(
        &mut self,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), WriteError> {
        self.framed.feed_with_header(header, payload).await
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// What a dropped `flush` has not written stays queued.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        self.framed.flush().await
    }

    /// Sends a message. That it was sent does not mean that it was read: see
    /// [`finish`](Client::finish).
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the message is too long or the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `send` has queued its message whole or not at all.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.framed.send(payload).await
    }

    /// Receives the next message; `None` if the server has closed the stream cleanly. Replies to
    /// requests that were given up are dropped.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and the same one again on every later call.
    ///
    /// # Cancel safety
    ///
    /// A dropped `receive` loses nothing.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        self.drop_late_replies().await?;
        poll_fn(|cx| self.poll_receive(cx, |_, payload| payload)).await
    }

    /// Receives the next message as [`receive`](Client::receive) does, with its header before the payload.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and the same one again on every later call.
    ///
    /// # Cancel safety
    ///
    /// A dropped `receive_with_header` loses nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::server::Echo;
    /// use framelet::{Address, Client, Layout, Server};
    /// # use futures_lite::future;
    ///
    /// # future::block_on(async {
    /// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// # let address = listener.address()?;
    /// let postgres: Layout = "h1:u32be+self".parse()?;
    /// # let server = Server::new(listener).layout(postgres).answer(Echo);
    /// # let server = smol::spawn(server.run(future::pending()));
    /// let mut client = Client::connect(address).await?.layout(postgres)?;
    /// client.feed_with_header(b"Q", b"SELECT 1\0").await?;
    /// client.flush().await?;
    /// let reply = client.receive_with_header().await?;
    /// assert_eq!(reply, Some((b"Q".to_vec(), b"SELECT 1\0".to_vec()))); // it is an echo
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn receive_with_header(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, ReadError> {
        self.drop_late_replies().await?;
        let whole = |header: Header<'_>, payload| (header.to_vec(), payload);
        poll_fn(|cx| self.poll_receive(cx, whole)).await
    }

    /// Reads the replies to requests that were given up.
    async fn drop_late_replies(&mut self) -> Result<(), ReadError> {
        while self.unanswered > 0 && poll_fn(|cx| self.poll_receive(cx, |_, _| ())).await?.is_some()
        {
            self.unanswered -= 1;
        }
        Ok(())
    }

    /// Reads the next message: what `make` makes of its header and its payload. Sends heartbeats back first.
    fn poll_receive<M>(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(Header<'_>, Vec<u8>) -> M,
    ) -> Poll<Result<Option<M>, ReadError>> {
        if self.empty == EmptyFrames::Echo {
            ready!(self.poll_heartbeats(cx));
        }
        let arrival = ready!(self.framed.poll_arrival_with(cx, make))?;
        if let (Some(Arrival::Heartbeats(more)), EmptyFrames::Echo) = (&arrival, self.empty) {
            self.heartbeats += more;
        }
        arrival::poll_messages(cx, arrival)
    }

    /// Sends heartbeats back. Is ready once there is room for all of them, even if they are not yet written.
    fn poll_heartbeats(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.heartbeats > 0 {
            match ready!(self.framed.poll_feed(cx, &[], &[])) {
                Ok(()) => self.heartbeats -= 1,
                // There may still be something to read, and only a read can tell why the stream failed.
                Err(_) => self.heartbeats = 0,
            }
        }
        let _ = self.framed.poll_flush(cx);
        Poll::Ready(())
    }

    /// Sends what is queued and the end of the stream, and waits until the server closes it, too;
    /// messages that arrive meanwhile are dropped. A framelet server closes once it has put everything
    /// into its sink; other servers usually once they have read everything. A proxy closes its side
    /// even if the messages are lost: then only an [`AckClient`](crate::AckClient) can tell.
    ///
    /// There is no time limit: use `futures_lite::FutureExt::or` with a timer.
    ///
    /// # Errors
    ///
    /// [`FinishError`], for example if the server resets the stream because it gave up.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection is closed, and it is not known what has arrived.
    pub async fn finish(mut self) -> Result<(), FinishError> {
        self.framed.close().await.map_err(FinishError::Write)?;
        while self.framed.read_batch().await.map_err(FinishError::Read)?.is_some() {}
        Ok(())
    }
}

/// Waits until the time is over.
async fn timed_out<T>(timeout: Option<Duration>) -> Result<T, RequestError> {
    let Some(timeout) = timeout else { return pending().await };
    Timer::after(timeout).await;
    Err(RequestError::TimedOut { timeout })
}

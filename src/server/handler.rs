//! Handlers, which answer messages with replies.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::net::byte_stream::Peer;
use crate::stream::payloads::{Location, Payloads};
use crate::wire::layout::Header;

/// A message for a [`Handler`] to answer.
///
/// Its payload lies in the buffer in which it was received; that counts against the server's memory until
/// the request is dropped.
///
/// # Examples
///
/// ```
/// use framelet::server::Request;
/// use framelet::{Address, Client, Server};
/// use futures_lite::future;
///
/// async fn count(request: Request) -> String {
///     let (connection, bytes) = (request.connection(), request.payload().len());
///     format!("message {} of connection {connection}: {bytes} bytes", request.number())
/// }
/// # future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let mut client = Client::connect(listener.address()?).await?;
/// let server = smol::spawn(Server::new(listener).answer(count).run(future::pending()));
/// assert_eq!(client.request(b"hello").await?, b"message 1 of connection 1: 5 bytes");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    payloads: Arc<Payloads>,
    location: Location,
    number: u64,
    connection: u64,
    peer: Peer,
}

impl Request {
    pub(crate) fn new(
        payloads: Arc<Payloads>,
        location: Location,
        number: u64,
        connection: u64,
        peer: Peer,
    ) -> Request {
        Request { payloads, location, number, connection, peer }
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        self.payloads.at(self.location).1
    }

    /// Returns the header, which is empty unless the layout has one.
    pub fn header(&self) -> Header<'_> {
        self.payloads.at(self.location).0
    }

    /// Returns the message's number on its connection, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the number of the connection on its server, counted from 1.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Returns the peer that sent it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// The error of a handler.
///
/// # Examples
///
/// ```
/// use framelet::server::{HandlerError, Request};
/// use framelet::Server;
/// # use framelet::{Address, Client};
/// use futures_lite::future;
///
/// async fn increment(request: Request) -> Result<String, HandlerError> {
///     let number: u32 = std::str::from_utf8(request.payload())?.parse()?;
///     Ok((number + 1).to_string())
/// }
/// # future::block_on(async {
/// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// # let mut client = Client::connect(listener.address()?).await?;
/// let server = smol::spawn(Server::new(listener).answer(increment).run(future::pending()));
/// assert_eq!(client.request(b"41").await?, b"42");
/// assert!(client.request(b"x").await.is_err()); // the connection has ended
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// The result of a handler: no reply, one or several, or an error, which ends the connection.
///
/// Implemented for `()`, [`Reply`], byte vectors, strings, arrays and static slices of bytes, [`Request`] (which sends
/// the message back, with its header), for vectors and options of these, and for results of all of them.
///
/// # Examples
///
/// ```
/// use framelet::server::{HandlerError, IntoReplies, Reply};
///
/// struct Celsius(f32);
///
/// impl IntoReplies for Celsius {
///     fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
///         format!("{} °C", self.0).append_to(replies)
///     }
/// }
/// # let mut replies = Vec::new();
/// # Celsius(21.5).append_to(&mut replies).unwrap();
/// # assert_eq!(replies[0].as_ref(), "21.5 °C".as_bytes());
/// ```
pub trait IntoReplies {
    /// Appends the replies to `replies`, in order.
    ///
    /// # Errors
    ///
    /// The handler's error, if it failed.
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError>;
}

/// A reply, made from bytes, text, or the [`Request`] itself, and with a header if the layout has one.
///
/// # Examples
///
/// A handler whose branches return different types:
///
/// ```
/// use framelet::server::{Reply, Request};
///
/// async fn answer(request: Request) -> Reply {
///     match request.payload() {
///         b"" => Reply::from("nothing to repeat"),
///         b"number" => Reply::from(request.number().to_string()),
///         _ => Reply::from(request),
///     }
/// }
/// # let _ = framelet::Server::accept_from(futures_lite::stream::empty::<
/// #     std::io::Result<(futures_lite::io::Cursor<Vec<u8>>, framelet::net::Peer)>,
/// # >()).answer(answer);
/// assert_eq!(Reply::from(b"21.5".to_vec()).as_ref(), b"21.5");
/// ```
#[derive(Clone, Debug)]
pub struct Reply {
    /// `None` for that of the request, or zeros.
    header: Option<Vec<u8>>,
    payload: Payload,
}

#[derive(Clone, Debug)]
enum Payload {
    Owned(Vec<u8>),
    Static(&'static [u8]),
    Same(Request),
}

impl Reply {
    /// Sets the header. Without it, the request as a reply keeps its own, and that of any other reply is
    /// zeros. If the layout has no such header, the reply cannot be sent, and the connection ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::server::Reply;
    ///
    /// let ready = Reply::from("I").with_header("Z"); // in the layout h1:u32be+self of PostgreSQL
    /// assert_eq!((ready.header().to_vec(), ready.as_ref()), (b"Z".to_vec(), &b"I"[..]));
    /// ```
    #[must_use]
    pub fn with_header(self, header: impl Into<Vec<u8>>) -> Reply {
        Reply { header: Some(header.into()), ..self }
    }

    /// Returns the header; an empty one stands for zeros.
    pub fn header(&self) -> Header<'_> {
        match (&self.header, &self.payload) {
            (Some(header), _) => Header::new(header),
            (None, Payload::Same(request)) => request.header(),
            (None, _) => Header::EMPTY,
        }
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        match &self.payload {
            Payload::Owned(bytes) => bytes,
            Payload::Static(bytes) => bytes,
            Payload::Same(request) => request.payload(),
        }
    }
}

impl From<Vec<u8>> for Reply {
    fn from(payload: Vec<u8>) -> Reply {
        Reply { header: None, payload: Payload::Owned(payload) }
    }
}

impl From<String> for Reply {
    fn from(payload: String) -> Reply {
        payload.into_bytes().into()
    }
}

impl From<&'static [u8]> for Reply {
    fn from(payload: &'static [u8]) -> Reply {
        Reply { header: None, payload: Payload::Static(payload) }
    }
}

impl From<&'static str> for Reply {
    fn from(payload: &'static str) -> Reply {
        payload.as_bytes().into()
    }
}

/// Sends the message back without copying it.
impl From<Request> for Reply {
    fn from(request: Request) -> Reply {
        Reply { header: None, payload: Payload::Same(request) }
    }
}

impl IntoReplies for () {
    fn append_to(self, _: &mut Vec<Reply>) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl IntoReplies for Reply {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        replies.push(self);
        Ok(())
    }
}

impl IntoReplies for Vec<u8> {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        Reply::from(self).append_to(replies)
    }
}

impl IntoReplies for String {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.into_bytes().append_to(replies)
    }
}

impl<const N: usize> IntoReplies for [u8; N] {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.to_vec().append_to(replies)
    }
}

impl IntoReplies for &'static [u8] {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        Reply::from(self).append_to(replies)
    }
}

impl<const N: usize> IntoReplies for &'static [u8; N] {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.as_slice().append_to(replies)
    }
}

impl IntoReplies for &'static str {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.as_bytes().append_to(replies)
    }
}

impl IntoReplies for Request {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        Reply::from(self).append_to(replies)
    }
}

impl<R: IntoReplies> IntoReplies for Option<R> {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.map_or(Ok(()), |reply| reply.append_to(replies))
    }
}

impl<R: IntoReplies> IntoReplies for Vec<R> {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.into_iter().try_for_each(|reply| reply.append_to(replies))
    }
}

impl<R: IntoReplies, E: Into<HandlerError>> IntoReplies for Result<R, E> {
    fn append_to(self, replies: &mut Vec<Reply>) -> Result<(), HandlerError> {
        self.map_err(Into::into)?.append_to(replies)
    }
}

/// Answers messages: any async function from a [`Request`] to something that implements [`IntoReplies`], or
/// [`Echo`].
///
/// Replies are sent in the order of their requests, whichever is ready first.
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
/// let mut client = Client::connect(listener.address()?).await?;
/// let handler = |request: Request| async move { request.payload().to_ascii_uppercase() };
/// let server = smol::spawn(Server::new(listener).answer(handler).run(future::pending()));
/// assert_eq!(client.request(b"hello").await?, b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// This trait is sealed: it cannot be implemented outside of this crate.
pub trait Handler: IntoAnswering {}

impl<H: IntoAnswering> Handler for H {}

/// What a [`Handler`] is to a server. Its module is private, and so it seals that trait.
pub trait IntoAnswering {
    fn into_answering(self) -> Answering;
}

impl<F, Fut> IntoAnswering for F
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: IntoReplies,
{
    fn into_answering(self) -> Answering {
        Answering::Each(Arc::new(move |request| {
            let answering = self(request);
            Box::pin(async move {
                let mut replies = Vec::new();
                answering.await.append_to(&mut replies)?;
                Ok(replies)
            })
        }))
    }
}

/// A handler that sends each message back, directly from the buffer in which it was received.
///
/// # Examples
///
/// ```
/// use framelet::server::Echo;
/// use framelet::{Address, Client, Server};
/// use futures_lite::future;
///
/// # future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let mut client = Client::connect(listener.address()?).await?;
/// let server = smol::spawn(Server::new(listener).answer(Echo).run(future::pending()));
/// assert_eq!(client.request(b"hello").await?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl IntoAnswering for Echo {
    fn into_answering(self) -> Answering {
        Answering::Echo
    }
}

/// Begins to answer a message.
pub(crate) type EachHandler = Arc<dyn Fn(Request) -> Replying + Send + Sync>;

/// A future that answers one message.
pub(crate) type Replying = Pin<Box<dyn Future<Output = Result<Vec<Reply>, HandlerError>> + Send>>;

/// How a server answers messages.
#[derive(Clone)]
pub enum Answering {
    /// Not at all.
    Nothing,
    /// With the message itself.
    Echo,
    /// With what a handler returns.
    Each(EachHandler),
}

impl Answering {
    pub(crate) fn answers(&self) -> bool {
        !matches!(self, Answering::Nothing)
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answering::Nothing => "Nothing",
            Answering::Echo => "Echo",
            Answering::Each(_) => "Each",
        })
    }
}

//! What an empty frame is.

/// What an empty frame is: one without payload and header. (One of git's markers has a header.)
///
/// # Examples
///
/// A server whose clients send empty frames to show that they are there, and expect them back:
///
/// ```
/// use framelet::server::Request;
/// use framelet::wire::EmptyFrames;
/// use framelet::{Address, Framed, Layout, Server};
/// # use futures_lite::future;
///
/// # future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let mut stream = Framed::new(listener.address()?.connect().await?, Layout::U32BE);
/// let number = |request: Request| async move { format!("message {}", request.number()) };
/// let server = Server::new(listener).answer(number).empty(EmptyFrames::Echo);
/// # let server = smol::spawn(server.run(future::pending()));
///
/// stream.send(b"").await?;
/// assert_eq!(stream.read().await?, Some(vec![]));
/// stream.send(b"hello").await?;
/// assert_eq!(stream.read().await?, Some(b"message 1".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyFrames {
    /// A message like any other.
    #[default]
    Message,
    /// A heartbeat: no message, and not answered.
    Skip,
    /// A heartbeat that is answered: no message, and an empty frame is sent back.
    Echo,
}

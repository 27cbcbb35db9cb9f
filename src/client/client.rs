//! Connects to a server of framed messages, sends and receives.

use std::fmt;
use std::io;

use crate::net::address::Address;
use crate::net::byte_stream::ByteStream;
use crate::stream::error::ReadError;
use crate::stream::error::WriteError;
use crate::stream::reader::FrameReader;
use crate::stream::writer::FrameWriter;
use crate::wire::layout::{Layout, LimitError};

/// One connection to a server.
///
/// # Examples
///
/// ```no_run
/// use framelet::{Address, Client};
///
/// # futures_lite::future::block_on(async {
/// let address: Address = "127.0.0.1:4747".parse()?;
/// let mut client = Client::connect(&address).await?;
/// client.send("one message\nof two lines".as_bytes()).await?;
/// let reply = client.receive().await?;
/// client.finish().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Client {
    reader: FrameReader<ByteStream>,
    writer: FrameWriter<ByteStream>,
}

/// Why a client could not finish.
#[derive(Debug)]
#[non_exhaustive]
pub enum FinishError {
    /// What was queued could not be sent.
    Write(WriteError),
    /// The server did not close the stream in good order; it may not have read everything.
    Read(ReadError),
}

impl Client {
    /// Connects to `address`, to speak `u32be` frames.
    ///
    /// # Errors
    ///
    /// The system's, for example if the connection is refused or the name does not resolve.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    pub async fn connect(address: &Address) -> io::Result<Client> {
        Ok(Client::new(address.connect().await?, Layout::U32BE))
    }

    /// Returns a client that speaks frames in `layout` over a connected stream.
    pub fn new(stream: impl Into<ByteStream>, layout: Layout) -> Client {
        let stream = stream.into();
        Client {
            reader: FrameReader::with_layout(stream.clone(), layout),
            writer: FrameWriter::with_layout(stream, layout),
        }
    }

    /// Sets the longest payload to send and to accept, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could ever reach that limit.
    pub fn max_message(self, limit: usize) -> Result<Client, LimitError> {
        let Client { reader, writer } = self;
        Ok(Client { reader: reader.max_message(limit)?, writer: writer.max_message(limit)? })
    }

    /// Queues a message; see [`FrameWriter::feed`].
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the message is too long or the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed` has not queued its message.
    pub async fn feed(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.writer.feed(payload).await
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
        self.writer.flush().await
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
        self.writer.send(payload).await
    }

    /// Receives the next message; `None` if the server has closed the stream in good order.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and the same one again on every later call.
    ///
    /// # Cancel safety
    ///
    /// A dropped `receive` loses nothing.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.read().await
    }

    /// Sends what is queued and the end of the stream, and waits until the server closes it, too;
    /// messages that come meanwhile are dropped. A framelet server closes once it has put everything
    /// into its sink; other servers usually once they have read everything. A proxy in between closes
    /// whatever became of it: then only an [`AckClient`](crate::AckClient) can tell.
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
        self.writer.close().await.map_err(FinishError::Write)?;
        while self.reader.read_batch().await.map_err(FinishError::Read)?.is_some() {}
        Ok(())
    }

    /// Returns the two halves, to be used by two tasks.
    pub fn split(self) -> (FrameReader<ByteStream>, FrameWriter<ByteStream>) {
        (self.reader, self.writer)
    }
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FinishError::Write(error) => error.fmt(f),
            FinishError::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FinishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FinishError::Write(error) => Some(error),
            FinishError::Read(error) => Some(error),
        }
    }
}

//! Makes a running server reopen its sink.

use std::sync::Arc;

use event_listener::Event;
use smol::channel::{self, Receiver, Sender};

/// Asks the sink of a running server to reopen its output, for example after log rotation: see
/// [`MessageSink::reopen`](crate::sink::MessageSink::reopen).
///
/// Clones share the same request.
///
/// # Examples
///
/// ```
/// use framelet::format::OutputFormat;
/// use framelet::server::Reopen;
/// use framelet::sink::{FileSink, FileSync};
/// # use framelet::{Address, Server};
/// # use futures_lite::future;
///
/// # future::block_on(async {
/// # let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// # let directory = tempfile::tempdir()?;
/// # let (path, old) = (directory.path().join("messages"), directory.path().join("messages.1"));
/// let reopen = Reopen::default();
/// let sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Always)?;
/// let server = Server::new(listener).collect(sink).reopen(reopen.clone());
/// let server = smol::spawn(server.run(future::pending()));
///
/// std::fs::rename(&path, &old)?;
/// reopen.ask_and_wait().await;
/// assert!(path.exists()); // the old file is complete, and can be compressed
/// reopen.ask(); // the same, for code that cannot wait
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Reopen {
    // Room for one: a second request before the first is handled asks for the same thing.
    ask: Sender<()>,
    asked: Receiver<()>,
    done: Arc<Event>,
}

impl Default for Reopen {
    fn default() -> Self {
        let (ask, asked) = channel::bounded(1);
        Reopen { ask, asked, done: Arc::default() }
    }
}

impl Reopen {
    /// Asks the sink to reopen its output, after it has committed what was received so far. Does not wait
    /// for that.
    pub fn ask(&self) {
        let _ = self.ask.try_send(());
    }

    /// Does the same, and waits until it is done; an earlier request that is done meanwhile ends the wait, too. If
    /// the new output cannot be opened, the sink keeps the old one, which is logged, and the request is done.
    ///
    /// Waits forever if no server with a sink has a clone of this.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the request remains.
    pub async fn ask_and_wait(&self) {
        let done = self.done.listen();
        self.ask();
        done.await;
    }

    /// Records that the sink has reopened its output.
    pub(crate) fn finish(&self) {
        self.done.notify(usize::MAX);
    }

    /// Waits for the next request.
    pub(crate) async fn asked(&self) {
        // Cannot fail: `self` holds a sender.
        let _ = self.asked.recv().await;
    }
}

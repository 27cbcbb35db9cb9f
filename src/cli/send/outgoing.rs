//! The direction to the server.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::time::Duration;

use framelet::net::ByteStream;
use futures_lite::{AsyncWriteExt, FutureExt};
use smol::Timer;
use smol::lock::Mutex;

use super::super::log;

/// The direction to the server, which several tasks write to. Each write is whole: frames do not mix.
pub(super) struct Outgoing {
    stream: Mutex<ByteStream>,
    /// After this long without progress the user is told, once: a server that does not read is waited for, as it may
    /// only be slow.
    patience: Option<Duration>,
    is_said: Cell<bool>,
}

impl Outgoing {
    pub(super) fn new(stream: ByteStream, patience: Option<Duration>) -> Outgoing {
        Outgoing { stream: Mutex::new(stream), patience, is_said: Cell::new(false) }
    }

    /// Writes bytes, also those that TLS would keep until there are more.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream.lock().await;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[stream.write(rest).or(self.say_that_it_waits()).await?..];
        }
        stream.flush().or(self.say_that_it_waits()).await
    }

    async fn say_that_it_waits<T>(&self) -> T {
        if let Some(patience) = self.patience.filter(|_| !self.is_said.get()) {
            Timer::after(patience).await;
            self.is_said.set(true);
            let patience = humantime::format_duration(patience);
            log::say(format!("the server has read nothing for {patience}; waiting until it does"));
        }
        pending().await
    }
}

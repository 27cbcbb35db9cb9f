//! The tutorial's server with the library: the same wire, and nothing left to luck.
//!
//! It prints messages as they arrive and shuts down gracefully on Ctrl-C: `cargo run --example server`.

use std::error::Error;

use async_signal::{Signal, Signals};
use framelet::sink::{MessageSink, SinkError};
use framelet::{Address, Batch, Server};
use futures_lite::{StreamExt, future};

/// Where the messages go: here they are shown, with who sent them.
struct Show;

impl MessageSink for Show {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        for message in batches.iter().flat_map(Batch::messages) {
            let connection = message.connection.unwrap_or_default();
            println!(
                "{connection}.{}: {}",
                message.number,
                String::from_utf8_lossy(message.payload)
            );
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let address: Address = std::env::args().nth(1).unwrap_or(":4747".into()).parse()?;
    future::block_on(smol::spawn(async move {
        let mut signals = Signals::new([Signal::Int, Signal::Term])?;
        let listener = address.listen().await?;
        eprintln!("listening on {}", listener.address()?);
        let shutdown = async move {
            signals.next().await;
        };
        let summary = Server::new(listener).collect(Show).run(shutdown).await?;
        eprintln!("{} messages", summary.messages);
        Ok(())
    }))
}

//! The tutorial's client with the library: lines up to an empty one are a message, and several may
//! follow each other. Try `printf 'a\nb\n\nc' | cargo run --example client`.

use std::error::Error;
use std::io;

use framelet::Client;
use framelet::format::{Composer, InputFormat};
use framelet::wire::DEFAULT_MAX_MESSAGE;
use futures_lite::future::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or(":4747".into());
    let mut composer = Composer::new(io::stdin(), InputFormat::Text, DEFAULT_MAX_MESSAGE);
    block_on(async {
        let mut client = Client::connect(address).await?;
        let mut more = true;
        while more {
            let mut messages = Vec::new();
            more = composer.read(|message| messages.push(message.to_vec()))?;
            for message in &messages {
                client.feed(message).await?;
            }
            client.flush().await?;
        }
        // Returns once the server has read everything and closed the connection.
        client.finish().await?;
        Ok(())
    })
}

//! The smallest honest client of length-prefixed messages, on smol alone.
//!
//! It reads lines from the console until an empty one, and sends them as one message: four bytes of
//! length, most significant first, and then the text as UTF-8.
//!
//! Run `cargo run --example tutorial_server` in another terminal first.

use std::io;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:4747".into());
    let mut lines = Vec::new();
    for line in io::stdin().lines() {
        match line? {
            line if line.is_empty() => break,
            line => lines.push(line),
        }
    }
    let message = lines.join("\n");
    // A cast would shorten a length that does not fit, and put everything after it out of step.
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;

    smol::block_on(async {
        let mut stream = TcpStream::connect(address).await?;
        // Prefix and payload in one write: in two, the second may wait 40 ms for the first one's
        // acknowledgement.
        let frame = [&length.to_be_bytes(), message.as_bytes()].concat();
        stream.write_all(&frame).await?;
        // Written is not received: say that this was all, and wait until the server closes as well.
        stream.shutdown(std::net::Shutdown::Write)?;
        match stream.read(&mut [0]).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("this server talks back")),
        }
    })
}

//! The smallest honest server of length-prefixed messages, on smol alone.
//!
//! The classic bug, found in many a tutorial, is to take a message for complete as soon as a `read`
//! has returned less than the buffer would hold. TCP keeps no such promise: one `read` may return half
//! a message, or three of them, and what it returns depends on the network and on the other program's
//! timing. It works on the author's machine and fails in the field.
//!
//! What is right is in `receive`: read the length, then read on until that many bytes are there.
//! `read_exact` does both. What is still missing here, and is in the library: telling a clean end from
//! one that cuts a prefix, deadlines, a bound on the memory of all connections together, errors that say
//! where and why, and a server that outlives a failed `accept`.
//!
//! Run it, then `cargo run --example tutorial_client` in another terminal.

use std::io;

use smol::io::{AsyncReadExt, BufReader};
use smol::net::{TcpListener, TcpStream};

/// The longest message to accept, in bytes. Without it, four bytes are enough to ask for 4 GiB.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:4747".into());
    smol::block_on(async {
        let listener = TcpListener::bind(address).await?;
        eprintln!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, peer) = listener.accept().await?;
            smol::spawn(async move {
                if let Err(error) = receive(stream).await {
                    eprintln!("{peer}: {error}");
                }
            })
            .detach();
        }
    })
}

async fn receive(stream: TcpStream) -> io::Result<()> {
    // Buffered: without it, each message would cost two system calls.
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    loop {
        let mut prefix = [0; 4];
        match stream.read_exact(&mut prefix).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let length = u32::from_be_bytes(prefix) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::other(format!("a message of {length} bytes is too long")));
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        println!("{}", String::from_utf8_lossy(&payload));
    }
}

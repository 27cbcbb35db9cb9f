//! A handler, and its test without a network: `cargo test --example in_memory`.

use std::error::Error;

use async_net::unix::UnixStream;
use framelet::net::Peer;
use framelet::server::Request;
use framelet::{Framed, Layout, Server};
use futures_lite::{future, stream};

/// Adds numbers that are separated by spaces.
async fn add(request: Request) -> Result<String, Box<dyn Error + Send + Sync>> {
    let numbers = str::from_utf8(request.payload())?.split_whitespace().map(str::parse::<i64>);
    let sum: i64 = numbers.sum::<Result<_, _>>()?;
    Ok(sum.to_string())
}

/// Sends one message to a server at the other end of a pair of sockets, and returns its reply.
fn ask(message: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    future::block_on(async {
        let (ours, theirs) = UnixStream::pair()?;
        let streams = stream::once(Ok((theirs, Peer::named("test"))));
        let _server = smol::spawn(Server::accept_from(streams).answer(add).run(future::pending()));
        let mut client = Framed::new(ours, Layout::U32BE);
        client.send(message).await?;
        client.read().await?.ok_or("the server ended without a reply".into())
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", String::from_utf8(ask(b"1 2 39")?)?);
    Ok(())
}

#[test]
fn numbers_are_added_and_nothing_else() {
    assert_eq!(ask(b"1 2 39").unwrap(), b"42");
    assert!(ask(b"one").is_err(), "the connection is ended");
}

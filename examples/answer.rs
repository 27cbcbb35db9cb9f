//! A server that answers requests: `cargo run --example answer`, and from another terminal
//! `framelet send --message hello --expect 1`.

use std::error::Error;

use framelet::server::Request;
use framelet::{Address, Server};
use futures_lite::future;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let address: Address = std::env::args().nth(1).unwrap_or(":4747".into()).parse()?;
    future::block_on(smol::spawn(async move {
        let listener = address.listen().await?;
        eprintln!("listening on {}", listener.address()?);
        let server = Server::new(listener)
            .answer(|request: Request| async move { request.payload().to_ascii_uppercase() });
        server.run(future::pending()).await?;
        Ok(())
    }))
}

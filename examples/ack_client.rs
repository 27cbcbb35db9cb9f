//! Sends lines, and ends once all of them are committed, even if connections are lost meanwhile. Try
//! `framelet serve --to file:messages.txt` and then `seq 5 | cargo run --example ack_client`.

use std::error::Error;
use std::io;

use framelet::AckClient;
use framelet::client::AckOptions;
use futures_lite::future::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or(":4747".into());
    block_on(async {
        let mut client = AckClient::connect(address, AckOptions::new()).await?;
        for line in io::stdin().lines() {
            client.send(line?.as_bytes()).await?;
        }
        client.finish().await?;
        eprintln!("{} committed", client.committed());
        Ok(())
    })
}

//! Sends requests and prints the replies, to a server that replies to each message. Try `framelet serve --echo`
//! and then `cargo run --example request -- :4747 ping pong`.

use std::error::Error;
use std::time::Duration;

use framelet::Client;
use futures_lite::future::block_on;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which address? as in: request :4747 ping")?;
    block_on(async {
        let mut client = Client::connect(address).await?.timeout(Duration::from_secs(5));
        // All are on their way before the first reply arrives.
        for reply in client.request_all(arguments).await? {
            println!("{}", String::from_utf8_lossy(&reply));
        }
        client.finish().await?;
        Ok(())
    })
}

//! A bad line: a proxy that splits, delays and resets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// A proxy that passes on what comes in random pieces, and resets each connection some time after it has
/// passed on so many bytes from the client.
pub(crate) fn start_proxy(seed: u64, server: SocketAddr, around: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let client = listener.accept().unwrap().0;
            let Ok(server) = TcpStream::connect(server) else { continue };
            let budget = random.usize(around / 2..around * 3 / 2);
            pass_on(&client, &server, budget, &mut random);
        }
    });
    address
}

/// Passes on in both directions, until one of them ends or `budget` bytes have come from the client: then
/// both connections are reset.
fn pass_on(client: &TcpStream, server: &TcpStream, budget: usize, random: &mut fastrand::Rng) {
    for stream in [client, server] {
        stream.set_nodelay(true).unwrap();
    }
    let mut answers = random.fork();
    thread::scope(|scope| {
        scope.spawn(move || {
            pass_on_pieces(server, client, usize::MAX, &mut answers);
            // The end of the answers is the end of the other direction, too.
            let _ = client.shutdown(Shutdown::Read);
        });
        let spent = pass_on_pieces(client, server, budget, random);
        if spent {
            for stream in [client, server] {
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                // Has the other thread end; on the wire it is nothing.
                let _ = stream.shutdown(Shutdown::Read);
            }
        }
    });
    // Both are closed by the caller now, which is a reset if nothing lingers.
}

/// Returns whether the budget was spent, rather than the stream ended.
fn pass_on_pieces(
    mut from: &TcpStream,
    mut to: &TcpStream,
    mut budget: usize,
    random: &mut fastrand::Rng,
) -> bool {
    let mut bytes = [0; 2000];
    while budget > 0 {
        let most = random.usize(1..=bytes.len()).min(budget);
        let Ok(read) = from.read(&mut bytes[..most]) else { return false };
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return false;
        }
        budget -= read;
        if random.u8(0..8) == 0 {
            thread::sleep(Duration::from_micros(random.u64(0..300)));
        }
        if to.write_all(&bytes[..read]).is_err() {
            return false;
        }
    }
    true
}

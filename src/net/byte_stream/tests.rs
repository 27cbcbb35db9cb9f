use std::net::{TcpListener, TcpStream};

use futures_lite::AsyncWriteExt;
use futures_lite::future::block_on;

use super::*;

/// A kernel that has sent the bytes alone has sent one segment more than it had to, and woken the peer once more.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the bytes are not kept there")]
fn bytes_that_are_written_before_the_close_are_sent_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut kept = false;
    // If this thread has to wait for its turn, the kernel may not keep the bytes for that long.
    for _ in 0..10 {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = ByteStream::try_from(listener.accept().unwrap().0).unwrap();
        let written = block_on(poll_fn(|cx| stream.poll_write_before_close(cx, b"the end")));
        client.set_nonblocking(true).unwrap();
        kept |= would_block(&client.peek(&mut [0]));
        client.set_nonblocking(false).unwrap();
        block_on(stream.close()).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!((written.unwrap(), &received[..]), (7, &b"the end"[..]));
    }
    assert!(kept, "sent before the close");
}

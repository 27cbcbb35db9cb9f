//! Another input than the one of which the beginning is committed, for any sink.

use super::acks::SENDER;
use super::program::{Server, check, framelet};

/// Tries inputs as one sender, and has the server started again in between if it `restarts`. Returns it when it
/// has the messages 1, 2, 3, an empty one and 5.
pub(crate) fn refuses_another_input(start: impl Fn() -> Server, restarts: bool) -> Server {
    let again = |server: Server| match restarts {
        true => {
            assert!(server.stop().status.success());
            start()
        }
        false => server,
    };
    let send = |server: &Server, format: &str, arguments: &[&str], input: &[u8]| {
        let address = server.address.to_string();
        let sender = ["send", &address, "--ack", "--sender", SENDER, "--input", format];
        framelet(&[&sender, arguments].concat(), input)
    };
    let server = start();
    check(&send(&server, "lines", &[], b"1\n2\n3\n"), 0, &["sent 3, committed 3"]);
    let server = again(server);
    // Logs that were rotated, of as many lines or more.
    let other = "the input is different: its message 3 is not the one that was committed; nothing was sent; \
                 use another --sender for another input";
    for input in [&b"4\n5\n6\n"[..], b"2\n3\n4\n5\n", b"1\n2\n33\n3\n", b"1\n2\n\n"] {
        check(&send(&server, "lines", &["--resume"], input), 2, &[other]);
    }
    let short = "the input has only 2 messages, but 3 of this sender are committed";
    let output = send(&server, "lines", &["--resume"], b"1\n2\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(super::program::said(&output).contains(short));
    // The same one, which has grown.
    let more = "skipped 3 that were committed, sent 1, committed 4";
    check(&send(&server, "lines", &["--resume"], b"1\n2\n3\n\n"), 0, &[more]);
    let server = again(server);
    // However it is written.
    let other = "its message 4 is not the one that was committed; nothing was sent";
    check(&send(&server, "hex", &["--resume"], b"31\n32\n33\n34\n35\n"), 2, &[other]);
    let more = "skipped 4 that were committed, sent 1, committed 5";
    check(&send(&server, "hex", &["--resume"], b"31\n32\n33\n\n35\n"), 0, &[more]);
    server
}

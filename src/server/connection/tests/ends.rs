//! How connections end of which a reply is under way.

use super::*;

#[test]
fn the_mark_of_an_end_never_becomes_part_of_a_reply() {
    let handler = |request: Request| async move { request };
    for answering in [Answering::Echo, handler.into_answering()] {
        let server = server(&Options { answering, ..Options::default() });
        let replies = [frame(b"one"), frame(b"two")].concat();
        for taken in 0..replies.len() {
            let (mut connection, stub) = stub_connection(&server, None);
            let origin = Arc::clone(&connection.receiver.connection);
            stub.feed(&replies);
            stub.allow(taken);
            let mut run = Box::pin(connection.run());
            assert!(poll_some(&mut run).is_none());
            assert_eq!(stub.output(), replies[..taken]);
            origin.state.send(Signal::Abort);
            stub.allow(1000);
            assert!(matches!(poll_some(&mut run), Some(Outcome::Aborted)));
            // After whole frames, half of one is the mark of the end.
            let mark: &[u8] = if taken % frame(b"one").len() == 0 { &[0xff] } else { &[] };
            assert_eq!(stub.output(), [&replies[..taken], mark].concat(), "{taken} taken before");
        }
    }
}

//! Empty frames that are no messages, on one connection.

use super::*;
use crate::server::handler::Echo;
use crate::stream::pool::BUFFER;

const MIB: usize = 1 << 20;

/// Returns what a server does with messages: nothing, sends them back, or answers each with itself.
fn all_answering() -> [Answering; 3] {
    let each = |request: Request| async move { request };
    [Answering::Nothing, Echo.into_answering(), each.into_answering()]
}

/// Polls until a turn of the connection reads and writes no more.
fn poll_all(run: &mut (impl Future<Output = Outcome> + Unpin), stub: &Stub) {
    let progress = || (stub.unread(), stub.output().len());
    for _ in 0..1_000_000 {
        let before = progress();
        assert!(poll_some(run).is_none(), "the connection has ended");
        if progress() == before {
            return;
        }
    }
    panic!("it does not stop");
}

#[test]
fn a_peer_that_sends_heartbeats_is_not_idle() {
    let heartbeat = frame(b"");
    for answering in all_answering() {
        for empty in [EmptyFrames::Skip, EmptyFrames::Echo] {
            let answering = answering.clone();
            let server = server(Options { answering, empty, ..Options::default() });
            let (mut connection, stub) = stub_connection(&server, None);
            let origin = Arc::clone(&connection.receiver.connection);
            let mut run = Box::pin(connection.run());
            stub.allow(1000);
            let mut phase_after = |tick, fed: &[u8]| {
                server.set_clock(tick);
                stub.feed(fed);
                assert!(poll_some(&mut run).is_none());
                (origin.state.phase(), origin.state.snapshot().since())
            };
            assert_eq!(phase_after(5, &frame(b"message")), (Phase::Idle, 5));
            assert_eq!(phase_after(10, b""), (Phase::Idle, 5));
            assert_eq!(phase_after(20, &heartbeat), (Phase::Idle, 20));
            assert_eq!(phase_after(30, &heartbeat[..3]), (Phase::InMessage, 30));
            assert_eq!(phase_after(40, &heartbeat[3..]), (Phase::Idle, 40));
            // The clock of a message does not start with the heartbeat before it.
            assert_eq!(phase_after(50, &heartbeat[..3]), (Phase::InMessage, 50));
            let next = [&heartbeat[3..], &frame(b"message")[..5]].concat();
            assert_eq!(phase_after(60, &next), (Phase::InMessage, 60));
            assert_eq!(phase_after(70, &frame(b"message")[5..]), (Phase::Idle, 70));
        }
    }
}

#[test]
fn heartbeats_are_sent_back_between_replies_and_are_no_messages() {
    let sent = [&b""[..], b"one", b"", b"", b"two", b""].map(frame).concat();
    let messages = [&b"one"[..], b"two"].map(frame).concat();
    for (answers, answering) in [false, true, true].into_iter().zip(all_answering()) {
        for (empty, expected) in [
            (EmptyFrames::Message, if answers { &sent[..] } else { b"" }),
            (EmptyFrames::Skip, if answers { &messages } else { b"" }),
            (EmptyFrames::Echo, if answers { &sent } else { &[0; 16] }),
        ] {
            let answering = answering.clone();
            let server = server(Options { answering, empty, ..Options::default() });
            let (mut connection, stub) = stub_connection(&server, None);
            stub.allow(MIB);
            stub.feed(&sent);
            poll_all(&mut Box::pin(connection.run()), &stub);
            assert_eq!(stub.output(), expected, "{answers} {empty:?}");
            let count = if empty == EmptyFrames::Message { 6 } else { 2 };
            assert_eq!(connection.received(), count, "{answers} {empty:?}");
        }
    }
}

#[test]
fn a_slow_handler_does_not_keep_heartbeats_waiting() {
    let never = |_: Request| future::pending::<Vec<u8>>();
    let options = Options {
        answering: never.into_answering(),
        empty: EmptyFrames::Echo,
        ..Options::default()
    };
    let (mut connection, stub) = stub_connection(&server(options), None);
    let mut run = Box::pin(connection.run());
    stub.allow(MIB);
    stub.feed(&[frame(b"request"), frame(b"")].concat());
    poll_all(&mut run, &stub);
    assert_eq!(stub.output(), frame(b""));
    stub.feed(&frame(b"").repeat(3));
    poll_all(&mut run, &stub);
    assert_eq!(stub.output(), frame(b"").repeat(4));
}

/// F3, F4. Heartbeats without end to a peer that reads none of them.
#[test]
fn heartbeats_that_are_not_taken_stop_the_reading_and_take_little_memory() {
    let heartbeats = MIB / 4;
    for answering in all_answering() {
        let server = server(Options { answering, empty: EmptyFrames::Echo, ..Options::default() });
        let (mut connection, stub) = stub_connection(&server, None);
        let mut run = Box::pin(connection.run());
        stub.allow(10);
        stub.feed(&frame(b"").repeat(heartbeats));
        poll_all(&mut run, &stub);
        assert!(stub.unread() >= MIB - 4 * BUFFER, "read on: {} left", stub.unread());
        assert!(server.pool.held() <= 4 * BUFFER, "{} held", server.pool.held());
        // Each of them comes back once it is taken.
        stub.allow(2 * MIB);
        poll_all(&mut run, &stub);
        assert_eq!((stub.unread(), stub.output()), (0, vec![0; MIB]));
        // An empty queue of replies keeps a kilobyte.
        assert!(server.pool.held() <= 1024, "{} held", server.pool.held());
    }
}

/// What follows a heartbeat in the read buffer is held while the peer takes nothing: for that peer, and no more
/// than it needs.
#[test]
fn what_follows_heartbeats_is_counted_while_they_are_not_taken() {
    for answering in all_answering() {
        let server = server(Options { answering, empty: EmptyFrames::Echo, ..Options::default() });
        let (mut connection, stub) = stub_connection(&server, None);
        let mut run = Box::pin(connection.run());
        stub.feed(&[frame(b""), frame(&[7; 1000])[..900].to_vec()].concat());
        assert!(poll_some(&mut run).is_none());
        assert_eq!(stub.unread(), 0);
        assert!(server.pool.held() <= 3 * 1024, "{} held", server.pool.held());
    }
}

#[test]
fn a_peer_that_takes_no_heartbeats_runs_into_the_time_limit_of_replies() {
    for answering in all_answering() {
        let server = server(Options { answering, empty: EmptyFrames::Echo, ..Options::default() });
        let (mut connection, stub) = stub_connection(&server, None);
        let origin = Arc::clone(&connection.receiver.connection);
        let mut run = Box::pin(connection.run());
        server.set_clock(10);
        stub.feed(&frame(b"").repeat(10));
        assert!(poll_some(&mut run).is_none());
        // More of them are no sign that it takes any.
        server.set_clock(20);
        stub.feed(&frame(b"").repeat(10));
        assert!(poll_some(&mut run).is_none());
        let state = origin.state.snapshot();
        assert_eq!((state.phase(), state.since()), (Phase::Writing, 10));
        origin.state.expire(state);
        assert!(matches!(poll_some(&mut run), Some(Outcome::NotTaken(_))));
    }
}

#[test]
fn a_shutdown_is_not_put_off_by_heartbeats() {
    for answering in all_answering() {
        for empty in [EmptyFrames::Skip, EmptyFrames::Echo] {
            let answering = answering.clone();
            let server = server(Options { answering, empty, ..Options::default() });
            let (mut connection, stub) = stub_connection(&server, None);
            let mut run = Box::pin(connection.run());
            assert!(poll_some(&mut run).is_none());
            server.drain();
            server.call_last();
            stub.allow(MIB);
            let started = Instant::now();
            let ended = loop {
                // There is always one more.
                stub.feed(&frame(b""));
                if let Some(ended) = block_on(poll_once(&mut run)) {
                    break ended;
                }
                assert!(started.elapsed() < PATIENCE, "{empty:?}");
                thread::yield_now();
            };
            assert!(matches!(ended, Outcome::Drained), "{empty:?}");
        }
    }
}

#[test]
fn to_a_client_with_acknowledgements_each_frame_is_a_message() {
    let options = Options { empty: EmptyFrames::Skip, ..Options::default() };
    let server = server(options);
    let writer = WriterThread::start(Box::new(Anything)).unwrap();
    let (mut connection, mut client) = connection(&server, Some(writer.queue()));
    block_on(async {
        let mut run = Box::pin(connection.run());
        greet(&mut run, &mut client).await;
        client.write_all(&[frame(b""), frame(b"one"), frame(b"")].concat()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(run.await, Outcome::Closed));
    });
    assert_eq!(connection.received(), 3);
}

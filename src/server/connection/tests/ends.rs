//! How connections end whose replies are not all taken.

use super::*;

#[test]
fn the_mark_of_an_end_never_becomes_part_of_a_reply() {
    let handler = |request: Request| async move { request };
    for answering in [Answering::Echo, handler.into_answering()] {
        let server = server(Options { answering, ..Options::default() });
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

/// A sink that says how many messages it has once it is told to.
struct Slow(mpsc::Receiver<()>);

impl MessageSink for Slow {
    fn commit(&mut self, _: &[crate::Batch]) -> Result<(), SinkError> {
        Ok(())
    }

    fn committed(&mut self, _: SenderId) -> Result<Option<u64>, SinkError> {
        let _ = self.0.recv();
        Ok(Some(5))
    }
}

#[test]
fn a_welcome_never_begins_inside_a_heartbeat() {
    let server = server(Options::default());
    let (go_on, wait) = mpsc::channel();
    let writer = WriterThread::start(Box::new(Slow(wait))).unwrap();
    let (mut connection, stub) = stub_connection(&server, Some(writer.queue()));
    let hello = Hello { sender: SenderId::from_bytes([1; 16]), first: 6 };
    stub.feed(&hello.encode(Layout::U32BE).unwrap());
    stub.allow(1);
    let heartbeat = Answer::Heartbeat.frame(Layout::U32BE);
    let welcome = Answer::Acknowledgement(5).frame(Layout::U32BE);
    let expected = [heartbeat, welcome].concat();
    block_on(async {
        let mut run = Box::pin(connection.run());
        serve_until(&mut run, || stub.output().len() == 1).await;
        drop(go_on);
        // The sink has time to answer; if it needs longer, this shows less.
        for _ in 0..100 {
            assert!(poll_once(&mut run).await.is_none());
            Timer::after(Duration::from_millis(1)).await;
        }
        stub.allow(1000);
        serve_until(&mut run, || stub.output().len() == expected.len()).await;
    });
    assert_eq!(stub.output(), expected);
}

#[test]
fn requests_that_wait_for_the_sink_are_handed_on_although_replies_are_not_taken() {
    let answering = (|request: Request| async move { request }).into_answering();
    let server = server(Options { answering, ..Options::default() });
    let (commands, taken) = smol::channel::bounded(1);
    let commands = CommandSender::new(commands, Arc::default(), thread::current());
    let queue = CommitQueue::new(&Arc::new(commands));
    let (mut connection, stub) = stub_connection(&server, Some(queue));
    let origin = Arc::clone(&connection.receiver.connection);
    let mut run = Box::pin(connection.run());
    // The first one fills the queue.
    for message in [b"first", b"later"] {
        stub.feed(&frame(message));
        assert!(poll_some(&mut run).is_none());
    }
    assert_eq!(origin.state.phase(), Phase::Writing);
    origin.state.expire(origin.state.snapshot());
    assert!(poll_some(&mut run).is_none(), "it ends before what it has read is committed");
    for _ in 0..2 {
        assert!(taken.try_recv().is_ok());
        assert!(poll_some(&mut run).is_none());
    }
    origin.commit(2, true);
    assert!(matches!(poll_some(&mut run), Some(Outcome::NotTaken(_))));
}

//! What the reader and the writer promise beyond particular bytes: reads and writes that are
//! dropped, streams that fail, peers that do not read, and other implementations.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use common::pipe::pipe;
use common::{Pieces, Step, Tail, layouts, random_pieces};
use framelet::stream::{ReadError, WriteError};
use framelet::wire::{EncodeError, Fault, Position, ProtocolError, append_frame};
use framelet::{FrameReader, FrameWriter, Framed, Layout};
use futures_lite::future::{block_on, poll_once, zip};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, stream};
use futures_util::{SinkExt, StreamExt};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

// Reading.

#[test]
fn a_read_that_is_dropped_anywhere_loses_nothing() {
    let messages = [&b"first"[..], b"", b"the second one", b"x"].map(<[u8]>::to_vec);
    for layout in layouts() {
        let bytes = frames(layout, &messages);
        for by in WAYS {
            for dropped_after in 0..=bytes.len() {
                let steps = [Step::Give(dropped_after), Step::Pend];
                let read = read_dropping(Pieces::new(&bytes, steps, Tail::End), layout, by);
                assert_eq!(read, messages, "{layout} {by:?}, dropped after {dropped_after} bytes");
            }
            let steps = [Step::Pend, Step::Give(1)].repeat(bytes.len());
            let read = read_dropping(Pieces::new(&bytes, steps, Tail::End), layout, by);
            assert_eq!(read, messages, "{layout} {by:?}, dropped after every byte");
        }
    }
}

#[test]
fn a_read_of_a_large_message_that_is_dropped_loses_nothing() {
    let mut random = fastrand::Rng::with_seed(3);
    let lengths = [300 * KIB, 3, 64 * KIB - 4, 64 * KIB, 200 * KIB, 0];
    let messages = lengths.map(|len| noise(&mut random, len)).to_vec();
    let bytes = frames(Layout::U32BE, &messages);
    for by in WAYS {
        for _ in 0..20 {
            let steps = random_pieces(&mut random, bytes.len());
            let read = read_dropping(Pieces::new(&bytes, steps, Tail::End), Layout::U32BE, by);
            assert!(read == messages, "{by:?}");
        }
    }
}

/// P10: ten thousand streams.
#[test]
fn random_streams_of_random_layouts_give_identical_messages_in_random_pieces() {
    let mut random = fastrand::Rng::with_seed(4);
    let layouts = layouts();
    for round in 0..10_000 {
        let layout = *random.choice(&layouts).unwrap();
        let longest = layout.max_payload().min(1 << random.u32(0..12));
        let messages: Vec<Vec<u8>> = (0..random.usize(0..8))
            .map(|_| {
                let len = random.usize(0..=longest);
                noise(&mut random, len)
            })
            .collect();
        let bytes = frames(layout, &messages);
        let steps = random_pieces(&mut random, bytes.len());
        let by = *random.choice(&WAYS).unwrap();
        let read = read_dropping(Pieces::new(&bytes, steps, Tail::End), layout, by);
        assert!(read == messages, "round {round}: {layout} {by:?}");
    }
}

#[test]
fn what_was_read_of_the_next_message_is_returned_with_the_stream() {
    let messages = [&b"first"[..], b"", &[7; 150], b"x"].map(<[u8]>::to_vec);
    for layout in layouts().into_iter().filter(|layout| layout.max_payload() >= 150) {
        let bytes = frames(layout, &messages);
        for dropped_after in 0..=bytes.len() {
            let steps = [Step::Give(dropped_after), Step::Pend];
            let pieces = Pieces::new(&bytes, steps, Tail::End);
            let mut reader = FrameReader::with_layout(pieces, layout);
            let mut read = 0;
            while let Some(message) = block_on(poll_once(reader.read())) {
                assert_eq!(message.unwrap().as_ref(), messages.get(read));
                read += 1;
                if read >= messages.len() {
                    break;
                }
            }
            let (mut stream, mut rest) = reader.into_parts();
            block_on(stream.read_to_end(&mut rest)).unwrap();
            let expected = frames(layout, &messages[read..]);
            assert_eq!(rest, expected, "{layout}, dropped after {dropped_after} bytes");
        }
    }
}

#[test]
fn a_stream_that_fails_is_told_apart_from_one_that_ends() {
    let messages = [b"hello".to_vec(), b"world".to_vec()];
    let bytes = frames(Layout::U32BE, &messages);
    // A reset, and the error with which a cut TLS stream reports itself: that is no end, either.
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
        for fails_after in 0..=bytes.len() {
            for pause in [false, true] {
                let (complete, got) = (fails_after / 9, fails_after % 9);
                let mut steps = vec![Step::Give(fails_after), Step::Fail(kind)];
                if pause {
                    steps.insert(1, Step::Pend);
                }
                let mut reader = FrameReader::new(Pieces::new(&bytes, steps, Tail::Forbidden));
                for message in &messages[..complete] {
                    assert_eq!(block_on(reader.read()).unwrap().as_ref(), Some(message));
                }
                let expected =
                    Position { message: complete as u64 + 1, offset: complete as u64 * 9 };
                for _ in 0..3 {
                    let again = block_on(reader.read()).unwrap_err();
                    assert_eq!(
                        block_on(reader.read_batch()).unwrap_err().to_string(),
                        again.to_string()
                    );
                    let into_it =
                        format!(", {} into it", framelet::wire::Count(got as u64, "byte"));
                    assert_eq!(again.to_string().ends_with(&into_it), got > 0, "{again}");
                    let ReadError::Io { error, at, got: came, .. } = again else {
                        panic!("{again} after {fails_after} bytes");
                    };
                    assert_eq!((error.kind(), at, came), (kind, expected, got as u64));
                }
                assert!(block_on(reader.next()).is_none());
            }
        }
    }
}

#[test]
fn an_end_where_a_stream_could_have_failed_is_not_taken_for_a_failure() {
    let bytes = frames(Layout::U32BE, &[b"hello".to_vec()]);
    for ends_after in 0..=bytes.len() {
        let mut reader = FrameReader::new(Pieces::new(&bytes[..ends_after], [], Tail::End));
        match (ends_after, block_on(reader.read())) {
            (0, Ok(None)) | (9, Ok(Some(_))) => {}
            (1..9, Err(ReadError::Protocol(ProtocolError { fault, .. }))) => match fault {
                Fault::TruncatedPrefix { got, want: 4 } => assert_eq!(got, ends_after),
                Fault::TruncatedPayload { got, want: 5 } => assert_eq!(got + 4, ends_after as u64),
                _ => panic!("{fault:?} after {ends_after} bytes"),
            },
            (_, other) => panic!("{other:?} after {ends_after} bytes"),
        }
    }
}

#[test]
fn an_interrupted_read_is_tried_again() {
    let messages = [b"hello".to_vec()];
    let bytes = frames(Layout::U32BE, &messages);
    let steps = [Step::Fail(io::ErrorKind::Interrupted), Step::Give(1)].repeat(bytes.len());
    let read = read_dropping(Pieces::new(&bytes, steps, Tail::End), Layout::U32BE, By::Read);
    assert_eq!(read, messages);
}

#[test]
fn a_reader_knows_whether_it_is_inside_a_message() {
    let bytes = frames(Layout::U32BE, &[b"hello".to_vec()]);
    for given in 0..=bytes.len() {
        let steps = [Step::Give(given), Step::Pend];
        let mut reader = FrameReader::new(Pieces::new(&bytes, steps, Tail::End));
        assert!(!reader.in_message());
        let complete = block_on(poll_once(reader.read())).is_some();
        assert_eq!(complete, given == bytes.len());
        assert_eq!(reader.in_message(), given > 0 && !complete, "after {given} bytes");
    }
}

#[test]
fn a_large_message_in_small_pieces_takes_linear_work() {
    let len = 64 * MIB;
    let input = Counted { prefix: [4, 0, 0, 0].to_vec(), left: len, ..Counted::default() };
    let mut reader = FrameReader::new(input).max_message(len).unwrap();
    let message = block_on(reader.read()).unwrap().unwrap();
    assert_eq!(message.len(), len);
    assert!(message.iter().all(|&byte| byte == 7));
    let input = reader.get_ref();
    assert!(input.reads <= len / KIB + 1, "{} reads", input.reads);
    // A buffer that moves takes all that it holds along; one that doubles moves 16 times. Near the
    // end of each step, up to 64 pieces go through a read buffer instead.
    assert!(input.moves <= 16 * 64 + 64, "{} moves", input.moves);
}

// Writing.

#[test]
fn a_message_that_is_too_long_leaves_no_trace() {
    for layout in ["u8", "u16le", "u32be"].map(|name| name.parse::<Layout>().unwrap()) {
        let limit = layout.max_payload().min(100_000);
        let mut writer =
            FrameWriter::with_layout(Output::new(usize::MAX), layout).max_message(limit).unwrap();
        block_on(writer.feed(b"before")).unwrap();
        let queued = writer.queued();
        let too_long = vec![0; limit + 1];
        for result in [block_on(writer.feed(&too_long)), block_on(writer.send(&too_long))] {
            let Err(WriteError::Encode(EncodeError::TooLong(error))) = result else {
                panic!("{layout}: {result:?}")
            };
            assert_eq!((error.length, error.limit), (limit + 1, limit));
        }
        let as_sink = block_on(SinkExt::<&[u8]>::feed(&mut writer, &too_long));
        assert!(matches!(as_sink, Err(WriteError::Encode(_))));
        assert_eq!((writer.queued(), writer.get_ref().writes), (queued, 0), "{layout}");
        block_on(writer.send(b"after")).unwrap();
        let expected = frames(layout, &[b"before".to_vec(), b"after".to_vec()]);
        assert_eq!(writer.into_inner().taken, expected);
    }
}

#[test]
fn a_small_frame_is_one_write() {
    let mut writer = FrameWriter::new(Output::new(usize::MAX));
    block_on(writer.send(b"hello")).unwrap();
    assert_eq!((writer.get_ref().writes, writer.get_ref().flushes), (1, 1));
    block_on(writer.send(b"")).unwrap();
    assert_eq!(writer.get_ref().writes, 2);
    for _ in 0..1000 {
        block_on(writer.feed(b"together")).unwrap();
    }
    assert_eq!(writer.get_ref().writes, 2, "a feed does not write");
    block_on(writer.flush()).unwrap();
    assert_eq!(writer.get_ref().writes, 3);
    assert_eq!(writer.queued(), 0);
}

#[test]
fn a_large_frame_is_one_write_too() {
    let mut writer = FrameWriter::new(Output::new(usize::MAX));
    block_on(writer.feed(b"small")).unwrap();
    block_on(writer.send(&vec![7; MIB])).unwrap();
    assert_eq!(writer.get_ref().writes, 1);
    assert_eq!(
        writer.into_inner().taken,
        frames(Layout::U32BE, &[b"small".to_vec(), vec![7; MIB]])
    );
}

#[test]
fn an_output_that_takes_a_byte_a_call_and_pauses_gets_everything() {
    let mut random = fastrand::Rng::with_seed(5);
    let messages = [3, 0, 40 * KIB, 1, 70 * KIB].map(|len| noise(&mut random, len)).to_vec();
    for per_call in [1, 2, 5, 1000] {
        let output = Output { per_call, pauses: true, ..Output::new(usize::MAX) };
        let mut writer = FrameWriter::new(output);
        for message in &messages {
            block_on(writer.send(message)).unwrap();
        }
        block_on(writer.close()).unwrap();
        assert!(writer.get_ref().closed);
        assert!(writer.into_inner().taken == frames(Layout::U32BE, &messages), "{per_call}");
    }
}

#[test]
fn an_output_that_takes_nothing_is_an_error_and_stays_one() {
    for (message, room) in [(vec![1; 5], 0), (vec![2; 5], 3), (vec![3; 50 * KIB], KIB)] {
        let output = Output { when_full: WhenFull::Zero, ..Output::new(room) };
        let mut writer = FrameWriter::new(output);
        for _ in 0..3 {
            let result = block_on(writer.send(&message));
            let Err(WriteError::Io(error)) = result else { panic!("{result:?}") };
            assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        }
        let writes = writer.get_ref().writes;
        assert!(matches!(block_on(writer.feed(b"more")), Err(WriteError::Io(_))));
        assert!(matches!(block_on(writer.flush()), Err(WriteError::Io(_))));
        let as_sink = block_on(SinkExt::<&[u8]>::send(&mut writer, b"more"));
        assert!(matches!(as_sink, Err(WriteError::Io(_))));
        assert_eq!(writer.get_ref().writes, writes, "a failed stream is left alone");
        assert_eq!(writer.get_ref().taken.len(), room);
    }
}

#[test]
fn an_output_that_fails_stays_failed_with_the_same_error() {
    let output = Output { when_full: WhenFull::Fail, ..Output::new(2) };
    let mut writer = FrameWriter::new(output);
    for _ in 0..3 {
        let Err(WriteError::Io(error)) = block_on(writer.send(b"hello")) else { panic!() };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // Should it take bytes again, they would be out of step.
        writer.get_mut().room = usize::MAX;
    }
    assert_eq!(writer.get_ref().taken.len(), 2);
}

#[test]
fn a_peer_that_never_reads_makes_feed_wait_and_the_queue_stays_bounded() {
    for len in [1, 100, 10 * KIB, 100 * KIB] {
        let message = vec![7; len];
        let mut writer = FrameWriter::new(Output::new(1000));
        let fed = feed_until_stuck(&mut writer, &message);
        assert!(writer.queued() < 64 * KIB + 4 + len, "{} bytes queued", writer.queued());
        // However often somebody tries again, nothing is added.
        let queued = writer.queued();
        for _ in 0..100 {
            assert!(block_on(poll_once(writer.feed(&message))).is_none());
            let mut as_sink = SinkExt::<&[u8]>::feed(&mut writer, &message);
            assert!(block_on(poll_once(Pin::new(&mut as_sink))).is_none());
        }
        assert_eq!(writer.queued(), queued);
        // Once the peer reads, everything that was accepted arrives, and nothing else.
        writer.get_mut().room = usize::MAX;
        block_on(writer.flush()).unwrap();
        assert!(writer.into_inner().taken == frames(Layout::U32BE, &vec![message; fed]));
    }
}

#[test]
fn a_send_that_is_dropped_anywhere_leaves_the_stream_in_step() {
    let (before, after) = (b"before".to_vec(), b"after".to_vec());
    for len in [0, 5, 20, 40 * KIB] {
        let message = vec![b'm'; len];
        let whole = frames(Layout::U32BE, &[before.clone(), message.clone()]).len();
        // Every place in the small frames; in a large one, the places around its prefix and its end.
        let places = (0..=whole).filter(|place| *place < 50 || place + 50 > whole);
        for place in places {
            let mut writer = FrameWriter::new(Output::new(place));
            block_on(writer.feed(&before)).unwrap();
            let sent = block_on(poll_once(writer.send(&message)));
            assert_eq!(sent.is_some(), place == whole, "{len} {place}");
            writer.get_mut().room = usize::MAX;
            block_on(writer.send(&after)).unwrap();
            let read = read_all(&writer.into_inner().taken, Layout::U32BE);
            assert_eq!(read, [&before, &message, &after].map(Vec::clone), "{len} {place}");
        }
    }
}

#[test]
fn a_feed_or_send_that_is_dropped_while_it_waits_has_not_queued_its_message() {
    let block = vec![b'b'; 20 * KIB];
    for len in [0, 5, 40 * KIB] {
        let dropped = vec![b'd'; len];
        for room in [0, 3, 30 * KIB] {
            let mut writer = FrameWriter::new(Output::new(room));
            let fed = feed_until_stuck(&mut writer, &block);
            assert!(block_on(poll_once(writer.feed(&dropped))).is_none());
            assert!(block_on(poll_once(writer.send(&dropped))).is_none());
            writer.get_mut().room = usize::MAX;
            block_on(writer.send(b"end")).unwrap();
            let mut expected = vec![block.clone(); fed];
            expected.push(b"end".to_vec());
            assert!(read_all(&writer.into_inner().taken, Layout::U32BE) == expected);
        }
    }
}

#[test]
fn sends_that_are_dropped_at_random_leave_every_message_whole_or_out() {
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..300 {
        let mut writer = FrameWriter::new(Output::new(0));
        let mut attempts = Vec::new();
        for number in 0_u32..40 {
            let len = if random.u8(..) < 30 {
                random.usize(30 * KIB..90 * KIB)
            } else {
                random.usize(0..3 * KIB)
            };
            let mut message = number.to_be_bytes().to_vec();
            message.resize(4 + len, b'r');
            if random.bool() {
                writer.get_mut().room += random.usize(0..50 * KIB);
            }
            let done = block_on(poll_once(writer.send(&message))).is_some();
            attempts.push((message, done));
        }
        writer.get_mut().room = usize::MAX;
        block_on(writer.flush()).unwrap();
        let read = read_all(&writer.into_inner().taken, Layout::U32BE);
        // In order, each at most once, and those that were done for certain.
        let mut read = read.into_iter().peekable();
        for (message, done) in attempts {
            let came = read.next_if_eq(&message).is_some();
            assert!(came || !done, "a message that was sent is missing");
        }
        assert!(read.next().is_none(), "something came that nobody sent");
    }
}

// As a stream and as a sink.

#[test]
fn a_writer_is_a_sink_for_anything_that_can_be_seen_as_bytes() {
    block_on(async {
        let mut writer = FrameWriter::new(Vec::new());
        writer.send_all(&mut stream::iter(["hello", ""].map(Ok))).await.unwrap();
        writer.send_all(&mut stream::iter([vec![1, 2], vec![3; 100 * KIB]].map(Ok))).await.unwrap();
        SinkExt::<&[u8]>::close(&mut writer).await.unwrap();
        let messages = [b"hello".to_vec(), vec![], vec![1, 2], vec![3; 100 * KIB]];
        assert!(writer.into_inner() == frames(Layout::U32BE, &messages));
    });
}

#[test]
fn a_reader_can_be_forwarded_into_a_writer_of_another_layout() {
    let mut random = fastrand::Rng::with_seed(7);
    let messages: Vec<_> = (0..200).map(|len| noise(&mut random, len * 7)).collect();
    let bytes = frames(Layout::U32BE, &messages);
    let steps = random_pieces(&mut random, bytes.len());
    let reader = FrameReader::new(Pieces::new(&bytes, steps, Tail::End));
    let layout: Layout = "varint".parse().unwrap();
    let output = Output { per_call: 100, pauses: true, ..Output::new(usize::MAX) };
    let mut writer = FrameWriter::with_layout(output, layout);
    let messages_only = reader.map(|message| Ok(message.unwrap()));
    block_on(messages_only.forward(&mut writer)).unwrap();
    assert!(writer.get_ref().closed);
    assert!(writer.into_inner().taken == frames(layout, &messages));
}

// Other implementations.

// Both.

#[test]
fn one_stream_that_cannot_be_cloned_carries_messages_in_both_directions() {
    let mut random = fastrand::Rng::with_seed(9);
    for layout in layouts() {
        let longest = layout.max_payload().min(200 * KIB);
        let messages: Vec<Vec<u8>> = (0..20)
            .map(|_| {
                let longest = longest >> random.u32(0..12);
                let len = random.usize(0..=longest);
                noise(&mut random, len)
            })
            .collect();
        let (near, far) = pipe(random.usize(1..100_000));
        let (mut near, mut far) = (Framed::new(near, layout), Framed::new(far, layout));
        let sending = async {
            for message in &messages {
                near.send(message).await.unwrap();
                assert_eq!(near.queued(), 0);
                assert_eq!(near.read().await.unwrap().as_ref(), Some(message));
            }
            near.close().await.unwrap();
            assert_eq!(near.read().await.unwrap(), None);
        };
        let echoing = async {
            // Everything that it has to wait for is dropped and begun again.
            let mut echoed = 0;
            loop {
                let Some(read) = poll_once(far.read_batch()).await else {
                    futures_lite::future::yield_now().await;
                    continue;
                };
                let Some(payloads) = read.unwrap() else { break };
                for payload in payloads.iter() {
                    far.feed(payload).await.unwrap();
                    echoed += 1;
                }
                while poll_once(far.flush()).await.is_none() {
                    futures_lite::future::yield_now().await;
                }
            }
            far.close().await.unwrap();
            assert_eq!(echoed, messages.len());
        };
        block_on(zip(sending, echoing));
    }
}

#[test]
fn what_is_read_ahead_and_queued_stays_with_the_halves() {
    let steps = [Step::Give(7), Step::Pend];
    let shared = Arc::new(Mutex::new((Pieces::new(b"\x02ab\x05hello", steps, Tail::End), vec![])));
    let mut framed = Framed::new(SharedStream(shared.clone()), "u8".parse().unwrap());
    assert_eq!(block_on(framed.read()).unwrap().unwrap(), b"ab");
    assert!(block_on(poll_once(framed.read())).is_none());
    block_on(framed.feed(b"first")).unwrap();
    let (mut reader, mut writer) = framed.split();
    assert_eq!(block_on(reader.read()).unwrap().unwrap(), b"hello");
    block_on(writer.send(b"second")).unwrap();
    assert_eq!(shared.lock().unwrap().1, b"\x05first\x06second");
}

#[test]
fn what_a_writer_writes_is_what_tokio_reads_and_writes() {
    let mut random = fastrand::Rng::with_seed(8);
    let mut compared = 0;
    for layout in Layout::binary() {
        let Some(mut codec) = tokio_codec(layout) else { continue };
        compared += 1;
        let mut longest = layout.max_payload().min(70_000);
        if layout.to_string().ends_with("+self") {
            // Their reader compares the number in the field, not the payload, with what is left of
            // the field's range without a prefix: the last few lengths they write, they do not read.
            longest -= layout.encode(0).unwrap().len();
        }
        let lengths = [0, 1, 5, 100, longest - 1, longest, longest / 2].into_iter();
        let messages: Vec<_> = lengths.map(|len| noise(&mut random, len)).collect();

        let mut ours = BytesMut::from(&frames(layout, &messages)[..]);
        let mut theirs = BytesMut::new();
        for message in &messages {
            codec.encode(Bytes::copy_from_slice(message), &mut theirs).unwrap();
        }
        assert!(ours == theirs, "{layout}");

        for message in &messages {
            let decoded = codec.decode(&mut ours).unwrap();
            assert!(decoded.as_deref() == Some(message), "{layout}");
        }
        assert!(codec.decode_eof(&mut ours).unwrap().is_none(), "{layout}");
        assert!(read_all(&theirs, layout) == messages, "{layout}");
    }
    assert_eq!(compared, 18, "all but varint");
}

/// Returns tokio's codec for a layout, if it has one.
fn tokio_codec(layout: Layout) -> Option<LengthDelimitedCodec> {
    let name = layout.to_string();
    let (field, counts_itself) =
        name.strip_suffix("+self").map_or((&name[..], false), |field| (field, true));
    let bits = field.strip_prefix('u')?;
    let little = bits.ends_with("le");
    let bits: usize = bits.trim_end_matches(['b', 'l', 'e']).parse().unwrap();
    let width = bits / 8;
    let mut builder = LengthDelimitedCodec::builder();
    builder.length_field_length(width);
    if little {
        builder.little_endian();
    } else {
        builder.big_endian();
    }
    if counts_itself {
        builder.length_adjustment(-isize::try_from(width).unwrap());
    }
    Some(builder.new_codec())
}

// Helpers.

#[derive(Clone, Copy, Debug)]
enum By {
    Read,
    Batch,
    /// One after the other, also within a message.
    Both,
}

const WAYS: [By; 3] = [By::Read, By::Batch, By::Both];

/// Reads all messages; every read that has to wait is dropped.
fn read_dropping(pieces: Pieces<'_>, layout: Layout, by: By) -> Vec<Vec<u8>> {
    let mut reader = FrameReader::with_layout(pieces, layout);
    let mut messages = Vec::new();
    for turn in 0_usize.. {
        let batch = match by {
            By::Read => false,
            By::Batch => true,
            By::Both => turn % 2 == 1,
        };
        if batch {
            match block_on(poll_once(reader.read_batch())) {
                None => {}
                Some(Ok(Some(batch))) => messages.extend(batch.iter().map(<[u8]>::to_vec)),
                Some(Ok(None)) => break,
                Some(Err(error)) => panic!("{error}"),
            }
        } else {
            match block_on(poll_once(reader.read())) {
                None => {}
                Some(Ok(Some(message))) => messages.push(message),
                Some(Ok(None)) => break,
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }
    messages
}

/// Feeds the message again and again until the output has no room and the queue takes no more;
/// returns how often it was accepted.
fn feed_until_stuck(writer: &mut FrameWriter<Output>, message: &[u8]) -> usize {
    let mut fed = 0;
    loop {
        let had_room = writer.get_ref().room > 0;
        match block_on(poll_once(writer.feed(message))) {
            Some(result) => {
                result.unwrap();
                fed += 1;
            }
            // What fitted into the last room made room in the queue.
            None if had_room => {}
            None => return fed,
        }
    }
}

fn read_all(bytes: &[u8], layout: Layout) -> Vec<Vec<u8>> {
    read_dropping(Pieces::new(bytes, [], Tail::End), layout, By::Read)
}

fn frames(layout: Layout, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        append_frame(&mut bytes, layout, layout.max_payload(), message).unwrap();
    }
    bytes
}

fn noise(random: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// An input of many sevens that gives 1 KiB a read, and watches where its bytes are put.
#[derive(Default)]
struct Counted {
    prefix: Vec<u8>,
    left: usize,
    reads: usize,
    /// The address at which the next bytes would follow the last ones.
    next: usize,
    moves: usize,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.reads += 1;
        if !self.prefix.is_empty() {
            let prefix = std::mem::take(&mut self.prefix);
            buf[..prefix.len()].copy_from_slice(&prefix);
            return Poll::Ready(Ok(prefix.len()));
        }
        let given = buf.len().min(KIB).min(self.left);
        buf[..given].fill(7);
        self.left -= given;
        if buf.as_ptr().addr() != self.next {
            self.moves += 1;
        }
        self.next = buf.as_ptr().addr() + given;
        Poll::Ready(Ok(given))
    }
}

/// An output that takes so much, and so much a call.
#[derive(Debug)]
struct Output {
    taken: Vec<u8>,
    /// How many bytes it still takes.
    room: usize,
    per_call: usize,
    /// Whether it has to be asked twice each time.
    pauses: bool,
    asked: bool,
    when_full: WhenFull,
    writes: usize,
    flushes: usize,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum WhenFull {
    Wait,
    Zero,
    Fail,
}

impl Output {
    fn new(room: usize) -> Output {
        Output {
            taken: Vec::new(),
            room,
            per_call: usize::MAX,
            pauses: false,
            asked: false,
            when_full: WhenFull::Wait,
            writes: 0,
            flushes: 0,
            closed: false,
        }
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        self.asked = !self.asked;
        if self.pauses && self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.room == 0 {
            return match self.when_full {
                WhenFull::Wait => Poll::Pending,
                WhenFull::Zero => Poll::Ready(Ok(0)),
                WhenFull::Fail => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let mut given = 0;
        for buf in bufs {
            let now = buf.len().min(self.room).min(self.per_call - given);
            self.taken.extend_from_slice(&buf[..now]);
            self.room -= now;
            given += now;
        }
        assert!(given > 0, "a write of nothing");
        Poll::Ready(Ok(given))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

/// Clones of it are the same stream.
#[derive(Clone)]
struct SharedStream(Arc<Mutex<(Pieces<'static>, Vec<u8>)>>);

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().unwrap().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().unwrap().1).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

//! Reader and writer against tokio-util's `LengthDelimitedCodec`, in memory: what the code itself
//! costs, without the kernel.
//!
//! What is written goes through a copy of at most 64 KiB at a time, which is what a socket does with
//! it; without that, a writer that hands large payloads on where they lie would look free.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use framelet::wire::{MAX_PAYLOAD, append_frame};
use framelet::{FrameReader, FrameWriter, Layout};
use futures_lite::future::block_on;
use futures_util::{SinkExt, StreamExt};
use tokio_util::bytes::Bytes;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

const SIZES: [usize; 3] = [64, 1024, 1024 * 1024];

/// How much is read or written in one go, in bytes of payload.
const TOTAL: usize = 8 * 1024 * 1024;

/// How much a read or a write moves at most: the read buffer of framelet, and for tokio the size that
/// its peer in `benches/peers` can be given.
const BUFFER: usize = 64 * 1024;

fn main() {
    divan::main();
}

/// Runs `work` for as many messages of `size` as make up [`TOTAL`].
fn measure(bencher: Bencher, size: usize, work: impl Fn(usize) -> usize + Sync) {
    let messages = TOTAL / size;
    bencher
        .counter(BytesCount::new(TOTAL))
        .counter(ItemsCount::new(messages))
        .bench(|| assert_eq!(work(messages), messages));
}

fn frames(size: usize) -> Vec<u8> {
    frames_in(Layout::U32BE, size)
}

fn frames_in(layout: Layout, size: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..TOTAL / size {
        append_frame(&mut frames, layout, MAX_PAYLOAD, &vec![b'x'; size])
            .expect("it is short enough");
    }
    frames
}

/// Takes everything, by copying it.
struct Socket {
    kernel: Box<[u8]>,
}

impl Socket {
    fn new() -> Socket {
        Socket { kernel: vec![0; BUFFER].into() }
    }

    fn take(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(BUFFER);
        self.kernel[..taken].copy_from_slice(&bytes[..taken]);
        black_box(&self.kernel);
        Poll::Ready(Ok(taken))
    }
}

impl futures_lite::AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().take(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().take(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A layout of each kind.
const LAYOUTS: [&str; 8] = [
    "u32be",
    "u16le+self",
    "varint",
    "h1:u32be+self",
    "h3:u32be:data:xce",
    "hex4+self",
    "dec/20",
    "lsp",
];

#[divan::bench_group]
mod read {
    use super::*;

    #[divan::bench(args = LAYOUTS)]
    fn layouts(bencher: Bencher, layout: &str) {
        let layout = layout.parse().expect("it is a layout");
        let frames = frames_in(layout, SIZES[0]);
        measure(bencher, SIZES[0], |_| {
            block_on(async {
                let mut reader = FrameReader::with_layout(&frames[..], layout);
                let mut messages = 0;
                while let Some(payloads) = reader.read_batch().await.expect("good frames") {
                    messages += payloads.iter().map(black_box).count();
                }
                messages
            })
        });
    }

    #[divan::bench(args = SIZES)]
    fn framelet_batch(bencher: Bencher, size: usize) {
        let frames = frames(size);
        measure(bencher, size, |_| {
            block_on(async {
                let mut reader = FrameReader::new(&frames[..]);
                let mut messages = 0;
                while let Some(payloads) = reader.read_batch().await.expect("good frames") {
                    messages += payloads.iter().map(black_box).count();
                }
                messages
            })
        });
    }

    #[divan::bench(args = SIZES)]
    fn framelet_single(bencher: Bencher, size: usize) {
        let frames = frames(size);
        measure(bencher, size, |_| {
            block_on(async {
                let mut reader = FrameReader::new(&frames[..]);
                let mut messages = 0;
                while let Some(payload) = reader.read().await.expect("good frames") {
                    black_box(payload);
                    messages += 1;
                }
                messages
            })
        });
    }

    #[divan::bench(args = SIZES)]
    fn tokio_util(bencher: Bencher, size: usize) {
        let frames = frames(size);
        measure(bencher, size, |_| {
            block_on(async {
                let codec = LengthDelimitedCodec::new();
                let mut reader = FramedRead::with_capacity(&frames[..], codec, BUFFER);
                let mut messages = 0;
                while let Some(payload) = reader.next().await {
                    black_box(payload.expect("good frames"));
                    messages += 1;
                }
                messages
            })
        });
    }
}

#[divan::bench_group]
mod write {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn framelet(bencher: Bencher, size: usize) {
        let payload = vec![b'x'; size];
        measure(bencher, size, |messages| {
            block_on(async {
                let mut writer = FrameWriter::new(Socket::new());
                for _ in 0..messages {
                    writer.feed(black_box(&payload)).await.expect("it takes everything");
                }
                writer.flush().await.expect("it takes everything");
            });
            messages
        });
    }

    #[divan::bench(args = SIZES)]
    fn tokio_util(bencher: Bencher, size: usize) {
        let payload = Bytes::from(vec![b'x'; size]);
        measure(bencher, size, |messages| {
            block_on(async {
                let mut writer = FramedWrite::new(Socket::new(), LengthDelimitedCodec::new());
                writer.set_backpressure_boundary(BUFFER);
                for _ in 0..messages {
                    writer.feed(black_box(payload.clone())).await.expect("it takes everything");
                }
                SinkExt::<Bytes>::flush(&mut writer).await.expect("it takes everything");
            });
            messages
        });
    }
}

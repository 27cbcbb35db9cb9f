//! The two hot paths, for counting their instructions: `instructions read|write MESSAGES`.
//!
//! `scripts/instructions.sh` runs it twice and takes the difference, so everything outside the two
//! functions below costs the same for any number of messages.

use std::error::Error;
use std::hint::black_box;

use framelet::wire::{MAX_PAYLOAD, append_frame};
use framelet::{FrameReader, FrameWriter, Layout};
use futures_lite::future::block_on;
use futures_lite::io::sink;

const PAYLOAD: [u8; 64] = [b'x'; 64];
const MAX_MESSAGES: usize = 200_000;

/// How many messages are written between two flushes: about a read's worth of replies.
const BATCH: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, messages] = &arguments[..] else {
        return Err("usage: instructions read|write MESSAGES".into());
    };
    let messages: usize = messages.parse()?;
    if messages > MAX_MESSAGES {
        return Err(format!("at most {MAX_MESSAGES} messages").into());
    }
    let mut frames = Vec::new();
    for _ in 0..MAX_MESSAGES {
        append_frame(&mut frames, Layout::U32BE, MAX_PAYLOAD, &PAYLOAD)?;
    }
    let frames = &frames[..frames.len() / MAX_MESSAGES * messages];
    let done = match path.as_str() {
        "read" => block_on(read(frames))?,
        "write" => block_on(write(messages))?,
        other => return Err(format!("no such path: {other}").into()),
    };
    if done != messages {
        return Err(format!("{done} messages instead of {messages}").into());
    }
    Ok(())
}

async fn read(frames: &[u8]) -> Result<usize, Box<dyn Error>> {
    let mut reader = FrameReader::new(frames);
    let mut messages = 0;
    while let Some(payloads) = reader.read_batch().await? {
        for payload in payloads.iter() {
            black_box(payload);
            messages += 1;
        }
    }
    Ok(messages)
}

async fn write(messages: usize) -> Result<usize, Box<dyn Error>> {
    let mut writer = FrameWriter::new(sink());
    for number in 1..=messages {
        writer.feed(black_box(&PAYLOAD)).await?;
        if number % BATCH == 0 {
            writer.flush().await?;
        }
    }
    writer.flush().await?;
    Ok(messages)
}

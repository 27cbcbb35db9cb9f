//! Input files, and the frames of their messages.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use framelet::Layout;
use framelet::format::{BlockingFile, Composer, InputError, InputFault, InputFormat};
use framelet::wire::{EncodeError, TooLong, append_frame_with_header};

use super::exit_code::Exit;
use super::failure::{Failure, plain};
use super::flags;
use super::values::DefaultHeader;

/// Opens the named file, or standard input.
pub(crate) fn open_input(file: Option<&str>) -> Result<BlockingFile, Failure> {
    let opened = match file {
        None => BlockingFile::stdin(),
        Some(path) => File::open(path).map(BlockingFile::from),
    };
    opened.map_err(|error| cannot_read(file, &error))
}

pub(crate) fn cannot_read(file: Option<&str>, error: &io::Error) -> Failure {
    let name = file.unwrap_or("standard input");
    Failure::new(Exit::Usage, format!("cannot read {name}: {}", plain(error)))
}

/// Composed messages and their number.
pub(crate) struct Chunk {
    /// Whole frames, ready to be sent or written; or payloads, for a client that encodes the frames itself.
    pub(crate) bytes: Vec<u8>,
    framed: bool,
    /// Where each frame or payload ends, if that is needed.
    ends: Option<Vec<usize>>,
    pub(crate) messages: u64,
    /// How many bytes of the input had been read by then, if that is tracked.
    pub(crate) read: u64,
    /// Closed when the chunk is dropped, for a composer that waits for that.
    #[allow(dead_code, reason = "dropping it is the answer")]
    waited_for: Option<SyncSender<()>>,
}

impl Chunk {
    /// Returns an empty chunk of frames, with room for one read of short lines: 64 KiB of text and half as
    /// much for the prefixes.
    pub(crate) fn of_frames() -> Chunk {
        let bytes = Vec::with_capacity(96 * 1024);
        Chunk { bytes, framed: true, ends: None, messages: 0, read: 0, waited_for: None }
    }

    /// Returns an empty chunk of frames that can be told apart.
    pub(crate) fn of_single_frames() -> Chunk {
        Chunk { ends: Some(Vec::new()), ..Chunk::of_frames() }
    }

    pub(crate) fn of_payloads() -> Chunk {
        Chunk { framed: false, ..Chunk::of_single_frames() }
    }

    pub(crate) fn append(
        &mut self,
        layout: Layout,
        limit: usize,
        header: &[u8],
        message: &[u8],
    ) -> Result<(), EncodeError> {
        match self.framed {
            true => append_frame_with_header(&mut self.bytes, layout, limit, header, message)?,
            // The layouts of acknowledged messages have none.
            false if !header.is_empty() => {
                return Err(EncodeError::Header { length: header.len(), layout });
            }
            false if message.len() > limit => {
                return Err(TooLong { length: message.len(), limit, field: None }.into());
            }
            false => self.bytes.extend_from_slice(message),
        }
        if let Some(ends) = &mut self.ends {
            ends.push(self.bytes.len());
        }
        self.messages += 1;
        Ok(())
    }

    /// Returns the payloads or the single frames.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().flatten().map(move |&end| &self.bytes[mem::replace(&mut start, end)..end])
    }

    /// Returns a channel that is closed when the chunk is dropped.
    pub(crate) fn dropped(&mut self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(0);
        self.waited_for = Some(sender);
        receiver
    }
}

/// Composes frames from input.
pub(crate) struct Framer {
    composer: Composer<BlockingFile>,
    file: Option<String>,
    layout: Layout,
    limit: usize,
    /// The header of messages that come without one.
    default_header: DefaultHeader,
    /// That of the current message.
    header: Vec<u8>,
}

impl Framer {
    pub(crate) fn new(
        file: Option<String>,
        format: InputFormat,
        layout: Layout,
        limit: usize,
        default_header: DefaultHeader,
    ) -> Result<Framer, Failure> {
        let input = open_input(file.as_deref())?;
        let composer = Composer::new(input, format.for_layout(layout), limit);
        Ok(Framer { composer, file, layout, limit, default_header, header: Vec::new() })
    }

    /// Reads once and appends the complete messages, at most `most`, to `chunk`. Returns `false` at the end
    /// of the input.
    pub(crate) fn read(&mut self, chunk: &mut Chunk, most: u64) -> Result<bool, Failure> {
        let Framer { composer, layout, limit, default_header, header, .. } = self;
        let read = composer.read_with_headers(|of_message, message| {
            if chunk.messages >= most {
                return Ok(());
            }
            header.clear();
            of_message.append_to(header);
            let header = if header.is_empty() { &default_header.0 } else { &*header };
            chunk.append(*layout, *limit, header, message)
        });
        read.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: InputError) -> Failure {
        let record = error.record;
        match error.fault {
            InputFault::Io(error) => cannot_read(self.file.as_deref(), &error),
            // Raising the limit would not help.
            InputFault::TooLong { limit } if limit == self.layout.max_payload() => {
                let layout = self.layout;
                let what = format!("message is over the {limit} bytes that {layout} can say");
                let error = InputError { record, fault: InputFault::NotInFormat(what) };
                Failure::new(Exit::Protocol, error.to_string())
            }
            InputFault::TooLong { .. } => {
                Failure::new(Exit::Protocol, format!("{error} (--max-message)"))
            }
            InputFault::Encode(ref fault) => {
                let (exit, hint) = (Exit::of_encoding(fault), flags::of_encoding(fault));
                Failure::new(exit, format!("{error}{hint}"))
            }
            InputFault::Frame { error: ref frame, .. } => {
                let mended_by = flags::of_length(frame);
                Failure::new(Exit::Protocol, format!("{error}{mended_by}"))
            }
            _ => Failure::new(Exit::Usage, error.to_string()),
        }
    }
}

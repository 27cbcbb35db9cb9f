//! The sender's id, from the command line, the environment or a file; and what the file stores about the
//! input.
//!
//! ```text
//!   00112233445566778899aabbccddeeff               the id
//!   committed 7 input 9 checksum 9ae16a3b2f90404f  what is committed, once something is
//! ```
//!
//! In this example the server has 7 messages of the sender, and they are the first 9 of the input: it has
//! lost two of them (`--renumber`). The checksum covers all 9, so a different input is detected before any
//! of it is sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::log::warn;
use framelet::client::AckProgress;
use framelet::wire::SenderId;
use smol::Timer;

use super::super::exit_code::Exit;
use super::super::failure::{Failure, missing_directory, plain, quoted};
use super::options::Send;

/// The environment variable that may hold the id.
const VARIABLE: &str = "FRAMELET_SENDER";

/// How often a changing file is written. Later changes are lost if the client is killed, but the server
/// still knows the count.
const EVERY: Duration = Duration::from_secs(3);

/// The sender.
pub(super) enum Identity {
    Random,
    Option(SenderId),
    Environment(SenderId),
    File(SenderFile),
}

/// A file with an id, as it was at the start.
pub(super) struct SenderFile {
    path: PathBuf,
    id: SenderId,
    noted: Option<Noted>,
    is_new: bool,
}

/// The stored state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// How many messages of the sender the server has.
    pub(super) committed: u64,
    /// How many messages of the input these are.
    pub(super) input: u64,
    /// The checksum of these messages.
    checksum: u64,
}

impl Identity {
    /// Determines the sender.
    pub(super) fn of(send: &Send) -> Result<Identity, Failure> {
        if let Some(path) = &send.sender_file {
            return SenderFile::open(Path::new(path)).map(Identity::File);
        }
        if let Some(id) = send.sender {
            return Ok(Identity::Option(id));
        }
        match variable() {
            None => Ok(Identity::Random),
            Some(text) => match text.parse() {
                Ok(id) => Ok(Identity::Environment(id)),
                Err(error) => Err(Failure::new(Exit::Usage, format!("{VARIABLE}: {error}"))),
            },
        }
    }

    /// Returns whether an earlier run may have used this id.
    pub(super) fn is_given(send: &Send) -> bool {
        send.sender_file.is_some() || send.sender.is_some() || variable().is_some()
    }

    /// Returns the id, unless a new one is to be generated.
    pub(super) fn id(&self) -> Option<SenderId> {
        match self {
            Identity::Random => None,
            Identity::Option(id) | Identity::Environment(id) => Some(*id),
            Identity::File(file) => Some(file.id),
        }
    }

    /// Returns the state that an earlier run left.
    pub(super) fn noted(&self) -> Option<Noted> {
        match self {
            Identity::File(file) => file.noted,
            _ => None,
        }
    }

    /// Returns whether no earlier run can have used this id.
    pub(super) fn is_new(&self) -> bool {
        match self {
            Identity::Random => true,
            Identity::Option(_) | Identity::Environment(_) => false,
            Identity::File(file) => file.is_new,
        }
    }

    /// Returns where the id comes from, in the user's terms.
    pub(super) fn option(&self) -> &'static str {
        match self {
            Identity::Random | Identity::Option(_) => "--sender",
            Identity::Environment(_) => VARIABLE,
            Identity::File(_) => "--sender-file",
        }
    }

    /// Returns the options that make another run use the same sender. Only a random id is shown, since
    /// nobody else knows it yet.
    pub(super) fn options(&self, id: SenderId) -> String {
        match self {
            Identity::Random => format!("--ack --sender {id}"),
            Identity::Option(_) => "--ack --sender …".into(),
            Identity::Environment(_) => format!("{VARIABLE}=… --ack"),
            Identity::File(file) => format!("--ack --sender-file {}", quoted(&file.path)),
        }
    }
}

fn variable() -> Option<String> {
    std::env::var_os(VARIABLE)
        .map(|text| text.to_string_lossy().into_owned())
        .filter(|text| !text.is_empty())
}

impl SenderFile {
    /// Opens the file. Creates it if it is missing or empty.
    fn open(path: &Path) -> Result<SenderFile, Failure> {
        let failed = |what: &str| {
            Failure::new(Exit::Usage, format!("--sender-file {}: {what}", path.display()))
        };
        let text = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Err(failed("not a regular file")),
            Ok(_) => fs::read_to_string(path).map_err(|error| failed(&plain(&error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&plain(&error))),
        };
        // Resolve links first: the rename below must replace the file, not a link to it.
        let path = fs::canonicalize(path).unwrap_or(path.into());
        if text.is_empty() {
            let id = SenderId::random().map_err(|error| failed(&plain(&error)))?;
            let file = SenderFile { path, id, noted: None, is_new: true };
            file.write(None).map_err(|error| {
                failed(&format!("{}{}", plain(&error), missing_directory(&file.path)))
            })?;
            return Ok(file);
        }
        let (id, noted) = parse(&text).ok_or_else(|| {
            failed("no sender id in it: its first line has 32 lower-case hexadecimal digits")
        })?;
        Ok(SenderFile { path, id, noted, is_new: false })
    }

    /// Rewrites the file atomically.
    fn write(&self, noted: Option<Noted>) -> io::Result<()> {
        let mut text = format!("{}\n", self.id);
        if let Some(Noted { committed, input, checksum }) = noted {
            text += &format!("committed {committed} input {input} checksum {checksum:016x}\n");
        }
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        // Left by a client that was killed, with unknown permissions.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, &self.path)
    }
}

fn parse(text: &str) -> Option<(SenderId, Option<Noted>)> {
    let mut lines = text.lines();
    let id = lines.next()?.trim().parse().ok()?;
    let Some(line) = lines.next() else { return Some((id, None)) };
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["committed", committed, "input", input, "checksum", checksum] = words[..] else {
        return None;
    };
    let (committed, input) = (committed.parse().ok()?, input.parse().ok()?);
    let checksum = u64::from_str_radix(checksum, 16).ok()?;
    (committed <= input).then_some((id, Some(Noted { committed, input, checksum })))
}

/// Keeps the file of a sender up to date while messages are sent.
pub(super) struct Notes<'a> {
    file: &'a SenderFile,
    /// The state that an earlier run left.
    earlier: Option<Noted>,
    /// By how much the numbers of the input exceed those of the client.
    ahead: u64,
    checksums: RefCell<Checksums>,
    written: Cell<Option<Noted>>,
    failed: Cell<bool>,
}

impl<'a> Notes<'a> {
    /// Returns the state for a client that continues from `earlier`.
    pub(super) fn new(identity: &'a Identity, earlier: Option<Noted>) -> Option<Notes<'a>> {
        let Identity::File(file) = identity else { return None };
        let ahead = earlier.map_or(0, |noted| noted.input - noted.committed);
        Some(Notes {
            file,
            earlier,
            ahead,
            checksums: RefCell::new(Checksums::new()),
            written: Cell::new(file.noted),
            failed: Cell::new(false),
        })
    }

    /// Takes a skipped message. Returns `false` if the messages up to here are not those that were
    /// committed.
    pub(super) fn skip(&self, payload: &[u8]) -> bool {
        let mut checksums = self.checksums.borrow_mut();
        checksums.add(payload);
        let at = checksums.messages();
        let found = checksums.of(at);
        self.earlier.is_none_or(|noted| noted.input != at || found == Some(noted.checksum))
    }

    /// Takes a sent message, and the number of committed ones.
    pub(super) fn sent(&self, payload: &[u8], committed: u64) {
        let mut checksums = self.checksums.borrow_mut();
        checksums.add(payload);
        checksums.of(committed.saturating_add(self.ahead));
    }

    /// Writes the file from time to time, forever.
    pub(super) async fn keep<T>(&self, progress: &AckProgress) -> T {
        loop {
            Timer::after(EVERY).await;
            self.write(progress.committed(), progress.lost());
        }
    }

    /// Writes the number of committed messages, some of which the server has lost.
    pub(super) fn write(&self, committed: u64, lost: u64) {
        let input = committed.saturating_add(self.ahead);
        let Some(checksum) = self.checksums.borrow_mut().of(input) else { return };
        let noted = Some(Noted { committed: committed.saturating_sub(lost), input, checksum });
        if input == 0 || noted == self.written.get() {
            return;
        }
        match self.file.write(noted) {
            Ok(()) => self.written.set(noted),
            // Logged once: the file has the id, and the server knows the rest.
            Err(_) if self.failed.replace(true) => {}
            Err(error) => warn!(
                "cannot write the progress to {}: {}; --resume will not notice a different input",
                self.file.path.display(),
                plain(&error)
            ),
        }
    }
}

/// Checksums of the input up to each message that may be the last one committed: 64-bit FNV-1a, which
/// detects mix-ups, not attacks.
struct Checksums {
    /// How many messages are known to be committed, and their checksum.
    committed: (u64, u64),
    /// The checksums after each later message.
    after: VecDeque<u64>,
}

impl Checksums {
    fn new() -> Checksums {
        Checksums { committed: (0, 0xcbf2_9ce4_8422_2325), after: VecDeque::new() }
    }

    /// Returns the number of messages.
    fn messages(&self) -> u64 {
        self.committed.0 + self.after.len() as u64
    }

    fn add(&mut self, payload: &[u8]) {
        let before = self.after.back().copied().unwrap_or(self.committed.1);
        // Includes the length, so that message boundaries matter.
        let bytes = (payload.len() as u64).to_le_bytes().into_iter().chain(payload.iter().copied());
        let next = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.after.push_back(bytes.fold(before, next));
    }

    /// Returns the checksum of the first messages, which are committed, if there are that many. Forgets
    /// everything before.
    fn of(&mut self, committed: u64) -> Option<u64> {
        while self.committed.0 < committed
            && let Some(checksum) = self.after.pop_front()
        {
            self.committed = (self.committed.0 + 1, checksum);
        }
        (self.committed.0 == committed).then_some(self.committed.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(messages: &[&str]) -> u64 {
        let mut checksums = Checksums::new();
        messages.iter().for_each(|message| checksums.add(message.as_bytes()));
        checksums.of(messages.len() as u64).unwrap()
    }

    #[test]
    fn a_checksum_is_that_of_every_message_and_does_not_change_between_versions() {
        assert_eq!(checksum(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(&["a", "b"]), 0x41c8_0da7_2d0a_ec94);
        for other in [&["a", "c"][..], &["c", "b"], &["ab", ""], &["", "ab"], &["ab"], &["b", "a"]]
        {
            assert_ne!(checksum(other), checksum(&["a", "b"]), "{other:?}");
        }
    }

    #[test]
    fn checksums_are_forgotten_up_to_what_is_committed() {
        let mut checksums = Checksums::new();
        assert_eq!(checksums.of(1), None);
        for message in ["a", "b", "c"] {
            checksums.add(message.as_bytes());
        }
        assert_eq!(checksums.of(2), Some(checksum(&["a", "b"])));
        assert_eq!((checksums.messages(), checksums.of(1)), (3, None));
        assert_eq!(checksums.of(3), Some(checksum(&["a", "b", "c"])));
        assert_eq!((checksums.of(4), checksums.after.len()), (None, 0));
    }

    #[test]
    fn what_a_file_says_is_understood_or_refused() {
        let digits = "00112233445566778899aabbccddeeff";
        let id = digits.parse().unwrap();
        let noted = Noted { committed: 7, input: 9, checksum: 0xff };
        let line = "committed 7 input 9 checksum 00000000000000ff";
        assert_eq!(parse(digits), Some((id, None)));
        assert_eq!(parse(&format!("{digits}\n{line}\n")), Some((id, Some(noted))));
        for text in [
            "",
            "\n",
            "0011",
            &format!("{digits}\n\n"),
            &format!("{digits}\ncommitted 7\n"),
            &format!("{digits}\ncommitted 9 input 7 checksum ff\n"),
            &format!("{digits}\n{line} more\n"),
            &format!("{digits}\ncommitted -1 input 7 checksum ff\n"),
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::sync::tests::{COUNTED, Synced, fail, synced};
use super::torn::CHUNK;
use super::*;
use crate::message::tests::{batch, origin};
use crate::wire::frame::append_frame_with_header;
use crate::wire::layout::{Layout, MAX_PAYLOAD};

/// All but `none`.
const FORMATS: [&str; 8] = ["text", "lines", "nul", "hex", "base64", "json", "frames", "raw"];

/// A directory with a file that framelet may write to.
struct Place {
    directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        Place { directory, path }
    }

    fn with(content: &[u8]) -> Place {
        let place = Place::new();
        fs::write(&place.path, content).unwrap();
        place
    }

    fn open(&self, format: &str) -> io::Result<FileSink> {
        FileSink::open(&self.path, format.parse().unwrap(), FileSync::Always)
    }

    /// Opens it and says in what words it is refused.
    #[track_caller]
    fn refused(&self, format: &str) -> String {
        let before = self.files();
        let error = self.open(format).unwrap_err().to_string();
        assert_eq!(self.files(), before, "{format}: {error}");
        error
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn append(&self, bytes: &[u8]) {
        OpenOptions::new().append(true).open(&self.path).unwrap().write_all(bytes).unwrap();
    }

    fn note(&self) -> PathBuf {
        note::beside(&self.path, ".framelet")
    }

    fn torn(&self, number: u32) -> Vec<u8> {
        fs::read(note::beside(&self.path, &format!(".torn-{number}"))).unwrap()
    }

    /// All that is in the directory.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fs::read_dir(self.directory.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect()
    }

    /// Ends the sink as a crash would: without a clean end in the note.
    fn crash(&self, sink: FileSink) {
        let note = fs::read(self.note()).unwrap();
        drop(sink);
        fs::write(self.note(), note).unwrap();
    }
}

fn commit(sink: &mut FileSink, payloads: &[&[u8]]) {
    sink.commit(&[batch(&origin(None), payloads)]).unwrap();
}

/// What the file has, and what was moved aside, once it is opened after a crash that left `torn` behind two
/// messages.
#[track_caller]
fn opened_after_a_crash(format: &str, torn: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let place = Place::new();
    let mut sink = place.open(format).unwrap();
    commit(&mut sink, &[b"one", b"two"]);
    place.crash(sink);
    let whole = place.content();
    place.append(torn);
    drop(place.open(format).unwrap());
    let left = place.content();
    let rest = left.strip_prefix(&*whole).unwrap().to_vec();
    let aside = note::beside(&place.path, ".torn-1");
    let torn = if aside.exists() { fs::read(aside).unwrap() } else { Vec::new() };
    // And once more, in which nothing is to be done.
    drop(place.open(format).unwrap());
    assert_eq!(place.content(), left, "{format}");
    assert!(!note::beside(&place.path, ".torn-2").exists(), "{format}");
    (rest, torn)
}

#[test]
fn what_a_crash_leaves_of_a_message_is_moved_aside_in_each_format() {
    let long = vec![b'x'; 3 * CHUNK];
    let (long_line, long_text) = ([&long[..], b"\n"].concat(), [&long[..], b"\n\n"].concat());
    for (format, whole, torn) in [
        ("lines", &b""[..], &b"thr"[..]),
        ("lines", b"three\n", b"four"),
        ("lines", b"", &long),
        ("lines", &long_line, &long),
        ("hex", b"00ff\n", b"0"),
        ("base64", b"AAAA\n", b"AA"),
        ("json", b"{\"payload\":\"\"}\n", b"{\"tim"),
        ("json", b"", b"{"),
        ("nul", b"three\0", b"four\n"),
        ("frames", b"\0\0\0\x03one\0\0\0\0", b"\0\0\0\x03tw"),
        ("frames", b"\0\0\0\x03one", b"\0\0\0\x01"),
        ("frames", b"\0\0\0\x03one", b"\0\x01"),
        // Of the longest message.
        ("frames", b"\0\0\0\x03one", b"\x7f\xff\xff\xff"),
        ("text", b"three\n\n", b"four\nfive\n"),
        ("text", b"\n", b"four"),
        ("text", b"three\n\n\n", b"four"),
        ("text", &long_text, &long),
        // The empty line is in no part that is read alone.
        ("text", b"three\n\n", &long[..CHUNK - 1]),
        ("raw", b"three", b""),
    ] {
        let left = opened_after_a_crash(format, &[whole, torn].concat());
        assert!(left == (whole.to_vec(), torn.to_vec()), "{format}: {torn:?}");
    }
}

#[test]
fn zeros_that_a_power_failure_leaves_are_moved_aside_in_each_format() {
    let zeros = vec![0; 2 * CHUNK];
    for (format, whole, torn) in [
        ("lines", &b""[..], &b""[..]),
        ("lines", b"three\n", b"four"),
        ("hex", b"00ff\n", b"0"),
        ("base64", b"AAAA\n", b""),
        ("json", b"{\"payload\":\"\"}\n", b"{\"tim"),
        ("json", b"", b""),
        ("nul", b"", b""),
        // The first one ends the message.
        ("nul", b"three\0", b""),
        ("frames", b"\0\0\0\x03one", b""),
        ("frames", b"", b"\0\x20\0\x01torn"),
        ("text", b"three\n\n", b"four\nfive\n"),
        ("raw", b"three", b""),
    ] {
        let aside = [torn, &zeros].concat();
        let left = opened_after_a_crash(format, &[whole, &aside].concat());
        assert!(left == (whole.to_vec(), aside), "{format}: {torn:?}");
    }
}

#[test]
fn empty_messages_are_not_taken_for_what_a_power_failure_leaves() {
    for (format, payloads) in [
        ("frames", &[&b""[..]; 300][..]),
        ("nul", &[&b""[..]; 300][..]),
        ("raw", &[&[0; 300][..]][..]),
        ("lines", &[&[0; 300][..]][..]),
    ] {
        for sync in [FileSync::Always, FileSync::Never] {
            let (place, parsed) = (Place::new(), format.parse().unwrap());
            let mut sink = FileSink::open_with(place.path.clone(), parsed, sync, COUNTED).unwrap();
            synced();
            commit(&mut sink, &[b"one"]);
            let once = synced().len();
            commit(&mut sink, payloads);
            // They are in the note, and so that is as safe as they are.
            let twice = usize::from(format != "lines") + once;
            assert_eq!(
                synced().len(),
                if sync == FileSync::Always { twice } else { 0 },
                "{format}"
            );
            let before = place.content();
            place.crash(sink);
            drop(FileSink::open(&place.path, parsed, sync).unwrap());
            assert_eq!(place.content(), before, "{format} {sync:?}");
        }
    }
}

#[test]
fn what_is_left_of_the_very_first_message_is_moved_aside() {
    let place = Place::new();
    let sink = place.open("lines").unwrap();
    place.crash(sink);
    place.append(b"on");
    drop(place.open("lines").unwrap());
    assert_eq!((place.content(), place.torn(1)), (Vec::new(), b"on".to_vec()));
}

#[test]
fn what_is_moved_aside_never_takes_the_place_of_something_else() {
    let place = Place::new();
    for (number, torn) in (1..).zip([&b"a"[..], b"b", b"c"]) {
        let mut sink = place.open("lines").unwrap();
        commit(&mut sink, &[b"one"]);
        place.crash(sink);
        place.append(torn);
        drop(place.open("lines").unwrap());
        assert_eq!(place.torn(number), torn);
    }
    assert_eq!(place.torn(1), b"a");
    assert_eq!(place.content(), b"one\n".repeat(3));
}

/// What the wrong hands are not to lose.
fn foreign() -> Vec<(&'static str, Vec<u8>)> {
    let elf = [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", &[0x90; 5000][..], b"\n\0tail"].concat();
    let zip =
        [b"PK\x03\x04\x14\0\0\0\x08\0", &[0xb5; 5000][..], b"PK\x05\x06\0\0\0\0\x01\0"].concat();
    let mut contents = vec![
        ("ELF", elf),
        ("CSV", b"time,value\n1,2.5\n2,3.5\n".to_vec()),
        ("one line of JSON", b"{\"payload\":\"and more\",\"port\":4747}".to_vec()),
        ("one line of JSON with its end", b"{\"port\":4747}\n".to_vec()),
        ("zip", zip),
        ("1 MiB without a line feed", vec![b'x'; 1 << 20]),
        ("text without a last line feed", b"one\ntwo\nthree".to_vec()),
        ("words", b"word\nword\nwo".to_vec()),
        ("zeros", vec![0; 1000]),
        ("an MP4 film", [&b"\0\0\0\x20ftypisom"[..], &[1; 5000]].concat()),
        ("SQLite", b"SQLite format 3\0 and so on".to_vec()),
    ];
    for (format, written) in FORMATS.iter().map(|&format| (format, written(format))) {
        contents.push((format, written.clone()));
        contents.push((format, [written, vec![0; 1000]].concat()));
    }
    contents
}

/// Returns a file of some messages.
fn written(format: &str) -> Vec<u8> {
    let place = Place::new();
    let mut sink = place.open(format).unwrap();
    let payloads = ["21.5", "two\nlines", "", "a longer one, \u{e9}\u{1b}"].map(str::as_bytes);
    commit(&mut sink, &payloads);
    commit(&mut sink, &[b"the last one"]);
    place.content()
}

/// P23.
#[test]
fn nothing_is_destroyed_whatever_is_there_and_in_whatever_format_it_is_opened() {
    for (what, content) in foreign() {
        for format in FORMATS {
            let place = Place::with(&content);
            let opened = place.open(format);
            let mut files = place.files();
            let left = files.remove(&place.path).unwrap();
            match opened {
                Ok(sink) => {
                    drop(sink);
                    assert!(files.remove(&place.note()).is_some(), "{what} as {format}: no note");
                    let aside = files.pop_first().map(|(_, torn)| torn).unwrap_or_default();
                    assert!([left, aside].concat() == content, "{what} as {format}");
                    assert!(files.is_empty(), "{what} as {format}: {:?}", files.keys());
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(left == content && files.is_empty(), "{what} as {format}: {error}");
                    assert!(error.contains("messages: it "), "{what} as {format}: {error}");
                    assert!(error.len() < 600, "{what} as {format}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_file_is_taken_without_a_note_only_if_its_bytes_say_what_it_is() {
    let is_taken = |content: &[u8], format: &str| {
        let place = Place::with(content);
        place.open(format).map(drop).map(|()| place.content()).map_err(|error| error.to_string())
    };
    for format in FORMATS {
        let content = written(format);
        let taken = is_taken(&content, format);
        match format {
            "nul" | "raw" => assert!(taken.unwrap_err().contains("says that framelet wrote it as")),
            _ => assert_eq!(taken.unwrap(), content, "{format}"),
        }
        assert_eq!(is_taken(b"", format).unwrap(), b"");
    }
    for (format, content, words) in [
        ("frames", &b"GET / HTTP/1.1"[..], "its last 14 bytes begin with \"GET / HTTP/1.1\""),
        ("frames", b"\0\0\0\x01a\x80\0\0\0 and more", "at byte 5 there would be one of 2147483648"),
        ("frames", b"\0\0\0\x01aGET / HTTP/1.1", "its last 14 bytes begin with \"GET / HTTP/1.1\""),
        ("frames", &[0; 100], "only 0 of its 100 bytes could be whole messages"),
        ("frames", b"\0\0\0\x01a\0\0\0\x20 and more", "only 5 of its 18 bytes"),
        ("json", b"a note", "it begins with \"a note\""),
        ("json", b"{\"port\":4747}\n", "neither payload nor payload_base64"),
        ("json", b"{\"payload\":\"a\"", "only 0 of its 14 bytes"),
        ("hex", b"a note", "it begins with \"a note\""),
        ("hex", b"6f6e65\n747", "it does not end with a line feed"),
        ("base64", b"word\nwo", "it does not end with a line feed"),
        ("hex", b"abc\nab\n", "a line begins with \"abc\""),
        ("hex", b"AB\n", "a line begins with \"AB\""),
        ("base64", b"a note\n", "a line begins with \"a note\""),
        ("lines", b"one\ntwo", "it does not end with a line feed"),
        ("lines", b"\0\n", "byte 0 is zero"),
        ("text", b"one\ntwo\n", "it does not end with an empty line"),
        ("lines", b"SQLite format 3\0 and so on\n", "write sqlite: before the path"),
        ("lines", MAGIC_LINE, "it is framelet's note on another file"),
    ] {
        let error = Place::with(content).refused(format);
        assert!(error.contains(words), "{format}: {error}");
    }
    // Beyond what is looked at first.
    let far = [vec![b'\n'; 2 * CHUNK], b"far\n".to_vec(), vec![b'\n'; 100]].concat();
    assert!(Place::with(&far).refused("json").contains("a line begins with"));
    let far = [b"a\n".repeat(CHUNK), b"\0\n".to_vec()].concat();
    assert!(Place::with(&far).refused("lines").contains("byte 131072 is zero"));
    let numbers = [b"00\n".repeat(CHUNK), b"0x0\n".to_vec(), b"00\n".repeat(100)].concat();
    assert!(Place::with(&numbers).refused("hex").contains("a line begins with \"0x0\""));
}

const MAGIC_LINE: &[u8] = note::MAGIC.as_bytes();

#[test]
fn what_is_torn_without_a_note_is_moved_aside_where_the_rest_is_evidently_messages() {
    for (format, whole, torn) in [
        ("json", &b"{\"payload\":\"one\"}\n"[..], &b"{\"payl"[..]),
        ("json", b"{\"payload\":\"one\"}\n", &[0; 1000]),
        ("hex", b"6f6e65\n", &[0; 1000]),
        ("frames", b"\0\0\0\x03one", b"\0\0\0\x03tw"),
        // Just as much is whole.
        ("frames", b"\0\0\0\x03one", b"\0\0\0\x04two"),
        ("frames", b"\0\0\0\x03one", &[0; 1000]),
        ("frames", b"\0\0\0\x03one", &[0; 64]),
    ] {
        let place = Place::with(&[whole, torn].concat());
        drop(place.open(format).unwrap());
        assert_eq!((place.content(), place.torn(1)), (whole.to_vec(), torn.to_vec()), "{format}");
    }
    // Some empty messages, also alone.
    for content in [[&b"\0\0\0\x03one"[..], &[0; 60]].concat(), vec![0; 20]] {
        let place = Place::with(&content);
        drop(place.open("frames").unwrap());
        assert_eq!(place.content(), content);
    }
}

#[test]
fn a_file_keeps_its_format() {
    for written in FORMATS {
        let place = Place::new();
        let mut sink = place.open(written).unwrap();
        commit(&mut sink, &[b"one", b"two"]);
        drop(sink);
        for format in FORMATS.into_iter().filter(|format| *format != written) {
            let words = format!("it holds {written}; start with {written}, or give another file");
            assert!(place.refused(format).contains(&words));
        }
        assert!(place.open(written).is_ok());
        // An empty one has none, whatever its note says.
        let sink = place.open(written).unwrap();
        place.crash(sink);
        fs::write(&place.path, "").unwrap();
        for format in ["hex", written] {
            assert!(place.open(format).is_ok());
        }
    }
}

#[test]
fn what_somebody_else_wrote_behind_the_messages_is_not_moved_aside() {
    for (format, foreign) in
        [("hex", &b"a note"[..]), ("base64", b"a note"), ("json", b"a note"), ("frames", b"a note")]
    {
        let place = Place::new();
        let mut sink = place.open(format).unwrap();
        commit(&mut sink, &[b"one"]);
        place.crash(sink);
        place.append(foreign);
        let error = place.refused(format);
        assert!(error.contains("its last 6 bytes begin with \"a note\""), "{format}: {error}");
    }
}

#[test]
fn what_somebody_else_wrote_is_not_taken_for_ones_own() {
    let words = "it does not end with a line feed";
    // Into the same file, after a clean end.
    let place = Place::new();
    drop(place.open("lines").unwrap());
    fs::write(&place.path, "one\ntwo").unwrap();
    assert!(place.refused("lines").contains(words));
    // Another file with its name, after a crash.
    let place = Place::new();
    let mut sink = place.open("lines").unwrap();
    commit(&mut sink, &[b"one"]);
    place.crash(sink);
    let other = place.directory.path().join("other");
    fs::write(&other, "one\ntwo").unwrap();
    fs::rename(&other, &place.path).unwrap();
    assert!(place.refused("lines").contains(words));
    // Into the same file, after a crash: no message ends where the note says that one does.
    let place = Place::new();
    let mut sink = place.open("lines").unwrap();
    commit(&mut sink, &[b"one"]);
    place.crash(sink);
    fs::write(&place.path, "another\nfile").unwrap();
    assert!(place.refused("lines").contains(words));
}

#[test]
fn a_file_has_one_writer_at_a_time_and_reopening_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let open = || FileSink::open(&path, OutputFormat::Lines, FileSync::Never);
    let mut sink = open().unwrap();
    for _ in 0..2 {
        assert!(open().unwrap_err().to_string().contains("another framelet writes to it"));
        sink.open_again().unwrap();
        sink.reopen().unwrap();
    }
    sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
    drop(sink);
    open().unwrap().commit(&[batch(&origin(None), &[b"b"])]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"a\nb\n");
}

#[test]
fn a_file_that_was_emptied_is_not_filled_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let mut sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Never).unwrap();
    sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
    File::create(&path).unwrap();
    sink.commit(&[batch(&origin(None), &[b"b"])]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"b\n");
}

#[test]
fn a_sync_is_read_from_its_word() {
    let parsed = ["always", "never", "often", ""].map(|text| text.parse::<FileSync>().ok());
    assert_eq!(parsed, [Some(FileSync::Always), Some(FileSync::Never), None, None]);
}

#[test]
fn a_file_is_cut_back_but_never_filled_up() {
    let place = Place::with(b"four");
    let file = OpenOptions::new().write(true).open(&place.path).unwrap();
    for (to, is_done, len) in [(4, true, 4), (2, true, 2), (3, false, 2), (0, true, 0)] {
        assert_eq!(cut_back(&file, to).unwrap(), is_done, "to {to}");
        assert_eq!(place.content().len(), len);
    }
}

#[test]
fn a_note_that_cannot_be_written_is_no_end() {
    let place = Place::new();
    fs::create_dir(place.note()).unwrap();
    let mut sink = place.open("lines").unwrap();
    commit(&mut sink, &[b"one"]);
    drop(sink);
    drop(place.open("lines").unwrap());
    assert_eq!(place.content(), b"one\n");
    assert!(!note::beside(&place.path, ".framelet.new").exists());
}

// ---- what is safe

/// Each commit is synced, and nothing is taken for granted after one that failed.
#[test]
fn a_commit_returns_once_its_messages_are_synced() {
    let place = Place::new();
    let counted =
        |sync| FileSink::open_with(place.path.clone(), OutputFormat::Lines, sync, COUNTED);
    let inode = |path: &Path| path.metadata().unwrap().ino();
    synced();
    let mut sink = counted(FileSync::Always).unwrap();
    let directory = Synced::Directory(inode(place.directory.path()));
    let data = |len| Synced::Data(inode(&place.path), len);
    let done = synced();
    assert!(
        matches!(done[..], [Synced::Data(note, _), last] if note == inode(&place.note()) && last == directory)
    );
    commit(&mut sink, &[b"one"]);
    assert_eq!(synced(), [data(4)]);
    commit(&mut sink, &[b"two", b"three"]);
    assert_eq!(synced(), [data(14)]);
    // What a killed server left may not be synced yet. What is torn is safe before it is cut off.
    place.crash(sink);
    place.append(b"fo");
    synced();
    let sink = counted(FileSync::Always).unwrap();
    let torn = inode(&note::beside(&place.path, ".torn-1"));
    let note = Synced::Data(inode(&place.note()), fs::metadata(place.note()).unwrap().len());
    assert_eq!(synced(), [Synced::Data(torn, 2), directory, data(14), note, directory]);
    drop(sink);
    let note = Synced::Data(inode(&place.note()), fs::metadata(place.note()).unwrap().len());
    assert_eq!(synced(), [note, directory]);

    let mut sink = counted(FileSync::Never).unwrap();
    commit(&mut sink, &[b"one"]);
    drop(sink);
    assert_eq!(synced(), []);
}

/// The system itself is asked: here, where it can sync nothing.
#[test]
#[cfg(target_os = "linux")]
fn a_commit_is_synced_by_the_system() {
    for (sync, is_failed) in [(FileSync::Always, true), (FileSync::Never, false)] {
        let mut sink = FileSink::open("/proc/thread-self/comm", OutputFormat::Lines, sync).unwrap();
        let committed = sink.commit(&[batch(&origin(None), &[b"tested"])]);
        assert_eq!(committed.is_err(), is_failed, "{committed:?}");
    }
}

#[test]
fn after_a_sync_that_failed_everything_is_written_and_synced_again() {
    const EIO: i32 = 5;
    const EROFS: i32 = 30;
    let place = Place::new();
    let open = || {
        FileSink::open_with(place.path.clone(), OutputFormat::Lines, FileSync::Always, COUNTED)
            .unwrap()
    };
    let sender = SenderId::from_bytes([1; 16]);
    let mut sink = open();
    commit(&mut sink, &[b"one"]);
    let next = [batch(&origin(Some((sender, 0))), &[b"two", b"three"])];
    fail(&[EIO, EIO]);
    for _ in 0..2 {
        let Err(SinkError::Transient(error)) = sink.commit(&next) else {
            panic!("it did not fail")
        };
        assert!(
            error.to_string().contains("error; the file was cut back to its last whole message")
        );
        assert_eq!(place.content(), b"one\n");
        assert_eq!(sink.committed(sender).unwrap(), None);
    }
    synced();
    sink.commit(&next).unwrap();
    assert_eq!(place.content(), b"one\ntwo\nthree\n");
    assert_eq!(synced(), [Synced::Data(place.path.metadata().unwrap().ino(), 14)]);
    assert_eq!(sink.committed(sender).unwrap(), Some(2));
    // What does not pass is the end.
    fail(&[EROFS]);
    let next = [batch(&origin(None), &[b"four"])];
    assert!(matches!(sink.commit(&next), Err(SinkError::Fatal(_))));
    assert_eq!(place.content(), b"one\ntwo\nthree\n");
}

// ---- files that go away

#[test]
fn a_file_that_was_renamed_is_written_to_until_it_is_reopened() {
    let place = Place::new();
    let old = place.directory.path().join("old");
    let mut sink = place.open("lines").unwrap();
    commit(&mut sink, &[b"a"]);
    fs::rename(&place.path, &old).unwrap();
    commit(&mut sink, &[b"b"]);
    // Nor is a new one with its name taken by itself.
    fs::write(&place.path, "").unwrap();
    commit(&mut sink, &[b"c"]);
    sink.reopen().unwrap();
    commit(&mut sink, &[b"d"]);
    assert_eq!(
        (fs::read(&old).unwrap(), place.content()),
        (b"a\nb\nc\n".to_vec(), b"d\n".to_vec())
    );
}

/// P26.
#[test]
fn nothing_is_committed_to_a_file_that_was_deleted() {
    for is_directory in [false, true] {
        let place = Place::new();
        let folder = place.directory.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("messages");
        let mut sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Always).unwrap();
        commit(&mut sink, &[b"a"]);
        if is_directory {
            fs::remove_dir_all(&folder).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let next = [batch(&origin(None), &[b"b"])];
        for _ in 0..3 {
            let Err(SinkError::Transient(error)) = sink.commit(&next) else { panic!("committed") };
            let words = "messages: it was deleted; create it, or have it reopened";
            assert!(error.to_string().contains(words), "{error}");
        }
        // It is for somebody to say what is to become of it.
        if is_directory {
            sink.reopen().unwrap();
            assert!(matches!(sink.commit(&next), Err(SinkError::Transient(_))));
            fs::create_dir(&folder).unwrap();
        }
        sink.reopen().unwrap();
        sink.commit(&next).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"b\n");
        fs::remove_file(&path).unwrap();
        drop(sink);
        assert!(!path.exists());
    }
}

#[test]
fn nothing_is_committed_to_a_file_that_is_deleted_meanwhile() {
    thread_local!(static PATH: std::cell::OnceCell<PathBuf> = const { std::cell::OnceCell::new() });

    let place = Place::new();
    let path = place.path.clone();
    let sink =
        FileSink::open_with(path.clone(), OutputFormat::Lines, FileSync::Always, Syncs::SYSTEM);
    let mut sink = sink.unwrap();
    sink.syncs =
        Syncs { data: |_| PATH.with(|path| fs::remove_file(path.get().unwrap())), ..Syncs::SYSTEM };
    PATH.with(|place| place.set(path).unwrap());
    let next = [batch(&origin(None), &[b"a"])];
    let Err(SinkError::Transient(error)) = sink.commit(&next) else { panic!("committed") };
    assert!(error.to_string().contains("it was deleted"), "{error}");
    sink.syncs = Syncs::SYSTEM;
    sink.reopen().unwrap();
    sink.commit(&next).unwrap();
    assert_eq!(place.content(), b"a\n");
}

#[test]
fn a_file_that_takes_the_place_of_a_deleted_one_is_written_to_once_it_is_settled() {
    let place = Place::new();
    let mut sink = place.open("lines").unwrap();
    commit(&mut sink, &[b"a"]);
    fs::remove_file(&place.path).unwrap();
    let next = [batch(&origin(None), &[b"b"])];
    assert!(matches!(sink.commit(&next), Err(SinkError::Transient(_))));
    // A copy under way.
    fs::write(&place.path, "first\n").unwrap();
    assert!(matches!(sink.commit(&next), Err(SinkError::Transient(_))));
    place.append(b"second\n");
    let (grown, mut attempts) = (Instant::now(), 0);
    while matches!(sink.commit(&next), Err(SinkError::Transient(_))) {
        attempts += 1;
        std::thread::sleep(Duration::from_millis(10));
        assert!(grown.elapsed() < Duration::from_secs(30), "it is not opened");
    }
    assert!(attempts > 1 && grown.elapsed() >= SETTLED);
    assert_eq!(place.content(), b"first\nsecond\nb\n");
    // One that is not in the format is left alone, and another one waited for.
    fs::write(note::beside(&place.path, ".new"), "no line feed").unwrap();
    fs::rename(note::beside(&place.path, ".new"), &place.path).unwrap();
    let mut until = |is_done: &dyn Fn(&Regular) -> bool| {
        let started = Instant::now();
        while sink.commit(&next).is_err() && !is_done(sink.open.regular.as_ref().unwrap()) {
            std::thread::sleep(Duration::from_millis(10));
            assert!(started.elapsed() < Duration::from_secs(30), "nothing changes");
        }
    };
    until(&|regular| regular.found.as_ref().is_some_and(|found| found.since.is_none()));
    assert_eq!(place.content(), b"no line feed");
    place.append(b"\n");
    until(&|_| false);
    assert_eq!(place.content(), b"no line feed\nb\n");
}

// ---- senders

/// What a new server learns of a sender that has sent three messages.
#[track_caller]
fn known_after(meanwhile: impl FnOnce(&Place, FileSink)) -> Option<u64> {
    let sender = SenderId::from_bytes([1; 16]);
    let place = Place::new();
    let mut sink = place.open("lines").unwrap();
    sink.commit(&[batch(&origin(Some((sender, 0))), &[b"a", b"b", b"c"])]).unwrap();
    assert_eq!(sink.committed(sender).unwrap(), Some(3));
    meanwhile(&place, sink);
    let mut sink = place.open("lines").unwrap();
    assert_eq!(sink.committed(SenderId::from_bytes([2; 16])).unwrap(), None);
    sink.committed(sender).unwrap()
}

#[test]
fn senders_are_remembered_after_a_clean_end_only() {
    assert_eq!(known_after(|_, sink| drop(sink)), Some(3));
    assert_eq!(known_after(Place::crash), None);
    // As long as nobody has changed the file since.
    let append = |place: &Place, sink| {
        drop(sink);
        place.append(b"d\n");
    };
    assert_eq!(known_after(append), None);
    // A server that writes nothing keeps them, and one that is killed then does not.
    assert_eq!(
        known_after(|place, sink| {
            drop(sink);
            drop(place.open("lines").unwrap());
        }),
        Some(3)
    );
    let killed = |place: &Place, sink| {
        drop(sink);
        place.crash(place.open("lines").unwrap());
    };
    assert_eq!(known_after(killed), None);
    // Nor does a new file.
    let rotated = |place: &Place, sink| {
        drop(sink);
        fs::rename(&place.path, place.directory.path().join("old")).unwrap();
    };
    assert_eq!(known_after(rotated), None);
    // Unless it was begun while the server ran.
    let rotated = |place: &Place, mut sink: FileSink| {
        fs::rename(&place.path, place.directory.path().join("old")).unwrap();
        sink.reopen().unwrap();
        commit(&mut sink, &[b"d"]);
    };
    assert_eq!(known_after(rotated), Some(3));
}

/// Nobody knows which of its messages a failure of the machine has taken away.
#[test]
fn senders_are_not_remembered_where_the_end_of_a_file_that_was_not_synced_is_missing() {
    let sender = SenderId::from_bytes([1; 16]);
    for (missing, known) in [(0, Some(2)), (2, None)] {
        let place = Place::new();
        let open = || FileSink::open(&place.path, OutputFormat::Lines, FileSync::Never).unwrap();
        open().commit(&[batch(&origin(Some((sender, 0))), &[b"a", b"b"])]).unwrap();
        let file = OpenOptions::new().write(true).open(&place.path).unwrap();
        file.set_len(4 - missing).unwrap();
        assert_eq!(open().committed(sender).unwrap(), known);
    }
}

#[test]
fn what_a_sender_sends_again_is_not_there_twice_after_a_clean_end() {
    let sender = SenderId::from_bytes([1; 16]);
    let place = Place::new();
    for last in 2..=4 {
        let payloads: Vec<String> = (1..=last).map(|number: u64| number.to_string()).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(String::as_bytes).collect();
        let mut sink = place.open("lines").unwrap();
        sink.commit(&[batch(&origin(Some((sender, 0))), &payloads)]).unwrap();
        assert_eq!(sink.committed(sender).unwrap(), Some(last));
    }
    assert_eq!(place.content(), b"1\n2\n3\n4\n");
}

/// Layouts with a header, and a header of each.
const WITH_HEADERS: [(&str, &[u8]); 9] = [
    ("h1:u32be", b"\x01"),
    ("h1:u32be+self", b"Q"),
    ("u24le:h1", b"\x02"),
    ("h3:u32be:data:xce", b"\x01\0\x05"),
    ("x5a425844:h1:u32le:h4", b"\x01abcd"),
    ("h2:u16be+all", b"\x04\x01"),
    ("h1:ber", b"0"),
    ("h2:dec/3a:data:h1:x2c", b"abc"),
    ("lsp", b"Content-Type: text\r\n"),
];

fn layout_of(notation: &str) -> Layout {
    notation.parse().unwrap()
}

/// Returns what was received of messages with this header, and the batch of them.
fn received(layout: Layout, header: &[u8], payloads: &[&[u8]]) -> (Vec<u8>, Batch) {
    let mut frames = Vec::new();
    for payload in payloads {
        append_frame_with_header(&mut frames, layout, MAX_PAYLOAD, header, payload).unwrap();
    }
    let messages = payloads.iter().map(|payload| (header, payload));
    (frames, Batch::with_headers(origin(None), layout, messages).unwrap())
}

impl Place {
    /// Opens it for frames in a layout.
    fn open_frames(&self, layout: Layout) -> io::Result<FileSink> {
        FileSink::open(&self.path, OutputFormat::Frames(layout), FileSync::Always)
    }
}

#[test]
fn what_a_crash_leaves_of_a_frame_with_a_header_is_moved_aside_wherever_it_was_cut() {
    for (notation, header) in WITH_HEADERS {
        let layout = layout_of(notation);
        let (frames, batch) = received(layout, header, &[b"one", b"", b"three"]);
        let (more, _) = received(layout, header, &[b"the one that is torn"]);
        for (cut, zeros) in (0..more.len()).flat_map(|cut| [(cut, 0), (cut, 1000)]) {
            let place = Place::new();
            let mut sink = place.open_frames(layout).unwrap();
            sink.commit(std::slice::from_ref(&batch)).unwrap();
            place.crash(sink);
            assert_eq!(place.content(), frames, "{layout}");
            let torn = [&more[..cut], &vec![0; zeros]].concat();
            place.append(&torn);
            let mut sink = place.open_frames(layout).unwrap();
            let whole = place.content();
            if zeros == 0 {
                assert_eq!(whole, frames, "{layout}: the first {cut} bytes");
            }
            let aside = note::beside(&place.path, ".torn-1");
            let aside = if aside.exists() { fs::read(aside).unwrap() } else { Vec::new() };
            assert!([whole.clone(), aside].concat() == [frames.clone(), torn].concat());
            // It goes on behind a whole frame.
            sink.commit(std::slice::from_ref(&batch)).unwrap();
            drop(sink);
            assert_eq!(place.content(), [whole, frames.clone()].concat(), "{layout}: {cut}");
            drop(place.open_frames(layout).unwrap());
        }
    }
}

#[test]
fn a_file_of_frames_keeps_its_layout() {
    for (notation, header) in WITH_HEADERS {
        let (layout, place) = (layout_of(notation), Place::new());
        let (_, batch) = received(layout, header, &[b"one"]);
        place.open_frames(layout).unwrap().commit(&[batch]).unwrap();
        for other in ["u32be", "h7:u64be"].map(layout_of) {
            let before = place.files();
            let error = place.open_frames(other).unwrap_err().to_string();
            let words =
                format!("it holds frames in {layout}, not in {other}; start with that layout");
            assert!(error.contains(&words), "{error}");
            assert_eq!(place.files(), before);
        }
        assert!(place.refused("json").contains("it holds frames; start with frames"));
        assert!(place.open_frames(layout).is_ok());
    }
}

#[test]
fn a_file_of_frames_with_headers_is_taken_without_a_note_if_its_bytes_are_such_frames() {
    for (notation, header) in WITH_HEADERS {
        let layout = layout_of(notation);
        let (frames, _) = received(layout, header, &[b"one", b"two", b""]);
        let place = Place::with(&frames);
        drop(place.open_frames(layout).unwrap());
        assert_eq!(place.content(), frames, "{layout}");
        let text = Place::with(b"\xff\xff words in a file that holds no frames\n");
        let error = text.open_frames(layout).unwrap_err().to_string();
        assert!(error.contains("messages: it is not a file of frames"), "{layout}: {error}");
    }
    // What the layout fixes says which bytes are wrong, and where.
    let layout = layout_of("h3:u32be:data:xce");
    let (frames, _) = received(layout, b"\x01\0\x05", &[b"one"]);
    let place = Place::with(&[&frames[..], &frames[..frames.len() - 1], b"x"].concat());
    let error = place.open_frames(layout).unwrap_err().to_string();
    assert!(error.contains("at byte 11: byte 10 of the frame is 0x78 ('x')"), "{error}");
}

#[test]
fn empty_frames_with_headers_are_not_taken_for_what_a_power_failure_leaves() {
    for (notation, header) in [("h1:u32be", &b"\0"[..]), ("h1:u8-4", b"\0"), ("u24le:h1", b"\0")] {
        let (layout, place) = (layout_of(notation), Place::new());
        let payload: &[u8] = if notation.ends_with("-4") { &[0; 4] } else { b"" };
        let (frames, batch) = received(layout, header, &[payload; 100]);
        let mut sink = place.open_frames(layout).unwrap();
        sink.commit(std::slice::from_ref(&batch)).unwrap();
        sink.commit(std::slice::from_ref(&batch)).unwrap();
        place.crash(sink);
        drop(place.open_frames(layout).unwrap());
        assert_eq!(place.content(), [&frames[..], &frames].concat(), "{layout}");
    }
}

#[test]
fn a_header_that_the_file_cannot_hold_is_refused_and_the_file_is_cut_back() {
    let (place, layout) = (Place::new(), layout_of("h2:u16be"));
    let mut sink = place.open_frames(layout).unwrap();
    let (frames, batch) = received(layout, b"ab", &[b"one"]);
    sink.commit(&[batch]).unwrap();
    let (_, other) = received(layout_of("h1:u16be"), b"a", &[b"two"]);
    let error = sink.commit(&[other]).unwrap_err().to_string();
    assert!(error.contains("a header of 1 byte, but h2:u16be has 2"), "{error}");
    assert_eq!(place.content(), frames);
}

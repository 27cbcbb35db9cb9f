//! Runs the built binary as a user does, and waits for what it says, never for time.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use socket2::{Domain, Socket, Type};

/// How long anything may take before the test fails: much longer than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The path of the binary.
pub(crate) const FRAMELET: &str = env!("CARGO_BIN_EXE_framelet");

/// Returns the path of an example, which `cargo test` builds beside the binary.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = PathBuf::from(FRAMELET).with_file_name("examples").join(name);
    assert!(path.exists(), "{path:?} is missing: run `cargo build --examples` first");
    path
}

/// Text that grows while a program runs. A terminal that nobody has any more ends it like the end of a file.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    text: Mutex<(Vec<u8>, bool)>,
    grown: Condvar,
}

impl Growing {
    pub(crate) fn follow(mut source: impl Read + Send + 'static) -> Arc<Growing> {
        let growing = Arc::<Growing>::default();
        let shared = Arc::clone(&growing);
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let read = source.read(&mut chunk).unwrap_or(0);
                let mut text = shared.text.lock().unwrap();
                text.0.extend_from_slice(&chunk[..read]);
                text.1 |= read == 0;
                shared.grown.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        growing
    }

    /// Waits until `found` finds something, and returns it.
    pub(crate) fn wait<T>(&self, what: &str, found: impl FnMut(&[u8]) -> Option<T>) -> T {
        self.wait_or_end(what, found)
            .unwrap_or_else(|text| panic!("the program ended before {what}; it had said: {text}"))
    }

    /// The same; returns the beginning of the text if it ends before that.
    pub(crate) fn wait_or_end<T>(
        &self,
        what: &str,
        mut found: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        loop {
            if let Some(found) = found(&text.0) {
                return Ok(found);
            }
            let so_far = || String::from_utf8_lossy(&text.0[..text.0.len().min(4000)]).into_owned();
            if text.1 {
                return Err(so_far());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come; it had said: {}", so_far());
            text = self.grown.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Waits until there is nothing more to come, and returns everything.
    pub(crate) fn all(&self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        while !text.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the output did not end");
            text = self.grown.wait_timeout(text, left).unwrap().0;
        }
        text.0.clone()
    }

    pub(crate) fn so_far(&self) -> Vec<u8> {
        self.text.lock().unwrap().0.clone()
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_micros(500));
    }
}

/// A running server; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    output: Arc<Growing>,
    log: Arc<Growing>,
}

/// What a server left behind.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    pub(crate) log: String,
    /// How long it took to end.
    pub(crate) took: Duration,
}

impl Server {
    /// Starts `framelet serve` on a free port.
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let mut command = Command::new(FRAMELET);
        command.args(["serve", "127.0.0.1:0"]).args(arguments);
        Server::spawn(command)
    }

    /// Starts a program that says `listening on ADDR` on standard error.
    pub(crate) fn spawn(command: Command) -> Server {
        let mut server = Server::spawn_stalled(command);
        server.resume();
        server
    }

    /// The same, but what it writes is not read yet.
    pub(crate) fn spawn_stalled(mut command: Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Growing::follow(child.stderr.take().unwrap());
        let address = log.wait("the listening line", |log| {
            let log = str::from_utf8(log).ok()?;
            let (_, rest) = log.split_once("listening on ")?;
            // In JSON, a quotation mark ends it.
            Some(rest.split_once(['\n', '"'])?.0.to_owned())
        });
        // A Unix socket's address is none of these.
        let address = address.parse().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
        Server { child, address, output: Arc::default(), log }
    }

    /// Reads what it writes from now on.
    pub(crate) fn resume(&mut self) {
        self.output = Growing::follow(self.child.stdout.take().unwrap());
    }

    /// Ends what it writes to, of which nothing is read yet.
    pub(crate) fn close_output(&mut self) {
        self.child.stdout = None;
    }

    /// Returns how many bytes it has written that nobody has read.
    pub(crate) fn unread_output(&self) -> u64 {
        rustix::io::ioctl_fionread(self.child.stdout.as_ref().unwrap()).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Waits until the log contains `text` at least `times` times.
    pub(crate) fn wait_for_log(&self, text: &str, times: usize) {
        self.log.wait(&format!("{times} times {text:?}"), |log| {
            (String::from_utf8_lossy(log).matches(text).count() >= times).then_some(())
        });
    }

    /// Waits until the output has at least `len` bytes.
    pub(crate) fn wait_for_output(&self, len: usize) {
        self.output.wait(&format!("{len} bytes"), |output| (output.len() >= len).then_some(()));
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.so_far()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Ends the server with SIGTERM, and waits for it.
    pub(crate) fn stop(self) -> Left {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(mut self) -> Left {
        let started = Instant::now();
        let status = wait_for(&mut self.child);
        let log = String::from_utf8_lossy(&self.log.all()).into_owned();
        if self.child.stdout.is_some() {
            self.resume();
        }
        Left { status, output: self.output.all(), log, took: started.elapsed() }
    }

    /// Returns the memory the process holds, in bytes.
    pub(crate) fn memory(&self) -> usize {
        status(self.pid(), "VmRSS:")
    }

    /// Returns the most memory the process ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        status(self.pid(), "VmHWM:")
    }

    /// Returns how many files and connections the process has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Returns how many of them are sockets.
    pub(crate) fn sockets(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // Some may be closed just now.
        let target = |file: fs::DirEntry| fs::read_link(file.path()).unwrap_or_default();
        files
            .map(Result::unwrap)
            .map(target)
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Returns the processor time the process has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // The unit of these two fields is a hundredth of a second on every Linux.
        Duration::from_millis(10 * ticks)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns what the system says of a process, in bytes.
fn status(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

fn send_signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn wait_for(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the program did not end");
        }
        // There is nothing in std to wait for but the end itself, without a limit.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the command to run `framelet` as somebody who may not do everything, unlike root.
pub(crate) fn unprivileged() -> Command {
    let mut command = Command::new(FRAMELET);
    if rustix::process::geteuid().is_root() {
        // Nobody, as most systems number it.
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    }
    command
}

/// Runs `framelet` with `input` to its end.
pub(crate) fn framelet<S: AsRef<OsStr>>(arguments: &[S], input: &[u8]) -> Output {
    let mut command = Command::new(FRAMELET);
    command.args(arguments);
    run(command, input)
}

/// Runs a command with `input` to its end.
pub(crate) fn run(command: Command, input: &[u8]) -> Output {
    Running::start(command, input).wait()
}

/// A command under way; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: Arc<Growing>,
    errors: Arc<Growing>,
}

impl Running {
    /// Starts a command with `input`.
    pub(crate) fn start(command: Command, input: &[u8]) -> Running {
        let (running, mut stdin) = Running::start_with_input(command);
        let input = input.to_vec();
        // It may end without having read everything: that is for the caller to judge.
        thread::spawn(move || drop(stdin.write_all(&input)));
        running
    }

    /// Starts a command whose input is yet to be written.
    pub(crate) fn start_with_input(mut command: Command) -> (Running, ChildStdin) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let output = Growing::follow(child.stdout.take().unwrap());
        let errors = Growing::follow(child.stderr.take().unwrap());
        (Running { child, output, errors }, stdin)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Waits until it has said these words.
    pub(crate) fn wait_until_it_says(&self, words: &str) {
        self.errors.wait(&format!("{words:?}"), |said| {
            String::from_utf8_lossy(said).contains(words).then_some(())
        });
    }

    /// Waits until it says on which address it listens; `None` if it ends before that.
    pub(crate) fn wait_for_address(&self) -> Option<String> {
        let listening = |log: &[u8]| {
            let (_, rest) = str::from_utf8(log).ok()?.split_once("listening on ")?;
            Some(rest.split_once('\n')?.0.to_owned())
        };
        self.errors.wait_or_end("the listening line", listening).ok()
    }

    /// Waits until it has printed so many bytes.
    pub(crate) fn wait_for_output(&self, len: usize) {
        self.output.wait(&format!("{len} bytes"), |output| (output.len() >= len).then_some(()));
    }

    /// Waits until it has printed a whole `u32be` frame.
    pub(crate) fn wait_for_a_frame(&self) {
        self.output.wait("a frame", |output| {
            let prefix = output.first_chunk().copied().map(u32::from_be_bytes)?;
            (output.len() - 4 >= prefix as usize).then_some(())
        });
    }

    /// Returns how many bytes it has read, from whatever it was.
    pub(crate) fn characters_read(&self) -> usize {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// Waits until it handles SIGTERM, or has ended.
    pub(crate) fn wait_until_it_can_be_stopped(&self) {
        wait_until("the handling of SIGTERM", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            let caught = u64::from_str_radix(field("SigCgt:").unwrap().trim(), 16).unwrap();
            // A shell that is about to become the program handles it, too, and forgets it then.
            let is_shell = field("Name:").unwrap().trim() == "bash";
            let handled = caught & 1 << (15 - 1) != 0 && !is_shell;
            handled || field("State:").unwrap().trim().starts_with('Z')
        });
    }

    /// Returns the most memory the process ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        status(self.pid(), "VmHWM:")
    }

    /// Kills it, and waits for its end.
    pub(crate) fn kill(mut self) -> Output {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Output {
        let status = wait_for(&mut self.child);
        Output { status, stdout: self.output.all(), stderr: self.errors.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns how many lines with `text` there would be in a log without a limit: those that are there, and
/// those that were left out, which are called `kind` where they are counted on their own.
pub(crate) fn logged(log: &str, text: &str, kind: &str) -> u64 {
    let count = |line: &str| match line.split_once(" more, not logged") {
        Some((before, _)) => before.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap(),
        None => 0,
    };
    log.lines()
        .map(|line| match line.contains(text) {
            true => 1 + count(line),
            false if line.contains(&format!(" more, not logged: {kind}")) => count(line),
            false => 0,
        })
        .sum()
}

/// Prints a figure of an attack, which `scripts/attacks.sh` shows beside it.
pub(crate) fn measured(figure: impl std::fmt::Display) {
    eprintln!("measured: {figure}");
}

/// Returns what a command has said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Checks the exit code, and that what was said is one line with these words.
#[track_caller]
pub(crate) fn check(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for words in words {
        assert!(said.contains(words), "{words:?} is missing in {said:?}");
    }
    let lines = usize::from(!words.is_empty());
    assert_eq!(said.lines().count(), lines, "{said}");
    assert!(said.is_empty() || said.starts_with("framelet: "), "{said}");
}

/// A server that does as it is told, once, in a thread of its own.
pub(crate) fn odd_server(act: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || act(listener.accept().unwrap().0));
    address
}

/// Checks that the docs have the help of a command, word for word.
#[track_caller]
pub(crate) fn docs_show_help_of(command: &[&str]) {
    let page = fs::read_to_string("docs/cli.md").unwrap();
    let help = String::from_utf8(framelet(&[command, &["--help"]].concat(), b"").stdout).unwrap();
    assert!(
        page.contains(&format!("```text\n{}\n```\n", help.trim_end())),
        "docs/cli.md shows another help than this one (scripts/help.sh writes it there):\n{help}"
    );
}

/// Returns a `u32be` frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    framelet::wire::append_frame(
        &mut frame,
        framelet::Layout::U32BE,
        framelet::wire::MAX_PAYLOAD,
        payload,
    )
    .unwrap();
    frame
}

/// Reads one `u32be` frame; `None` at the end of the stream, be it clean or not.
pub(crate) fn read_frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let mut payload = vec![0; u32::from_be_bytes(prefix).try_into().unwrap()];
    stream.read_exact(&mut payload).ok()?;
    Some(payload)
}

/// Connects from the address 127.0.0.`last`. Fails if the server is so quick to refuse the connection that it
/// is reset before it is known to be open.
pub(crate) fn connect_from(last: u8, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect(&server.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Returns whether the peer has closed or reset the stream; waits until it does.
pub(crate) fn closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Returns the payloads of all `u32be` frames; panics if they do not end with a whole one.
pub(crate) fn unframe(mut frames: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while !frames.is_empty() {
        payloads.push(read_frame(&mut frames).expect("a whole frame"));
    }
    payloads
}

/// Returns both sides of a new terminal: the person's and the program's.
pub(crate) fn terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let program = File::options().read(true).write(true).open(name).unwrap();
    (File::from(person), program)
}

//! Resources of the process: open files and threads.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::execve;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::exit_code::Exit;
use super::failure::{Failure, plain};

/// How many threads run tasks, for smol: it reads this when the first task is spawned.
const THREADS: &str = "SMOL_THREADS";

/// The most threads to ask for: no machine has more cores.
const MOST_THREADS: u64 = 1024;

/// With no threads, the executor would wait forever.
pub(crate) fn check_threads() -> Result<(), Failure> {
    match threads_now() {
        0 => Err(Failure::new(
            Exit::Usage,
            "SMOL_THREADS=0 leaves no thread to run on; unset it, or set it to 1 or more",
        )),
        _ => Ok(()),
    }
}

/// Returns the number in the environment, parsed as smol does.
fn threads_now() -> u64 {
    env::var(THREADS).ok().and_then(|now| now.parse().ok()).unwrap_or(1)
}

/// Sets the number of threads that run tasks.
///
/// smol reads the number from the environment, which a process with `forbid(unsafe_code)` cannot change for
/// itself. So the program restarts itself in the same process, once, with the number set.
pub(crate) fn set_threads(threads: u64) -> Result<(), Failure> {
    if !(1..=MOST_THREADS).contains(&threads) {
        let message = format!("--threads: must be from 1 to {MOST_THREADS}");
        return Err(Failure::new(Exit::Usage, message));
    }
    if threads_now() == threads {
        return Ok(());
    }
    let error = start_again(&threads.to_string());
    let message = format!(
        "--threads: cannot start again with another number of threads: {}; set \
         {THREADS}={threads} in the environment instead",
        plain(&error)
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Replaces this program with itself, with this many threads. Returns only if that fails.
fn start_again(threads: &str) -> io::Error {
    // By its own path, so that it keeps its name in process lists; by the other path if the file was
    // replaced or removed since; and by the path it was started with in a container without /proc.
    let typed = env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    let paths = [env::current_exe().ok(), Some(PathBuf::from("/proc/self/exe")), typed];
    // Cannot fail: what the system passed on has no NUL byte.
    let c_string = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let arguments: Vec<CString> = env::args_os().map(c_string).collect();
    let others = env::vars_os().filter(|(name, _)| name != THREADS);
    let environment: Vec<CString> = others
        .chain([(THREADS.into(), threads.into())])
        .map(|(name, value)| c_string([name, value].join(OsStr::new("="))))
        .collect();
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for path in paths.into_iter().flatten() {
        let Err(errno) = execve(&c_string(path.into()), &arguments, &environment);
        failed = errno.into();
    }
    failed
}

/// Raises the limit of open files: each connection needs one, and many shells allow only 1024 although the
/// system allows more.
pub(crate) fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // If this fails, the limit stays, and the number of connections follows from it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

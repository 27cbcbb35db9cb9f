//! Tells the service manager how the server is, with the notification protocol of systemd: datagrams with lines
//! such as `READY=1`, to the Unix socket that the environment names.

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::log::{error, warn};
use framelet::server::{Figures, Monitor};
use rustix::time::{ClockId, clock_gettime};
use smol::Timer;

use super::super::failure::plain;
use super::figures::words;

/// How often the service manager may be told the figures.
const STATUS: Duration = Duration::from_secs(5);

/// How often the watchdog is told within its time, so that one late message does no harm.
const WATCHDOG_SHARE: u32 = 3;

/// A handle to the service manager; without one, it does nothing.
#[derive(Clone)]
pub(super) struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
    /// After how long without a sign of life the service manager ends the server.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Connects to the service manager that started this process, if it wants to be told.
    pub(super) fn from_env() -> Supervisor {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let connected = connect(name.as_encoded_bytes());
            connected
                .inspect_err(|error| {
                    warn!("cannot reach the service manager at {name:?}: {}", plain(error));
                })
                .ok()
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&time| time > 0 && is_meant);
        let watchdog = watchdog.map(Duration::from_micros);
        Supervisor { socket: socket.map(Arc::new), watchdog }
    }

    /// Returns whether there is a service manager to tell.
    pub(super) fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// The server accepts connections, and its sink is open.
    pub(super) fn ready(&self) {
        self.notify("READY=1");
    }

    /// The output is being reopened; [`ready`](Supervisor::ready) ends that.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The server shuts down.
    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// Tells the figures, and that the server works, until it is dropped.
    pub(super) async fn watch(self, monitor: Monitor) {
        if self.socket.is_none() {
            return;
        }
        let watchdog = self.watchdog.unwrap_or(Duration::MAX);
        let every = (watchdog / WATCHDOG_SHARE).clamp(Duration::from_millis(1), STATUS);
        let (mut told, mut told_at) = (String::new(), None::<Instant>);
        let mut hangs = false;
        loop {
            let figures = monitor.figures();
            // That this task has its turn shows that the others have theirs.
            if is_working(&figures, watchdog) {
                hangs = false;
                if self.watchdog.is_some() {
                    self.notify("WATCHDOG=1");
                }
            } else if !std::mem::replace(&mut hangs, true) {
                let time = humantime::format_duration(watchdog);
                error!(
                    event = "stuck";
                    "the sink has been in one call for more than {time}; the watchdog is not told that \
                     the server works"
                );
            }
            let status = words(&figures);
            if status != told && told_at.is_none_or(|at| at.elapsed() >= STATUS) {
                self.notify(&format!("STATUS={status}"));
                (told, told_at) = (status, Some(Instant::now()));
            }
            Timer::after(every).await;
        }
    }

    fn notify(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // If the service manager does not read, a later message may reach it; the server must not wait.
            if let Err(error) = socket.send(state.as_bytes())
                && error.kind() != io::ErrorKind::WouldBlock
            {
                ::log::debug!("cannot tell the service manager {state:?}: {}", plain(&error));
            }
        }
    }
}

/// Returns whether the sink is not stuck. One that waits for a full disk to have room works: a restart would not help.
fn is_working(figures: &Figures, watchdog: Duration) -> bool {
    let working_for = figures.sink.as_ref().and_then(|sink| sink.working_for);
    working_for.is_none_or(|time| time < watchdog)
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::SocketAddr;
            socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return Err(io::ErrorKind::Unsupported.into()),
        None => {
            use std::ffi::OsStr;
            use std::os::unix::ffi::OsStrExt;
            socket.connect(OsStr::from_bytes(name))?;
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

//! How many bytes make a TCP socket readable: its low-water mark, `SO_RCVLOWAT`.
//!
//! The kernel wakes a reader for each few segments, and each wake-up costs half a dozen system calls. A reader that is
//! owed half a megabyte can sleep until it has arrived. The end of the stream and errors wake it all the same, and
//! so does a receive buffer that is too small for the mark.

use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};

/// Reads into less than this many bytes wait for one byte. Measured with messages of 1 MiB: half of it gains
/// nothing.
const LARGE: usize = 128 << 10;

/// The highest mark, in bytes. Measured with messages of 1 MiB: half of it saves two thirds as much. Twice as much saves a
/// little more, but the kernel may hold that much for each connection, and a sender far away has to wait for the
/// reader longer.
const HIGHEST: libc::c_int = 512 << 10;

// The macro expands to an unsafe call of nix's, the only one in this crate: `forbid(unsafe_code)` does not look into
// the macros of other crates.
sockopt_impl!(ReceiveLowWater, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, libc::c_int);

/// The mark of a socket: what the kernel was told last, in bytes, or zero if the mark is not used.
#[derive(Clone, Debug, Default)]
pub(super) struct LowWater(libc::c_int);

impl LowWater {
    /// Uses the mark from now on, where that was measured.
    pub(super) fn enable(&mut self) {
        // Each new socket has this one.
        self.0 = libc::c_int::from(cfg!(target_os = "linux"));
    }

    /// Sets the mark for a read into `len` bytes. To be called before the wait is registered.
    pub(super) fn prepare(&mut self, socket: &impl AsFd, len: usize) {
        let wanted = match len {
            ..LARGE => 1,
            _ => libc::c_int::try_from(len).map_or(HIGHEST, |len| len.min(HIGHEST)),
        };
        // If it fails, the connection is already gone.
        if self.0 != 0 && self.0 != wanted && setsockopt(socket, ReceiveLowWater, &wanted).is_ok() {
            self.0 = wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::ioctl_fionread;

    use super::*;

    fn is_readable(socket: &TcpStream) -> bool {
        let mut sockets = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut sockets, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "the mark is not used there")]
    fn a_socket_is_readable_once_it_has_what_a_large_read_is_owed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        let (mut mark, mut sent) = (LowWater::default(), 0);
        let mut send = |bytes: usize| {
            client.write_all(&vec![0; bytes]).unwrap();
            sent += bytes as u64;
            while ioctl_fionread(&socket).unwrap() < sent {
                std::thread::yield_now();
            }
        };
        send(1);
        mark.prepare(&socket, 1 << 20);
        assert!(is_readable(&socket), "it was not enabled");
        mark.enable();
        for (len, has) in [(LARGE - 1, true), (LARGE, false), (1, true), (usize::MAX, false)] {
            mark.prepare(&socket, len);
            assert_eq!(is_readable(&socket), has, "{len}");
        }
        send(LARGE - 2);
        mark.prepare(&socket, LARGE);
        assert!(!is_readable(&socket), "{LARGE} bytes less one");
        send(1);
        assert!(is_readable(&socket), "{LARGE} bytes");
        mark.prepare(&socket, LARGE + 1);
        assert!(!is_readable(&socket));
        drop(client);
        let started = std::time::Instant::now();
        while !is_readable(&socket) {
            assert!(started.elapsed() < std::time::Duration::from_secs(30), "its end");
        }
    }
}

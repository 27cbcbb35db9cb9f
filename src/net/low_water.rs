//! How many bytes make a TCP socket readable: its low-water mark, `SO_RCVLOWAT`.
//!
//! The kernel wakes a reader for each few segments, and each wake-up costs half a dozen system calls. A reader that is
//! owed half a megabyte can sleep until it has arrived. The end of the stream and errors wake it all the same, and
//! so does a receive buffer that is too small for the mark.

use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};

/// Reads into less than this many bytes wait for one byte. A call to change the mark costs as much as it
/// could save there.
const LARGE: usize = 128 << 10;

/// The highest mark, in bytes. Measured with messages of 1 MiB: half of it saves half as much. Twice as much saves a
/// little more, but the kernel may hold that much for each connection, and a sender far away has to wait for the
/// reader longer.
const HIGHEST: libc::c_int = 512 << 10;

// The code of this macro is nix's.
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

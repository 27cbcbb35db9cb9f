//! What only Unix sockets have: a file with an owner and a mode, and a process at the other end.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::mode_t;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};

use super::byte_stream::{Peer, invalid};

/// The highest mode, which lets everybody do everything.
const HIGHEST_MODE: u16 = 0o777;

/// Who may connect to a Unix socket: the owner and the mode of its file. What is `None` is as the system makes it:
/// the owner is the user of the process, and the mode depends on its umask.
///
/// To connect, a process needs the permission to write to the file. See
/// [`Address::listen_with`](crate::Address::listen_with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The mode, at most `0o777`: `0o660` for the owner and the group.
    pub mode: Option<u16>,
    /// The user who owns it.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl SocketAccess {
    /// Gives the file of a socket its owner and its mode. Does not follow a symbolic link that somebody may have
    /// put in place of the file.
    pub(super) fn give_to(&self, path: &Path) -> io::Result<()> {
        let says = |what: &str, error: nix::Error| {
            let error = io::Error::from(error);
            io::Error::new(
                error.kind(),
                format!("cannot set the {what} of the socket's file: {error}"),
            )
        };
        let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        if uid.is_some() || gid.is_some() {
            fchownat(AT_FDCWD, path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(|error| says("owner", error))?;
        }
        if let Some(mode) = self.mode {
            if mode > HIGHEST_MODE {
                return Err(invalid(format!(
                    "mode {mode:o} is over the highest, {HIGHEST_MODE:o}"
                )));
            }
            let mode = Mode::from_bits_truncate(mode_t::from(mode));
            fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)
                .map_err(|error| says("mode", error))?;
        }
        Ok(())
    }
}

/// Removes the file of a Unix socket when dropped, if it is still the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    /// Returns the file of a socket that was just bound.
    pub(super) fn of_bound(path: &Path) -> SocketFile {
        SocketFile { path: path.to_owned(), inode: inode(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && self.inode == inode(&self.path) {
            // If this fails, the next server finds the leftover and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.ino())
}

/// Returns the process at the other end of an accepted connection.
#[cfg(target_os = "linux")]
pub(super) fn peer(stream: &UnixStream) -> Peer {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    getsockopt(stream, PeerCredentials).map_or(Peer::Unix, |peer| {
        // A process that is not visible has the number 0.
        let pid = u32::try_from(peer.pid()).ok().filter(|&pid| pid > 0);
        Peer::UnixProcess { uid: peer.uid(), pid }
    })
}

/// Returns the peer of an accepted connection.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(_: &UnixStream) -> Peer {
    Peer::Unix
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process;

    use nix::unistd::{getegid, geteuid};

    use super::*;
    use crate::net::address::Address;

    #[test]
    fn the_process_at_the_other_end_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        smol::block_on(async {
            let listener = Address::Unix(path.clone()).listen().await.unwrap();
            let _client = UnixStream::connect(&path).unwrap();
            let peer = listener.accept().await.unwrap().1;
            let (uid, pid) = (geteuid().as_raw(), process::id());
            assert_eq!(peer.to_string(), format!("uid:{uid}/pid:{pid}"));
        });
    }

    #[test]
    fn a_file_has_its_owner_and_mode_whatever_the_umask_says() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o666, 0o777, 0o000] {
            let path = directory.path().join(format!("{mode:o}"));
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            let access = SocketAccess { mode: Some(mode), uid: Some(uid), gid: Some(gid) };
            let address = Address::Unix(path.clone());
            let _listener = smol::block_on(address.listen_with(access)).unwrap();
            let file = fs::metadata(&path).unwrap();
            assert_eq!(file.permissions().mode() & 0o7777, u32::from(mode));
            assert_eq!((file.uid(), file.gid()), (uid, gid));
        }
    }

    #[test]
    fn a_file_that_cannot_have_its_access_is_removed_and_a_port_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let access = SocketAccess { mode: Some(0o1000), ..SocketAccess::default() };
        let address = Address::Unix(path.clone());
        let error = smol::block_on(address.listen_with(access)).unwrap_err();
        assert_eq!(error.to_string(), "mode 1000 is over the highest, 777");
        assert!(!path.exists());
        let port: Address = ":0".parse().unwrap();
        assert!(smol::block_on(port.listen_with(access)).is_err());
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "precious").unwrap();
        let before = fs::metadata(&target).unwrap().permissions();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let access = SocketAccess { mode: Some(0o666), ..SocketAccess::default() };
        assert!(access.give_to(&link).is_err());
        assert_eq!(fs::metadata(&target).unwrap().permissions(), before);
    }
}

//! The system calls that make a file survive a crash of the machine.

use std::fs::File;
use std::io;
use std::path::Path;

/// Syncs a file and its directory entry. Short of a crash of the machine, nothing shows whether that was
/// done; so tests replace these calls, to count them and to make them fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) data: fn(&File) -> io::Result<()>,
    pub(super) directory: fn(&File) -> io::Result<()>,
}

impl Syncs {
    /// Any error of the system call.
    pub(super) const SYSTEM: Syncs = Syncs { data: File::sync_data, directory: File::sync_all };

    /// Syncs the directory entry of the file at `path`.
    pub(super) fn name_of(self, path: &Path) -> io::Result<()> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match (self.directory)(&File::open(directory)?) {
            // Not every file system supports this.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    thread_local! {
        static DONE: RefCell<Vec<Synced>> = const { RefCell::new(Vec::new()) };
        static FAILING: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
    }

    /// A call that a test has counted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) enum Synced {
        /// Of the file with this inode, when it had so many bytes.
        Data(u64, u64),
        /// Of the directory with this inode.
        Directory(u64),
    }

    /// The system's calls, counted for this thread.
    pub(in super::super) const COUNTED: Syncs = Syncs {
        data: |file| {
            if let Some(code) = FAILING.with_borrow_mut(Vec::pop) {
                return Err(io::Error::from_raw_os_error(code));
            }
            let metadata = file.metadata()?;
            DONE.with_borrow_mut(|done| done.push(Synced::Data(metadata.ino(), metadata.len())));
            (Syncs::SYSTEM.data)(file)
        },
        directory: |file| {
            let inode = file.metadata()?.ino();
            DONE.with_borrow_mut(|done| done.push(Synced::Directory(inode)));
            (Syncs::SYSTEM.directory)(file)
        },
    };

    /// Returns what was done since the last time.
    pub(in super::super) fn synced() -> Vec<Synced> {
        DONE.take()
    }

    /// Has the next calls fail with these codes of the system, the last one first.
    pub(in super::super) fn fail(codes: &[i32]) {
        FAILING.replace(codes.to_vec());
    }

    #[test]
    fn the_name_of_a_file_is_safe_in_its_directory_if_that_can_be_synced() {
        synced();
        COUNTED.name_of(Path::new("messages")).unwrap();
        COUNTED.name_of(Path::new("./messages")).unwrap();
        let here = Synced::Directory(Path::new(".").metadata().unwrap().ino());
        assert_eq!(synced(), [here, here]);
        let cannot = Syncs { directory: |_| Err(io::ErrorKind::InvalidInput.into()), ..COUNTED };
        cannot.name_of(Path::new("messages")).unwrap();
        let fails = Syncs { directory: |_| Err(io::ErrorKind::StorageFull.into()), ..COUNTED };
        assert!(fails.name_of(Path::new("messages")).is_err());
    }

    /// What the system says of files that it cannot sync shows that it was asked to.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_is_asked() {
        for (sync, path) in
            [(Syncs::SYSTEM.data, "/proc/self/comm"), (Syncs::SYSTEM.directory, "/proc/self")]
        {
            let error = sync(&File::open(path).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }
}

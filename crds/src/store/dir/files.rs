//! Files that are whole or absent, written by one at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::statfs::statfs;

/// Filesystems whose locks, renames or change notices other hosts do not see (magic numbers of statfs(2)).
const REFUSED: [(u32, &str); 13] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

/// The kind of network filesystem that a path is on, if it is.
pub(super) fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    let found = statfs(path)?.filesystem_type().0;
    Ok(refused(i128::from(found)))
}

/// The type is as wide as the machine's word, and may be signed; the magic is 32 bits of it.
fn refused(found: i128) -> Option<&'static str> {
    let magic = found & 0xffff_ffff;
    REFUSED.iter().find(|(refused, _)| i128::from(*refused) == magic).map(|(_, name)| *name)
}

/// What a name's file holds; none if there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Makes a file that must not be there yet: the claim. `AlreadyExists` if it is.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = write_temporary(path, bytes, mode, true)?;
    let claimed = renameat2(AT_FDCWD, &temporary, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE);
    if let Err(error) = claimed {
        let _gone = fs::remove_file(&temporary);
        return Err(error.into());
    }
    sync_parent(path)
}

/// Puts a file in the place of what is there, or of nothing.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    rename(&write_temporary(path, bytes, mode, true)?, path)?;
    sync_parent(path)
}

/// As [`replace`], of a file that still holds `held` when the new one is on disk: that takes milliseconds, and people
/// rename theirs to the name without our lock. False: it holds something else, which stays.
pub(super) fn replace_held(path: &Path, held: Option<&[u8]>, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let temporary = write_temporary(path, bytes, mode, true)?;
    if read(path)?.as_deref() != held {
        fs::remove_file(&temporary)?;
        return Ok(false);
    }
    rename(&temporary, path)?;
    sync_parent(path)?;
    Ok(true)
}

/// As [`replace`]; a crash of the machine may leave the old file, or a torn one.
pub(super) fn replace_unsynced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    rename(&write_temporary(path, bytes, mode, false)?, path)
}

fn rename(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path).inspect_err(|_| {
        let _gone = fs::remove_file(temporary);
    })
}

/// Removes a file; that it is gone already is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A name in the same directory that nobody reads: it begins with a dot.
fn write_temporary(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let parent = parent(path)?;
    fs::create_dir_all(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = parent.join(format!(".{name}.{}.{count}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
        let mut file = match file {
            Ok(file) => file,
            // a process of another PID namespace has our number
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_all() } else { Ok(()) });
        if let Err(error) = written {
            let _gone = fs::remove_file(&temporary);
            return Err(error);
        }
        return Ok(temporary);
    }
}

/// Removes the temporary files of a directory and of those in it.
pub(super) fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&entry.path());
        } else if name.starts_with('.') && name.ends_with(".tmp") {
            let _gone = fs::remove_file(entry.path());
        }
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a directory"))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path)?)?.sync_all()
}

/// The lock of a kind, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits until nobody else writes objects of the kind.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(parent(path)?)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map(|file| Self { _file: file })
            .map_err(|(_, errno)| errno.into())
    }
}

#[cfg(test)]
mod tests;

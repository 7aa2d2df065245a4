//! The file of the inputs: replaced whole, read whole, moved aside when it cannot be used.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A new file beside the old one, synced, then renamed over it: at any moment one of them is whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(named)
}

/// The file's bytes; none: there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Out of the way, and kept for whoever wants to know what happened. Returns where it is now.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension(format!("corrupt-{}", Timestamp::now().as_second()));
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

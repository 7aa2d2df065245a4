//! The journal file: what the node remembers of its pods. The format and its meaning are `manx_ipam::journal`'s;
//! this is the file, on a thread of its own, because a sync to disk takes milliseconds and blocks.
//!
//! Appends that wait together are written and synced together (group commit): one `fdatasync` per ADD or DEL at
//! most. At 1 MiB the file is replaced by a shorter one that says the same.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use jiff::Timestamp;
use manx_ipam::journal::{HEADER, Record, Replay, State, replay};
use tokio::sync::oneshot;

/// Above this the file is compacted.
const COMPACT_AT: u64 = 1 << 20;

struct Append {
    record: Record,
    done: oneshot::Sender<Result<(), String>>,
}

/// A handle to the journal's thread; the thread ends when the handle is dropped.
pub(crate) struct Journal {
    appends: mpsc::Sender<Append>,
}

impl Journal {
    /// Opens or makes the journal and reads it back. A torn tail is cut off; a damaged file is copied aside first,
    /// and what could be read of it is used.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Replay)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(named)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(named)?;
        let replayed = replay(&bytes);
        if !replayed.complete() {
            let aside = aside(path);
            std::fs::write(&aside, &bytes).map_err(named)?;
            for damage in &replayed.corrupt {
                tracing::error!(error = %damage, kept = %aside.display(), "the journal is damaged");
            }
        }
        let mut writer = Writer { path: path.to_owned(), file, length: 0, state: replayed.state.clone() };
        if replayed.complete() && replayed.valid_length > 0 {
            writer.cut(replayed.valid_length as u64).map_err(named)?;
        } else {
            writer.compact().map_err(named)?;
        }
        let (appends, receiver) = mpsc::channel();
        thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok((Self { appends }, replayed))
    }

    /// Appends a record; the answer comes once it is on disk, or says why it is not.
    pub(crate) fn append(&self, record: Record) -> oneshot::Receiver<Result<(), String>> {
        let (done, receiver) = oneshot::channel();
        // A dead thread drops the sender, which the receiver reports.
        drop(self.appends.send(Append { record, done }));
        receiver
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    state: State,
}

impl Writer {
    fn run(mut self, appends: &mpsc::Receiver<Append>) {
        while let Ok(first) = appends.recv() {
            let mut group = vec![first];
            group.extend(appends.try_iter());
            let outcome = self.commit(&group).map_err(|error| format!("{}: {error}", self.path.display()));
            if let Err(error) = &outcome {
                tracing::error!(%error, effect = "ADD and DEL fail until it can be written", "the journal");
            }
            for append in group {
                // Who asked may have given up waiting.
                drop(append.done.send(outcome.clone()));
            }
        }
    }

    fn commit(&mut self, group: &[Append]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for append in group {
            bytes.extend(append.record.encode());
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a group may stand there: back to where everything was acknowledged.
            self.cut(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        for append in group {
            self.state.apply(append.record.clone());
        }
        if self.length > COMPACT_AT { self.compact() } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.length = length;
        Ok(())
    }

    /// A new file beside the old one, synced, then renamed over it: at any moment one of them is whole.
    fn compact(&mut self) -> io::Result<()> {
        let bytes = self.state.compact(Timestamp::now());
        debug_assert!(bytes.starts_with(HEADER.as_bytes()), "a journal begins with its header");
        let temporary = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.length = bytes.len() as u64;
        self.file = file;
        Ok(())
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension(format!("corrupt-{}", Timestamp::now().as_second()))
}

#[cfg(test)]
mod tests {
    use manx_ipam::journal::{Address, PodRecord, Step};

    use super::*;

    fn record(id: u32) -> Record {
        Record::Pod(PodRecord {
            container_id: format!("{id:064x}"),
            interface: "eth0".into(),
            namespace: "shop".into(),
            name: format!("web-{id}"),
            uid: "u".into(),
            addresses: vec![Address {
                ip: "10.244.0.1".parse().unwrap(),
                block: "10.244.0.0/26".parse().unwrap(),
                pool: "p".into(),
            }],
            step: Step::Assigned,
            host_interface: None,
            mac: None,
            host_mac: None,
        })
    }

    fn append(journal: &Journal, record: Record) {
        journal.append(record).blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, replayed) = Journal::open(&path).unwrap();
        assert_eq!(replayed.state, State::default());
        append(&journal, record(1));
        append(&journal, record(2));
        drop(journal);
        // The tail of an append that never finished.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"00000000 {\"pod\":");
        std::fs::write(&path, bytes).unwrap();
        let (journal, replayed) = Journal::open(&path).unwrap();
        assert!(replayed.complete());
        assert_eq!(replayed.state.pods.len(), 2);
        append(&journal, record(3));
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.state.pods.len(), 3);
    }

    #[test]
    fn damage_in_the_middle_is_kept_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        for id in 0..3 {
            append(&journal, record(id));
        }
        drop(journal);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        let (_, replayed) = Journal::open(&path).unwrap();
        assert_eq!((replayed.corrupt.len(), replayed.state.pods.len()), (1, 2));
        let kept = std::fs::read_dir(dir.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("journal.corrupt-")
        });
        assert_eq!(kept.count(), 1);
    }

    #[test]
    fn a_long_journal_is_shortened_to_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let wait: Vec<_> = (0..5_000).map(|_| journal.append(record(7))).collect();
        for done in wait {
            done.blocking_recv().unwrap().unwrap();
        }
        drop(journal);
        assert!(std::fs::metadata(&path).unwrap().len() < COMPACT_AT);
        assert_eq!(Journal::open(&path).unwrap().1.state.pods.len(), 1);
    }
}

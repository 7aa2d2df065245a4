//! The journal file: what the node remembers of its pods. The format and its meaning are `manx_ipam::journal`'s;
//! this is the file, on a thread of its own, because a sync to disk takes milliseconds and blocks.
//!
//! Appends that wait together are written and synced together (group commit): one `fdatasync` per ADD or DEL at
//! most. At 1 MiB the file is replaced by a shorter one that says the same. After a failed write the file is behind what
//! the node did: it is written anew, whole, with the next append or a second later.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use manx_ipam::journal::{HEADER, Record, Replay, State, replay};

/// Above this the file is compacted.
const COMPACT_AT: u64 = 1 << 20;

/// How soon a journal that could not be written is written anew.
const AGAIN: Duration = Duration::from_secs(1);

struct Append {
    sequence: u64,
    record: Record,
}

/// Hears of every record in order: on disk with all before it, or not yet and why.
type Heard = Box<dyn Fn(u64, Result<(), String>) + Send>;

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
    pub(crate) fn open(
        path: &Path,
        heard: impl Fn(u64, Result<(), String>) + Send + 'static,
    ) -> io::Result<(Self, Replay)> {
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
        let mut writer = Writer {
            path: path.to_owned(),
            file,
            length: 0,
            state: replayed.state.clone(),
            last: 0,
            behind: false,
            heard: Box::new(heard),
        };
        if replayed.complete() && replayed.valid_length > 0 {
            writer.cut(replayed.valid_length as u64).map_err(named)?;
        } else {
            writer.compact().map_err(named)?;
        }
        let (appends, receiver) = mpsc::channel();
        thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok((Self { appends }, replayed))
    }

    /// Appends a record under this number, which grows by one each time.
    ///
    /// # Errors
    /// The journal's thread is gone.
    pub(crate) fn append(&self, sequence: u64, record: Record) -> Result<(), String> {
        let sent = self.appends.send(Append { sequence, record });
        sent.map_err(|_| "the journal's thread is gone".to_owned())
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    /// What is acknowledged of the file, in bytes.
    length: u64,
    /// What the records add up to, failed ones included: the node has already done what they say.
    state: State,
    last: u64,
    /// The file does not say all that `state` says.
    behind: bool,
    heard: Heard,
}

impl Writer {
    fn run(mut self, appends: &mpsc::Receiver<Append>) {
        loop {
            let first = if self.behind {
                match appends.recv_timeout(AGAIN) {
                    Ok(append) => Some(append),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            } else {
                let Ok(append) = appends.recv() else { return };
                Some(append)
            };
            let group: Vec<Append> = first.into_iter().chain(appends.try_iter()).collect();
            let outcome = self.commit(&group).map_err(|error| format!("{}: {error}", self.path.display()));
            match &outcome {
                // The records that failed are on disk now.
                Ok(()) if group.is_empty() => (self.heard)(self.last, Ok(())),
                Err(error) => {
                    tracing::error!(%error, effect = "ADD and DEL fail until it can be written", "the journal");
                }
                Ok(()) => {}
            }
            for append in group {
                (self.heard)(append.sequence, outcome.clone());
            }
        }
    }

    fn commit(&mut self, group: &[Append]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for append in group {
            bytes.extend(append.record.encode());
            self.state.apply(append.record.clone());
            self.last = append.sequence;
        }
        if self.behind {
            self.compact()?;
            self.behind = false;
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            self.behind = true;
            // Half a group may stand there. If it cannot be cut off either, a replay does, or the whole file is replaced.
            if let Err(error) = self.cut(self.length) {
                tracing::error!(%error, "the journal's torn end stays");
            }
            return Err(error);
        }
        self.length += bytes.len() as u64;
        if self.length > COMPACT_AT
            && let Err(error) = self.compact()
        {
            // What was appended is on disk all the same.
            tracing::warn!(%error, effect = "it grows", "the journal was not shortened");
        }
        Ok(())
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
            network: "manx".into(),
        })
    }

    type Said = mpsc::Receiver<(u64, Result<(), String>)>;

    fn open(path: &Path) -> (Journal, Said, Replay) {
        let (heard, said) = mpsc::channel();
        let (journal, replayed) =
            Journal::open(path, move |sequence, outcome| drop(heard.send((sequence, outcome)))).unwrap();
        (journal, said, replayed)
    }

    fn append(journal: &Journal, said: &Said, id: u32) {
        journal.append(id.into(), record(id)).unwrap();
        assert_eq!(said.recv().unwrap(), (id.into(), Ok(())));
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, said, replayed) = open(&path);
        assert_eq!(replayed.state, State::default());
        append(&journal, &said, 1);
        append(&journal, &said, 2);
        drop(journal);
        // The tail of an append that never finished.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"00000000 {\"pod\":");
        std::fs::write(&path, bytes).unwrap();
        let (journal, said, replayed) = open(&path);
        assert!(replayed.complete());
        assert_eq!(replayed.state.pods.len(), 2);
        append(&journal, &said, 3);
        drop(journal);
        assert_eq!(open(&path).2.state.pods.len(), 3);
    }

    #[test]
    fn damage_in_the_middle_is_kept_aside_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (journal, said, _) = open(&path);
        for id in 0..3 {
            append(&journal, &said, id);
        }
        drop(journal);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        let (_, _, replayed) = open(&path);
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
        let (journal, said, _) = open(&path);
        for sequence in 1..=5_000 {
            journal.append(sequence, record(7)).unwrap();
        }
        for sequence in 1..=5_000 {
            assert_eq!(said.recv().unwrap(), (sequence, Ok(())));
        }
        drop(journal);
        assert!(std::fs::metadata(&path).unwrap().len() < COMPACT_AT);
        assert_eq!(open(&path).2.state.pods.len(), 1);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (heard, said) = mpsc::channel();
        let file = OpenOptions::new().read(true).open("/dev/null").unwrap();
        let heard: Heard = Box::new(move |sequence, outcome| drop(heard.send((sequence, outcome))));
        // A file that takes no writes, in a directory that does.
        let mut writer = Writer {
            path: path.clone(),
            file,
            length: 0,
            state: State::default(),
            last: 0,
            behind: false,
            heard,
        };
        let (one, two) =
            (Append { sequence: 1, record: record(1) }, Append { sequence: 2, record: record(2) });
        writer.commit(&[one]).unwrap_err();
        assert!(writer.behind && !path.exists());
        let (appends, receiver) = mpsc::channel();
        let thread = thread::spawn(move || writer.run(&receiver));
        assert_eq!(said.recv().unwrap(), (1, Ok(())));
        appends.send(two).unwrap();
        assert_eq!(said.recv().unwrap(), (2, Ok(())));
        drop(appends);
        thread.join().unwrap();
        assert_eq!(open(&path).2.state.pods.len(), 2);
    }
}

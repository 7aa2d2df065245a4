//! manx-cni and its configuration on the host, where the container runtime looks for them.
//!
//! ```text
//!   nothing there ────────────────► ours is written
//!   ours, of another version ─────► ours is written
//!   ours, edited by a person ─────► stays; said once
//!   another's under our name ─────► put aside as `.foreign`; ours is written
//!   another's that comes before ──► stays: the runtime uses that one; said once
//! ```
//! The configuration carries a mark with a digest of itself, so that an edit is told from an older version. Files are
//! written beside their place, synced and renamed inside the directory: runtimes read at any moment, and do not notice
//! a file that is moved in from elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use manx_cni::SOCKET_PATH;
use manx_crds::store::Store;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::driver::{Driver, Event};
use crate::writer::Write;

/// Our configuration: the number says in which order runtimes look.
pub(crate) const CONFIGURATION: &str = "10-manx.conflist";
pub(crate) const PLUGIN: &str = "manx-cni";
/// What runtimes ignore and we know our files by.
const MARK: &str = "manx.dev/installed";
/// Spoken by every runtime since containerd 1.6; 1.1.0 is refused by the chained plugins of most distributions.
const CNI_VERSION: &str = "1.0.0";
/// How often somebody else's doings are noticed.
const LOOK: Duration = Duration::from_secs(30);

/// Where things go. A directory that is not given gets nothing.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Directories {
    /// Where the container runtime looks for CNI plugins, such as /opt/cni/bin; without it manx-cni is not installed
    #[arg(long, env = "MANX_CNI_BIN_DIR", value_name = "DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// Where it looks for networks, such as /etc/cni/net.d; without it no configuration is written
    #[arg(long, env = "MANX_CNI_CONF_DIR", value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
}

/// What one look led to, for the log and an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Written(PathBuf),
    /// Left as it is: a person changed it.
    Edited(PathBuf),
    /// Was there under our name; where it is now.
    PutAside(PathBuf),
    /// Another network that the runtime uses instead of ours.
    Before(PathBuf),
}

impl Found {
    /// What a person should know, and whether it is a warning.
    pub(crate) fn text(&self) -> (bool, String) {
        match self {
            Self::Written(path) => (false, format!("{} written", path.display())),
            Self::Edited(path) => (
                true,
                format!("{} was edited and stays so; delete it to have ours written again", path.display()),
            ),
            Self::PutAside(path) => {
                (true, format!("a file that is not ours had our name: it is {} now", path.display()))
            }
            Self::Before(path) => (
                true,
                format!(
                    "{} comes before {CONFIGURATION}: the runtime uses that one; remove it",
                    path.display()
                ),
            ),
        }
    }
}

/// Installs, and looks again.
#[derive(Debug, Clone)]
pub(crate) struct Installer {
    pub(crate) directories: Directories,
    /// The plugin that came with us.
    pub(crate) plugin: PathBuf,
    /// felix's CNI socket, as the runtime finds it.
    pub(crate) socket: PathBuf,
}

impl Installer {
    /// Brings both directories to what they should hold; what was done or seen.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub(crate) fn look(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        // The plugin first: with the configuration the runtime begins to call it.
        if let Some(directory) = &self.directories.cni_bin_dir {
            let path = directory.join(PLUGIN);
            let ours = std::fs::read(&self.plugin).map_err(|error| named(&self.plugin, &error))?;
            if std::fs::read(&path).ok().as_deref() != Some(ours.as_slice()) {
                place(&path, &ours, 0o755)?;
                found.push(Found::Written(path));
            }
        }
        if let Some(directory) = &self.directories.cni_conf_dir {
            self.configuration(directory, &mut found)?;
        }
        Ok(found)
    }

    fn configuration(&self, directory: &Path, found: &mut Vec<Found>) -> io::Result<()> {
        let path = directory.join(CONFIGURATION);
        let wanted = self.wanted();
        match std::fs::read(&path) {
            Ok(bytes) => match Author::of(&bytes) {
                Author::Us if bytes == wanted => {}
                Author::Us => {
                    place(&path, &wanted, 0o600)?;
                    found.push(Found::Written(path));
                }
                Author::Person => found.push(Found::Edited(path)),
                Author::Other => {
                    let aside = path.with_extension("foreign");
                    std::fs::rename(&path, &aside).map_err(|error| named(&path, &error))?;
                    found.push(Found::PutAside(aside));
                    place(&path, &wanted, 0o600)?;
                    found.push(Found::Written(path));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                place(&path, &wanted, 0o600)?;
                found.push(Found::Written(path));
            }
            Err(error) => return Err(named(&path, &error)),
        }
        found.extend(
            first_network(directory)?
                .filter(|name| name != CONFIGURATION)
                .map(|name| Found::Before(directory.join(name))),
        );
        Ok(())
    }

    /// Ours, with those chained plugins that the host has: hostPort and bandwidth are theirs.
    fn wanted(&self) -> Vec<u8> {
        let mut first = Map::from_iter([("type".to_owned(), json!(PLUGIN))]);
        if self.socket != Path::new(SOCKET_PATH) {
            first.insert("socket".to_owned(), json!(self.socket));
        }
        let chained = [
            ("portmap", json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}})),
            ("bandwidth", json!({"type": "bandwidth", "capabilities": {"bandwidth": true}})),
        ];
        let here = |name: &str| {
            self.directories.cni_bin_dir.as_ref().is_none_or(|directory| directory.join(name).is_file())
        };
        let chained = chained.into_iter().filter(|(name, _)| here(name)).map(|(_, plugin)| plugin);
        let plugins: Vec<Value> = [Value::Object(first)].into_iter().chain(chained).collect();
        marked(json!({"cniVersion": CNI_VERSION, "name": "manx", "plugins": plugins}))
    }
}

/// Removes what [`Installer::look`] wrote; the paths that are gone now. An edited configuration goes too: nobody
/// answers its calls any more. Another's stays.
///
/// # Errors
/// What the file system says, with the path.
pub(crate) fn remove(directories: &Directories) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    // The configuration first, so that the runtime does not call what is gone.
    if let Some(directory) = &directories.cni_conf_dir {
        let path = directory.join(CONFIGURATION);
        match std::fs::read(&path).map(|bytes| Author::of(&bytes)) {
            Ok(Author::Us | Author::Person) => {
                std::fs::remove_file(&path).map_err(|error| named(&path, &error))?;
                removed.push(path);
            }
            Ok(Author::Other) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&path, &error)),
        }
    }
    if let Some(directory) = &directories.cni_bin_dir {
        let path = directory.join(PLUGIN);
        match std::fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(named(&path, &error)),
        }
    }
    Ok(removed)
}

/// Whose a configuration under our name is.
#[derive(Debug, PartialEq, Eq)]
enum Author {
    Us,
    /// It was ours, or a person wrote a network of ours.
    Person,
    Other,
}

impl Author {
    fn of(bytes: &[u8]) -> Self {
        let Ok(Value::Object(mut map)) = serde_json::from_slice(bytes) else { return Self::Other };
        let mark = map.remove(MARK);
        let digest = mark.as_ref().and_then(|mark| mark.get("digest")).and_then(Value::as_str);
        if digest.is_some_and(|digest| digest == digest_of(&map)) {
            return Self::Us;
        }
        let plugins = map.get("plugins").and_then(Value::as_array).into_iter().flatten();
        let types: Vec<&str> = plugins.filter_map(|plugin| plugin.get("type")?.as_str()).collect();
        if types.contains(&PLUGIN) { Self::Person } else { Self::Other }
    }
}

fn marked(configuration: Value) -> Vec<u8> {
    let Value::Object(mut map) = configuration else { return Vec::new() };
    let mark = json!({"version": manx_daemon::VERSION, "digest": digest_of(&map)});
    map.insert(MARK.to_owned(), mark);
    let mut text = format!("{:#}", Value::Object(map)).into_bytes();
    text.push(b'\n');
    text
}

/// Of the content, however it is laid out.
fn digest_of(map: &Map<String, Value>) -> String {
    let text = Value::Object(map.clone()).to_string();
    let digest: [u8; 32] = Sha256::digest(text).into();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The network that runtimes use: the first by name.
fn first_network(directory: &Path) -> io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in std::fs::read_dir(directory).map_err(|error| named(directory, &error))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_network = Path::new(&name)
            .extension()
            .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known));
        if is_network && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    Ok(first)
}

/// Writes a file so that whoever reads sees the old one or the new one.
fn place(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || {
        std::fs::create_dir_all(directory)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Runtimes go by the end of the name.
        let temporary = directory.join(format!(".{name}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The installer in the loop: from the first moment at which an ADD would be served.
pub(crate) struct Installing {
    installer: Installer,
    next: Option<Instant>,
    /// A look is under way.
    busy: bool,
    said: Vec<Found>,
    error: Option<String>,
}

impl Installing {
    pub(crate) fn new(installer: Installer) -> Self {
        Self { installer, next: None, busy: false, said: Vec::new(), error: None }
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.next.filter(|_| !self.busy)
    }
}

impl<S: Store> Driver<S> {
    pub(crate) fn tick_install(&mut self, now: Instant) {
        let Directories { cni_bin_dir, cni_conf_dir } = &self.installing.installer.directories;
        let wanted = cni_bin_dir.is_some() || cni_conf_dir.is_some();
        let due = self.installing.next.is_none_or(|at| at <= now);
        if !wanted || !due || self.installing.busy || !self.serves() {
            return;
        }
        self.installing.busy = true;
        let (installer, events) = (self.installing.installer.clone(), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = installer.look().map_err(|error| error.to_string());
            // The loop is gone: the process ends.
            drop(events.send(Event::Installed(outcome)));
        });
    }

    pub(crate) fn installed(&mut self, outcome: Result<Vec<Found>, String>) {
        self.installing.busy = false;
        self.installing.next = Instant::now().checked_add(LOOK);
        match outcome {
            Ok(found) => {
                self.installing.error = None;
                for news in found.iter().filter(|news| !self.installing.said.contains(news)) {
                    let (warning, text) = news.text();
                    if warning {
                        tracing::warn!(what = text, "the CNI configuration");
                        self.status.send(Write::NodeEvent {
                            warning,
                            reason: "CNIConfigurationForeign",
                            note: text,
                        });
                    } else {
                        tracing::info!(what = text, "installed for the container runtime");
                    }
                }
                // What was written is said each time.
                self.installing.said =
                    found.into_iter().filter(|found| !matches!(found, Found::Written(_))).collect();
            }
            Err(error) => {
                if self.installing.error.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        effect = "the container runtime may not find manx-cni",
                        r#do = "look at --cni-bin-dir and --cni-conf-dir",
                        "not installed"
                    );
                }
                self.installing.error = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests;

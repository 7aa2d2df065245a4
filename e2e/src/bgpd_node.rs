//! One bgpd in a namespace, driven by the objects of a directory and asked on its socket.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::{Launch, Process, built};
use crate::store::Objects;

/// A node's name, namespace, objects and bgpd, which runs between [`BgpdNode::start`] and its end.
#[derive(Debug)]
pub struct BgpdNode {
    name: String,
    pub netns: Netns,
    home: PathBuf,
    pub objects: Objects,
    process: Option<Process>,
}

impl BgpdNode {
    /// With an empty store of its own; everything is below `directory`, in a folder of the node's name.
    pub fn new(name: &str, netns: &Netns, directory: &Path) -> Result<Self> {
        let objects = Objects::create(&directory.join(name).join("objects"))?;
        Self::with_objects(name, netns, directory, objects)
    }

    /// As [`BgpdNode::new`], with a store that others may have, too.
    pub fn with_objects(name: &str, netns: &Netns, directory: &Path, objects: Objects) -> Result<Self> {
        let home = directory.join(name);
        for part in ["run", "state"] {
            fs::create_dir_all(home.join(part)).with_context(|| format!("{}", home.display()))?;
        }
        Ok(Self { name: name.to_owned(), netns: netns.clone(), home, objects, process: None })
    }

    /// bgpd of this build with the capabilities that it has where it is installed; `more` are arguments.
    pub fn start(&mut self, more: &[&str]) -> Result<()> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (store, run) = (path(self.objects.directory()), path(&self.run_dir()));
        let state = path(&self.state_dir());
        let words = ["--node", &self.name, "--store", &store, "--run-dir", &run, "--state-dir", &state];
        let launch = Launch {
            label: format!("bgpd on {}", self.name),
            netns: self.netns.clone(),
            program: built("bgpd")?,
            arguments: words.iter().chain(more).map(|&word| word.to_owned()).collect(),
            capabilities: Some(&["net_admin", "net_raw", "net_bind_service"]),
            log: self.log(),
        };
        self.process = Some(launch.start()?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.taken()?.kill()
    }

    /// SIGTERM; an error if it has not ended in order by then.
    pub fn terminate(&mut self, patience: Duration) -> Result<()> {
        self.taken()?.terminate(patience)
    }

    fn taken(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("bgpd on {} does not run", self.name))
    }

    /// Of its process, between its start and its end.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("bgpd.log")
    }

    /// What it wrote so far, in all its lives.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Where its socket is.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// The answer to one question on the control socket; null where there is none.
    #[must_use]
    pub fn ask(&self, question: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.run_dir().join("bgpd.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{question}\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer)
        };
        serde_json::from_str(&ask().unwrap_or_default()).unwrap_or_default()
    }

    /// All sessions as bgpd sees them at this moment.
    #[must_use]
    pub fn sessions(&self) -> Vec<Value> {
        items(self.ask("{\"verb\": \"peers\"}").get("sessions"))
    }

    /// The session with this BGPPeer, of a class of neighbours the first; null where there is none.
    #[must_use]
    pub fn session(&self, peer: &str) -> Value {
        let named = |session: &Value| session.get("peer").is_some_and(|name| name == peer);
        self.sessions().into_iter().find(named).unwrap_or_default()
    }

    #[must_use]
    pub fn is_up(&self, peer: &str) -> bool {
        self.session(peer).get("state").is_some_and(|state| state == "Established")
    }

    /// What bgpd says of the paths to a prefix.
    #[must_use]
    pub fn paths(&self, prefix: &str) -> Vec<Value> {
        items(self.ask(&format!("{{\"verb\": \"routes\", \"prefix\": \"{prefix}\"}}")).get("routes"))
    }

    /// The status of BGPSession `<node>.<peer>`, as it was last written; null where there is none.
    #[must_use]
    pub fn status(&self, peer: &str) -> Value {
        let file = format!(".status/bgpsessions.manx.dev/{}.{peer}.yaml", self.name);
        let text = fs::read_to_string(self.objects.directory().join(file)).unwrap_or_default();
        let written: Value = serde_json::from_str(&text).unwrap_or_default();
        written.pointer("/managers/manx-bgpd/status").cloned().unwrap_or_default()
    }

    /// Status, reason and message of a condition of that BGPSession, as it was last written.
    #[must_use]
    pub fn condition(&self, peer: &str, kind: &str) -> (String, String, String) {
        let of_kind = |one: &Value| one.get("type").is_some_and(|name| name == kind);
        let one = items(self.status(peer).get("conditions")).into_iter().find(of_kind).unwrap_or_default();
        let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// The kernel's routes of bgpd, blackholes among them: `-4` or `-6`.
    pub fn routes(&self, family: &str) -> Result<Vec<Value>> {
        Ok(items(Some(&self.netns.ip_json(&[family, "route", "show", "proto", "77"])?)))
    }

    /// The kernel's route to a prefix as bgpd wrote it, no blackhole; null where there is none.
    pub fn route(&self, prefix: &str) -> Result<Value> {
        let routes = self.routes(if prefix.contains(':') { "-6" } else { "-4" })?;
        let is = |route: &Value, key: &str, value: &str| route.get(key).is_some_and(|found| found == value);
        let wanted = |route: &Value| is(route, "dst", prefix) && !is(route, "type", "blackhole");
        Ok(routes.into_iter().find(wanted).unwrap_or_default())
    }

    /// Whether the kernel has a route of bgpd to a prefix that leads somewhere.
    #[must_use]
    pub fn has_learned(&self, prefix: &str) -> bool {
        self.route(prefix).is_ok_and(|route| !route.is_null())
    }
}

fn items(list: Option<&Value>) -> Vec<Value> {
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

//! The settings of the host that forwarding pods' traffic needs, in one table with an owner.
//!
//! Written under `/proc/sys/net`, which CAP_NET_ADMIN and uid 0 suffice for. Each old value is recorded before the first
//! change and put back on uninstall. What cannot be set is reported by name and never guessed around.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// One setting: `net/ipv4/ip_forward` is to be `value`, because `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path below `/proc/sys`. With slashes, since interface names may have dots.
    pub key: String,
    pub value: &'static str,
    /// Other values that do as well and are left alone.
    pub also: &'static [&'static str],
    pub why: &'static str,
    /// Its absence is no fault: a kernel without IPv6, or an interface that has gone.
    pub optional: bool,
}

/// What the host needs, in the order in which it must be written. `uplinks`: interfaces that lead to other nodes.
pub fn host_settings(uplinks: &[&str]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for uplink in uplinks {
        // Before forwarding: the kernel drops default routes learned from routers when an interface with accept_ra=1
        // begins to forward.
        settings.push(Setting {
            key: format!("net/ipv6/conf/{uplink}/accept_ra"),
            value: "2",
            also: &["0"],
            why: "a forwarding interface ignores router advertisements otherwise, and the node loses its IPv6 default route",
            optional: true,
        });
        settings.push(Setting {
            key: format!("net/ipv4/conf/{uplink}/rp_filter"),
            value: "2",
            also: &[],
            why: "with two uplinks a reply may come in by the one the request did not leave through",
            optional: true,
        });
    }
    let fixed =
        |key: &str, value, also, why, optional| Setting { key: key.to_owned(), value, also, why, optional };
    settings.extend([
        fixed("net/ipv4/ip_forward", "1", &[][..], "pods' IPv4 traffic is forwarded by the node", false),
        fixed("net/ipv6/conf/all/forwarding", "1", &[], "pods' IPv6 traffic is forwarded by the node", true),
        // Else the next segment of a connection that policy has just cut brings it back to life: the answer that was on
        // its way is taken for the first packet of a connection in the other direction, which may be allowed.
        fixed(
            "net/netfilter/nf_conntrack_tcp_loose",
            "0",
            &[],
            "a TCP connection that policy has cut must not be picked up again in the middle",
            true,
        ),
        fixed(
            "net/ipv4/fib_multipath_hash_policy",
            "1",
            &["3"],
            "flows spread over uplinks by port, not by host pair",
            true,
        ),
        fixed(
            "net/ipv6/fib_multipath_hash_policy",
            "1",
            &["3"],
            "flows spread over uplinks by port, not by host pair",
            true,
        ),
    ]);
    settings
}

/// What the host's end of a pod's link needs before it is set up, beyond [`crate::link::secure_host_end`].
pub fn host_end(interface: &str) -> Vec<Setting> {
    vec![Setting {
        key: format!("net/ipv6/conf/{interface}/accept_ra"),
        value: "0",
        also: &[],
        why: "a pod must not become the node's router",
        optional: true,
    }]
}

/// The administrator's check of reverse paths on every interface: the kernel takes the larger number of this and a link's
/// own, and 1 drops what a pod may send from addresses that are not routed to it.
pub fn strict_everywhere(sysctl: &Sysctl) -> Option<Problem> {
    let key = "net/ipv4/conf/all/rp_filter";
    let found = sysctl.read(key).ok().filter(|found| found == "1")?;
    Some(Problem {
        key: key.to_owned(),
        found: Some(found),
        wanted: "0".to_owned(),
        why: "the kernel drops what pods send from manx.dev/allowed-source-prefixes",
        source: io::Error::other("it is the administrator's, and felix leaves it alone"),
    })
}

/// Old values by key, to be kept on disk until they are restored.
pub type Record = BTreeMap<String, String>;

/// A setting that is not as it must be, and could not be made so.
#[derive(Debug)]
pub struct Problem {
    pub key: String,
    /// What is there, if it can be read.
    pub found: Option<String>,
    pub wanted: String,
    pub why: &'static str,
    pub source: io::Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, wanted, why, source } = self;
        let found = found.as_deref().unwrap_or("unreadable");
        write!(f, "sysctl {key} is {found}, expected {wanted} ({why}): {source}")
    }
}

impl Problem {
    /// The command that mends it.
    pub fn remedy(&self) -> String {
        format!("sysctl -w {}={}", self.key, self.wanted)
    }
}

/// The tree of settings. It belongs to the network namespace of the thread that reads or writes it.
#[derive(Debug, Clone)]
pub struct Sysctl {
    root: PathBuf,
}

/// Where a container of ours has the host's `net` mounted: its own `/proc/sys` is read-only.
const OF_THE_HOST: &str = "/host/proc/sys";

impl Default for Sysctl {
    /// The host's settings, from the host and from a container.
    fn default() -> Self {
        let mounted = Path::new(OF_THE_HOST).join("net").is_dir();
        Self::at(if mounted { OF_THE_HOST } else { "/proc/sys" })
    }
}

impl Sysctl {
    /// The tree at `root`, where the host's `/proc/sys` is mounted.
    pub fn at(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned() }
    }

    /// The present value, without the line end.
    ///
    /// # Errors
    /// `NotFound` where the kernel has no such setting.
    pub fn read(&self, key: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.root.join(key))?.trim_end().to_owned())
    }

    /// Writes one value.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, or `ReadOnlyFilesystem` where the tree is mounted so.
    pub fn write(&self, key: &str, value: &str) -> io::Result<()> {
        std::fs::write(self.root.join(key), value)
    }

    /// Makes every setting so, in order, and records the old value of what it changes, once. What it could not do.
    pub fn apply(&self, settings: &[Setting], record: &mut Record) -> Vec<Problem> {
        let mut problems = Vec::new();
        for Setting { key, value, also, why, optional } in settings {
            let problem =
                |found, source| Problem { key: key.clone(), found, wanted: (*value).to_owned(), why, source };
            match self.read(key) {
                Ok(found) if found == *value || also.contains(&found.as_str()) => {}
                Ok(found) => match self.write(key, value) {
                    Ok(()) => {
                        record.entry(key.clone()).or_insert(found);
                    }
                    Err(err) => problems.push(problem(Some(found), err)),
                },
                Err(err) if *optional && err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => problems.push(problem(None, err)),
            }
        }
        problems
    }

    /// Puts recorded values back and forgets them. What it could not put back stays in the record; what has gone from the
    /// kernel is forgotten.
    pub fn restore(&self, record: &mut Record) -> Vec<Problem> {
        let mut problems = Vec::new();
        record.retain(|key, value| match self.write(key, value) {
            Ok(()) => false,
            Err(err) if err.kind() == io::ErrorKind::NotFound => false,
            Err(source) => {
                let found = self.read(key).ok();
                let why = "the value found before installation";
                problems.push(Problem { key: key.clone(), found, wanted: value.clone(), why, source });
                true
            }
        });
        problems
    }
}

//! What a test makes on the machine and takes away again: namespaces, links, a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::frr;
use crate::netns::{self, Netns};
use crate::topology::{self, Scope};

/// Namespaces of one test and a directory. Dropped, both go, with whatever runs in the namespaces and with what FRR keeps elsewhere;
/// of a test that fails the directory stays.
#[derive(Debug)]
pub struct Lab {
    scope: Scope,
    spaces: Vec<Netns>,
    directory: PathBuf,
}

impl Lab {
    /// No other test of the process may have this name, nor one that begins with it and a hyphen.
    pub fn new(test: &str) -> Result<Self> {
        remove_stale()?;
        let scope = Scope::test(test);
        let directory = std::env::temp_dir().join(scope.router("files"));
        // What an earlier rig of this process left.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        Ok(Self { scope, spaces: Vec::new(), directory })
    }

    /// A namespace that forwards, and uses its addresses at once.
    pub fn space(&mut self, name: &str) -> Result<Netns> {
        let netns = Netns::create(self.scope.netns(name).name())?;
        self.spaces.push(netns.clone());
        netns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
        ])?;
        Ok(netns)
    }

    /// Namespaces `n1` and `peer` and a link between them: 10.9.0.2 and 10.9.0.1, fd09::2 and fd09::1.
    pub fn node_and_peer(&mut self) -> Result<[Netns; 2]> {
        let (node, peer) = (self.space("n1")?, self.space("peer")?);
        link(
            (&node, "eth0", &["10.9.0.2/24", "fd09::2/64"]),
            (&peer, "eth0", &["10.9.0.1/24", "fd09::1/64"]),
        )?;
        Ok([node, peer])
    }

    /// The name of a router's path space.
    #[must_use]
    pub fn router(&self, name: &str) -> String {
        self.scope.router(name)
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What cannot be removed now the next test removes.
        let _ = netns::remove(self.spaces.iter().map(Netns::name));
        for name in frr::list(&self.scope.routers) {
            frr::forget(&name);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Tests of one process begin at the same time, and what is stale is removed once.
fn remove_stale() -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    topology::remove_stale_tests()
}

/// One end of a link: where, the interface's name, its addresses.
pub type End<'a> = (&'a Netns, &'a str, &'a [&'a str]);

/// A link between two namespaces, both ends up, each with the addresses given.
pub fn link(one: End<'_>, other: End<'_>) -> Result<()> {
    netns::batch(
        &[],
        &format!(
            "link add {} netns {} type veth peer name {} netns {}\n",
            one.1,
            one.0.name(),
            other.1,
            other.0.name()
        ),
    )?;
    for (netns, name, addresses) in [one, other] {
        let addresses: String = addresses.iter().map(|a| format!("addr add {a} dev {name}\n")).collect();
        netns.ip(&format!("link set {name} up\n{addresses}"))?;
    }
    Ok(())
}

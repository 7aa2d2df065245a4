//! The one privileged thing that the shim does: it opens the pod's network namespace and a netlink socket
//! inside it. felix, which lacks the right to enter namespaces, works through these two descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;

use manx_cni::error::{CniError, Code};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

pub(crate) struct Inside {
    pub(crate) namespace: File,
    pub(crate) netlink: OwnedFd,
    /// Why IPv6 stayed off inside the pod, if it did.
    pub(crate) ipv6_off: Option<String>,
}

/// Moves this process into the namespace at `path`; `prepare`: IPv6 is switched on there.
pub(crate) fn enter(path: &str, prepare: bool) -> Result<Inside, CniError> {
    let io = |what: &str, error: &dyn std::fmt::Display| {
        CniError::new(Code::Io, format!("cannot {what} {path}: {error}")).because(
            &format!("manx-cni, CNI_NETNS {path}"),
            "the network namespace of the sandbox",
            "nothing: the runtime makes the sandbox again",
        )
    };
    let namespace = File::open(path).map_err(|error| io("open the network namespace", &error))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| io("enter the network namespace", &error))?;
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map_err(|error| io("open a netlink socket in", &error))?;
    Ok(Inside { namespace, netlink, ipv6_off: if prepare { switch_ipv6_on() } else { None } })
}

/// Some runtimes create sandboxes with IPv6 off. `/proc/sys/net` shows the namespace of who reads it.
fn switch_ipv6_on() -> Option<String> {
    for which in ["all", "default", "lo"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        let value = match std::fs::read_to_string(&path) {
            Ok(value) => value,
            Err(error) => return Some(format!("{path}: {error}")),
        };
        if value.trim() != "0"
            && let Err(error) = std::fs::write(&path, "0")
        {
            return Some(format!("{path}: {error}"));
        }
    }
    None
}

//! Capabilities: what a daemon needs, and giving up the rest.

use std::fmt;

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};

/// What felix runs with.
pub const FELIX: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// What bgpd runs with.
pub const BGPD: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];
/// What bgpd keeps where it has it: neighbours on an interface are found by ICMPv6 (RFC 4861). Without any such peer it is not missed.
pub const BGPD_MAY_KEEP: &[Capability] = &[Capability::CAP_NET_RAW];

/// A needed capability is not there. Its parts are those of every error for people: what, where, expected, do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCapability {
    pub missing: Vec<Capability>,
    pub effective: Vec<Capability>,
    pub needed: Vec<Capability>,
}

impl MissingCapability {
    /// What the process has: `effective capabilities 0x2000 (NET_RAW)`.
    pub fn place(&self) -> String {
        said(&self.effective)
    }

    /// What it should have.
    pub fn expected(&self) -> String {
        format!("{}, nothing more", names(&self.needed, " and "))
    }

    /// What mends it, for a unit or container of `program`.
    pub fn remedy(&self, program: &str) -> String {
        format!("securityContext.capabilities.add, or AmbientCapabilities= in {program}.service")
    }
}

impl fmt::Display for MissingCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        write!(f, "{} {verb} missing", names.join(" and "))
    }
}

impl std::error::Error for MissingCapability {}

/// Why capabilities could not be checked or dropped.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    #[error(transparent)]
    Missing(#[from] MissingCapability),
    #[error("cannot read the process's capabilities")]
    Read(#[source] caps::errors::CapsError),
    #[error("cannot drop capabilities")]
    Drop(#[source] caps::errors::CapsError),
}

/// Whether the calling thread has all of `needed`.
///
/// # Errors
/// Names what is missing.
pub fn check(needed: &[Capability]) -> Result<(), CapabilityError> {
    let effective = effective()?;
    let missing: Vec<_> =
        needed.iter().copied().filter(|capability| !effective.contains(capability)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(MissingCapability { missing, effective, needed: needed.to_vec() }.into())
}

/// Checks `keep`, then gives up everything else, for good: ambient, inheritable, bounding (where allowed), permitted and
/// effective.
///
/// Capabilities belong to threads and are inherited: call it in `main`, before any thread or runtime.
///
/// # Errors
/// One of `keep` is missing, or the kernel refused.
pub fn keep_only(keep: &[Capability]) -> Result<(), CapabilityError> {
    keep_if_there(keep, &[])
}

/// The same, and of `welcome` what is there stays.
///
/// # Errors
/// As [`keep_only`].
pub fn keep_if_there(needed: &[Capability], welcome: &[Capability]) -> Result<(), CapabilityError> {
    check(needed)?;
    let held = caps::read(None, CapSet::Permitted).map_err(CapabilityError::Read)?;
    let welcome = welcome.iter().filter(|capability| held.contains(capability));
    let keep: CapsHashSet = needed.iter().chain(welcome).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(CapabilityError::Drop)?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(CapabilityError::Read)? {
        for capability in caps::read(None, CapSet::Bounding).map_err(CapabilityError::Read)?.difference(&keep)
        {
            caps::drop(None, CapSet::Bounding, *capability).map_err(CapabilityError::Drop)?;
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(CapabilityError::Drop)?;
    caps::set(None, CapSet::Effective, &keep).map_err(CapabilityError::Drop)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(CapabilityError::Drop)
}

/// What the calling thread has: `effective capabilities 0x2000 (NET_RAW)`.
///
/// # Errors
/// The kernel does not say.
pub fn held() -> Result<String, CapabilityError> {
    effective().map(|effective| said(&effective))
}

fn effective() -> Result<Vec<Capability>, CapabilityError> {
    let effective = caps::read(None, CapSet::Effective).map_err(CapabilityError::Read)?;
    let mut effective: Vec<_> = effective.into_iter().collect();
    effective.sort_unstable_by_key(Capability::index);
    Ok(effective)
}

fn said(effective: &[Capability]) -> String {
    let mask = effective.iter().fold(0, |mask, capability| mask | capability.bitmask());
    let names = names(effective, ", ");
    let names = if names.is_empty() { "none".to_owned() } else { names };
    format!("effective capabilities {mask:#x} ({names})")
}

fn names(capabilities: &[Capability], separator: &str) -> String {
    let names: Vec<String> = capabilities
        .iter()
        .map(|capability| capability.to_string().trim_start_matches("CAP_").to_owned())
        .collect();
    names.join(separator)
}

//! A real Kubernetes in network namespaces of this machine.
//!
//! [`ControlPlane`] is etcd and kube-apiserver alone, a few seconds away: enough for datastores, CRDs and rights.

mod authority;
mod binaries;
mod control_plane;
mod etcd;

pub use authority::Authority;
pub use binaries::Binaries;
pub use control_plane::{ControlPlane, Site};

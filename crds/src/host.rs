//! Paths on a node, defined once. What the kernel sees of us is named in `felix_calc::host`.

/// Sockets of the daemons. `--run-dir` replaces it where several nodes share one machine.
pub const RUN_DIR: &str = "/run/manx";
/// What a daemon remembers across a restart (root, 0700).
pub const STATE_DIR: &str = "/var/lib/manx";
/// bgpd's control socket, in the run directory.
pub const BGPD_SOCKET: &str = "bgpd.sock";
/// felix's control socket, in the run directory. The CNI socket is `manx_cni::SOCKET`.
pub const FELIX_SOCKET: &str = "felix-control.sock";
/// manx-controller's control socket, in the run directory.
pub const CONTROLLER_SOCKET: &str = "controller.sock";

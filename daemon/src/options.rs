//! Who am I, and where is everything: the same words for every daemon.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use manx_crds::store::any::Place;

use crate::inputs::Owner;
use crate::inputs::keeper::Keeper;

/// Options that every daemon takes. Each may also come from the environment.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Name of this node in the datastore; without it the host name
    #[arg(long, env = "NODE_NAME")]
    pub node: Option<String>,
    /// kubernetes, or the directory that holds the objects, one YAML file each
    #[arg(long, env = "MANX_STORE", value_name = "DIR")]
    pub store: Place,
    /// Where the sockets are
    #[arg(long, env = "MANX_RUN_DIR", value_name = "DIR", default_value = manx_crds::host::RUN_DIR)]
    pub run_dir: PathBuf,
    /// What is remembered across a restart
    #[arg(long, env = "MANX_STATE_DIR", value_name = "DIR", default_value = manx_crds::host::STATE_DIR)]
    pub state_dir: PathBuf,
    /// Namespace of the Secrets with the passwords of BGP sessions
    #[arg(long, env = "MANX_SECRETS_NAMESPACE", value_name = "NAMESPACE", default_value = crate::secrets::NAMESPACE)]
    pub secrets_namespace: String,
    /// Where probes and scrapes are answered, such as 127.0.0.1:9991; absent, nowhere
    #[arg(long, env = "MANX_HEALTH_ADDRESS", value_name = "ADDRESS:PORT")]
    pub health_address: Option<SocketAddr>,
    /// Filter of the log, such as info or felix=debug
    #[arg(long, env = "MANX_LOG", default_value = "info")]
    pub log: String,
}

impl Options {
    /// Answers probes, where that is asked for; `socket` is the daemon's control socket in the run directory.
    ///
    /// # Errors
    /// As [`crate::health::serve`].
    pub async fn serve_health(&self, socket: &str) -> io::Result<()> {
        match self.health_address {
            Some(address) => crate::health::serve(address, self.run_dir.join(socket)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Who keeps the inputs of this agent, in the state directory.
    pub fn inputs(&self, agent: &str, node: &str) -> Keeper {
        let owner = Owner { agent: agent.to_owned(), node: node.to_owned(), store: self.store.to_string() };
        Keeper::new(&self.state_dir, owner)
    }

    /// The node's name, given or taken from the host.
    ///
    /// # Errors
    /// Where the host name cannot be read.
    pub fn node_name(&self) -> io::Result<String> {
        match &self.node {
            Some(name) => Ok(name.clone()),
            None => Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned()),
        }
    }
}

/// Makes a directory of ours: root's, closed to everybody else.
///
/// # Errors
/// What the file system says, with the path.
pub fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(named)
}

//! Where `make kubernetes` put Kubernetes: `e2e/kubernetes/build` knows, because it made the place.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::netns::stdout_of;

/// The folder of binaries and images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// What `make kubernetes` built of this checkout's version; an error that says to build it, if nobody did.
    pub fn find() -> Result<Self> {
        let found = Self { directory: told_by("kubernetes/build")? };
        if found.has("binaries") || found.has("all") {
            return Ok(found);
        }
        bail!(
            "Kubernetes is not built\n  where      {}\n  expected   the binaries of e2e/kubernetes\n  do         make kubernetes (minutes once, then cached)",
            found.directory.display()
        )
    }

    /// As [`Binaries::find`], with CoreDNS and the images.
    pub fn find_all() -> Result<Self> {
        let found = Self::find()?;
        if found.has("all") {
            return Ok(found);
        }
        bail!(
            "the images of the cluster are not built\n  where      {}\n  expected   agnhost, CoreDNS, pause\n  do         make kubernetes",
            found.images().display()
        )
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// One program, such as `kube-apiserver`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// OCI archives, for each node.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    fn has(&self, what: &str) -> bool {
        self.directory.join(format!(".{what}")).exists()
    }
}

/// The containerd that `make containerd` built, for [`super::Options::runtime`].
pub fn newer_containerd() -> Result<PathBuf> {
    let folder = told_by("kubernetes/containerd/build")?;
    if folder.join(".all").exists() {
        return Ok(folder);
    }
    bail!(
        "containerd is not built\n  where      {}\n  expected   containerd, its shim and runc\n  do         make containerd (minutes once, then cached)",
        folder.display()
    )
}

/// Where a script of e2e puts what it builds.
fn told_by(script: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut command = Command::new(&script);
    command.arg("where");
    let text = stdout_of(command).with_context(|| format!("{}", script.display()))?;
    Ok(PathBuf::from(text.trim()))
}

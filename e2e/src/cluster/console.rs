//! What a person at a shell needs of a cluster that is up: `target/cluster/env` and the programs it adds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::control_plane::ControlPlane;
use super::network::PREFIX;
use super::options::Options;

/// Writes the env file, and `bin/kubectl`, `bin/kubectl-manx`, `bin/helm` and `bin/on`, which enter the right namespace.
pub(crate) fn write(options: &Options, plane: &ControlPlane) -> Result<()> {
    let home = &options.home;
    let bin = home.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("{}", bin.display()))?;
    let kubeconfig = home.join("kubeconfig");
    let enter = format!(
        "export KUBECONFIG=${{KUBECONFIG:-'{}'}}\nexec nsenter --net='{}' --",
        kubeconfig.display(),
        plane.netns().path().display()
    );
    let kubectl = plane.binaries().program("kubectl");
    script(&bin.join("kubectl"), &format!("{enter} '{}' \"$@\"\n", kubectl.display()))?;
    // The helm that comes after this folder in PATH, where none was named.
    let helm = options.helm.as_ref().map_or("helm".to_owned(), |helm| helm.display().to_string());
    script(&bin.join("helm"), &format!("PATH=${{PATH//'{}':/}}\n{enter} '{helm}' \"$@\"\n", bin.display()))?;
    // `kubectl manx`, built beside this program.
    let program = std::env::current_exe().context("this program's place")?.with_file_name("manxctl");
    script(
        &bin.join("kubectl-manx"),
        &format!("export MANX_STORE=kubernetes\n{enter} '{}' \"$@\"\n", program.display()),
    )?;
    script(
        &bin.join("on"),
        &format!(
            "# on NODE|ctl|client|tor-a|tor-b COMMAND…: on a node with all its files, elsewhere in the namespace only.\n\
             name=$1\nshift\nkeeper=$(cat '{0}/nodes/'\"$name\"/pid 2>/dev/null) || exec nsenter --net=\"/run/netns/{PREFIX}$name\" -- \"$@\"\n\
             read -r init _ 2>/dev/null <\"/proc/$keeper/task/$keeper/children\"\n# The file has no end of line, which read takes for an error.\n[ -n \"$init\" ] || {{ echo \"$name is off\" >&2; exit 1; }}\nexec nsenter --target \"$init\" --all -- \"$@\"\n",
            home.display()
        ),
    )?;
    let text = format!(
        "# . target/cluster/env\nexport KUBECONFIG='{}'\nexport PATH='{}':\"$PATH\"\n\
         # on n1 ctr -n k8s.io containers ls; from outside: on client curl …\n",
        kubeconfig.display(),
        bin.display()
    );
    fs::write(home.join("env"), text).context("target/cluster/env")
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/usr/bin/env bash\n{text}")).with_context(|| format!("{}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{}", path.display()))
}

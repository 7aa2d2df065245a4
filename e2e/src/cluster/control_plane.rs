//! etcd and kube-apiserver, with real certificates and RBAC, in one namespace.
//!
//! Nothing of it can be reached from outside that namespace: a test enters it. [`ControlPlane::run`] does so on a
//! thread, whose sockets, children and async runtimes (made there) are inside; [`ControlPlane::kubectl`] and
//! [`crate::process::Launch`] do so for a process.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::netns::{self, Netns, stdout_of};
use crate::process::{Launch, Process, tail, wait_for};
use crate::topology;

use super::authority::Authority;
use super::binaries::Binaries;
use super::etcd;

/// Where the API server listens.
const PORT: u16 = 6443;
/// How long a start may take on a busy machine; 3 s on a quiet one.
const PATIENCE: Duration = Duration::from_secs(90);
/// The address of a control plane that is alone, on its namespace's loopback: the API server refuses to advertise
/// 127.0.0.1.
const ALONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 1));

/// Where a control plane is to run.
#[derive(Clone, Debug)]
pub struct Site {
    pub netns: Netns,
    /// The address in `netns` that the API server advertises; it listens on all.
    pub address: IpAddr,
    /// What ClusterIPs are taken from, first the family that is preferred: one range, or one of each family.
    pub services: Vec<String>,
    /// For certificates, kubeconfigs, etcd's data. Made if it is not there.
    pub home: PathBuf,
    pub logs: PathBuf,
    /// Further flags of kube-apiserver.
    pub flags: Vec<String>,
}

/// A running etcd and kube-apiserver. Dropped, they end; what [`ControlPlane::up`] made goes too.
#[derive(Debug)]
pub struct ControlPlane {
    site: Site,
    binaries: Binaries,
    authority: Authority,
    api_server: Option<Process>,
    etcd: Option<Process>,
    /// Whether namespace and home are ours to remove.
    own: bool,
}

impl ControlPlane {
    /// One for a test, in a namespace of its own that is removed with it. `name` tells tests of one process apart.
    pub fn up(name: &str) -> Result<Self> {
        Self::up_with(name, &[])
    }

    /// The same, with further flags of kube-apiserver.
    pub fn up_with(name: &str, flags: &[&str]) -> Result<Self> {
        let binaries = Binaries::find()?;
        topology::remove_stale_tests().context("removing what earlier tests left")?;
        remove_stale_homes();
        let full = format!("manx-test-{}-{name}-ctl", std::process::id());
        let netns = Netns::create(&full)?;
        let home = std::env::temp_dir().join(&full);
        let site = Site {
            netns,
            address: ALONE,
            services: vec!["10.96.0.0/16".to_owned(), "fd00:96::/112".to_owned()],
            logs: home.join("logs"),
            home,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        };
        // From here on the value removes what it made, also when a step fails.
        let mut plane = Self::planned(site, binaries, true);
        plane.site.netns.ip(&format!("addr add {ALONE}/32 dev lo\n"))?;
        plane.prepare()?;
        plane.start_api_server()?;
        Ok(plane)
    }

    /// One at a place that the caller made and will remove: etcd runs, identities can be issued, and
    /// [`ControlPlane::start_api_server`] is next.
    pub fn prepare_at(site: Site, binaries: Binaries) -> Result<Self> {
        let mut plane = Self::planned(site, binaries, false);
        plane.prepare()?;
        Ok(plane)
    }

    /// The handle of one that another process started and left at that place. It answers, and cannot be stopped by
    /// this handle.
    #[must_use]
    pub fn found(site: Site, binaries: Binaries) -> Self {
        Self::planned(site, binaries, false)
    }

    fn planned(site: Site, binaries: Binaries, own: bool) -> Self {
        let authority = Authority::open(&site.home.join("pki"));
        Self { site, binaries, authority, api_server: None, etcd: None, own }
    }

    fn prepare(&mut self) -> Result<()> {
        fs::create_dir_all(&self.site.logs).with_context(|| format!("{}", self.site.logs.display()))?;
        self.etcd = Some(self.launch("etcd", self.etcd_flags()).start()?);
        self.authority = Authority::create(&self.site.home.join("pki"))?;
        self.authority.issue("api-server", "kube-apiserver", &[], &self.server_names()?)?;
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"], &[])?;
        self.authority.issue("front-proxy", "front-proxy-client", &[], &[])?;
        self.write_kubeconfig("admin", "admin", &["system:masters"], &self.admin_kubeconfig())
    }

    /// The namespace that everything which talks to it must be in.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.site.netns
    }

    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Such as `https://172.30.0.1:6443`.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", SocketAddr::new(self.site.address, PORT))
    }

    /// Runs `work` on a thread in the namespace: its sockets reach the API server. A tokio runtime must be made in
    /// `work`, so that its threads are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.site.netns.run(work)
    }

    /// The kubeconfig of a member of system:masters.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.site.home.join("kubeconfig")
    }

    /// Issues a certificate for `user` of `groups` and answers a kubeconfig with it, such as
    /// `("n1", "system:node:n1", &["system:nodes"])`. `name` is the file's.
    pub fn kubeconfig(&self, name: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let path = self.site.home.join(format!("{name}.kubeconfig"));
        self.write_kubeconfig(name, user, groups, &path)?;
        Ok(path)
    }

    /// A token of a service account that exists, valid for `lifetime` (the API server grants 10 minutes at least).
    pub fn token(&self, namespace: &str, account: &str, lifetime: Duration) -> Result<String> {
        let duration = format!("--duration={}s", lifetime.as_secs());
        let text = self.kubectl(&["-n", namespace, "create", "token", account, &duration])?;
        Ok(text.trim().to_owned())
    }

    /// A kubeconfig that presents `token`, whoever it is of. `name` is the file's.
    pub fn token_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.site.home.join(format!("{name}.kubeconfig"));
        self.write_config(&path, &format!("token: {token}"))?;
        Ok(path)
    }

    /// Standard output of kubectl as admin; its standard error is the error's text.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_as(&self.admin_kubeconfig(), arguments)
    }

    /// kubectl as whoever the kubeconfig is of.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command(kubeconfig);
        command.args(arguments);
        stdout_of(command).with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// A kubectl that is not started yet.
    #[must_use]
    pub fn kubectl_command(&self, kubeconfig: &Path) -> Command {
        let mut command = self.site.netns.command(&self.binaries.program("kubectl").to_string_lossy());
        // kubectl keeps its discovery cache here, and not in the home of who runs the test.
        command.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", self.site.home.join("kubectl-cache"));
        command
    }

    /// `kubectl apply -f -` of any number of documents.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.feed(&["apply", "-f", "-"], yaml)
    }

    /// kubectl with `input` as its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.kubectl_command(&self.admin_kubeconfig());
        command.args(arguments);
        netns::fed(command, &format!("kubectl {}", arguments.join(" ")), input)
    }

    /// Cuts the API server off at once (`kill -9`): connections break, nothing answers. etcd keeps running.
    pub fn stop_api_server(&mut self) -> Result<()> {
        let mut process = self.api_server.take().context("the API server is not running")?;
        process.kill()
    }

    /// Starts the API server (again) and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let launch = self.launch("kube-apiserver", self.api_server_flags());
        let log = launch.log.clone();
        let mut process = launch.start()?;
        let mut ended = None;
        let ready = wait_for(PATIENCE, || {
            ended = process.check_running().err();
            (ended.is_some() || self.ready()).then_some(())
        });
        match (ended, ready) {
            (None, Some(())) => self.api_server = Some(process),
            (ended, _) => {
                let what = ended.map_or_else(
                    || format!("the API server is not ready after {PATIENCE:?}"),
                    |error| format!("{error:#}"),
                );
                let etcd = tail(&self.log("etcd"), 5);
                bail!("{what}; the last lines of {}:\n{}\nof etcd:\n{etcd}", log.display(), tail(&log, 20));
            }
        }
        Ok(())
    }

    /// Forgets all history in etcd up to now, so that resourceVersions before it are answered 410. The API server's
    /// watch cache still has its own window.
    pub fn compact(&self) -> Result<u64> {
        self.run(etcd::compact)
    }

    /// Leaves both running: they go on after this process.
    pub fn leave(mut self) {
        self.own = false;
        for process in [self.api_server.take(), self.etcd.take()].into_iter().flatten() {
            process.leave();
        }
    }

    /// The port answers, and behind it everything is ready: RBAC's own roles are there.
    fn ready(&self) -> bool {
        let address = SocketAddr::new(self.site.address, PORT);
        let open = self.run(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()));
        // kubectl costs a tenth of a second of processor; it is asked only once the port is open.
        open.unwrap_or(false) && self.kubectl(&["get", "--raw=/readyz"]).is_ok_and(|text| text.trim() == "ok")
    }

    pub(crate) fn launch(&self, program: &str, arguments: Vec<String>) -> Launch {
        Launch {
            label: program.to_owned(),
            netns: self.site.netns.clone(),
            program: self.binaries.program(program),
            arguments,
            capabilities: None,
            log: self.log(program),
        }
    }

    fn log(&self, program: &str) -> PathBuf {
        self.site.logs.join(format!("{program}.log"))
    }

    fn etcd_flags(&self) -> Vec<String> {
        let clients = format!("http://127.0.0.1:{}", etcd::CLIENTS);
        vec![
            format!("--data-dir={}", self.site.home.join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", etcd::PEERS),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]
    }

    fn api_server_flags(&self) -> Vec<String> {
        let pki = |name: &str| self.authority.file(name).display().to_string();
        let mut flags = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", etcd::CLIENTS),
            format!("--service-cluster-ip-range={}", self.site.services.join(",")),
            "--bind-address=::".to_owned(),
            format!("--advertise-address={}", self.site.address),
            format!("--secure-port={PORT}"),
            format!("--tls-cert-file={}", pki("api-server.crt")),
            format!("--tls-private-key-file={}", pki("api-server.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--requestheader-client-ca-file={}", pki("ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
            format!("--proxy-client-key-file={}", pki("front-proxy.key")),
            "--enable-aggregator-routing=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ];
        flags.extend(self.site.flags.iter().cloned());
        flags
    }

    /// What the API server's certificate is for: its own addresses and the first ClusterIP of each range.
    fn server_names(&self) -> Result<Vec<String>> {
        let mut names = vec![
            "IP:127.0.0.1".to_owned(),
            "IP:::1".to_owned(),
            format!("IP:{}", self.site.address),
            "DNS:localhost".to_owned(),
        ];
        for range in &self.site.services {
            names.push(format!("IP:{}", first_of(range)?));
        }
        for suffix in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
            names.push(format!("DNS:kubernetes{suffix}"));
        }
        Ok(names)
    }

    fn write_kubeconfig(&self, name: &str, user: &str, groups: &[&str], path: &Path) -> Result<()> {
        self.authority.issue(name, user, groups, &[])?;
        // Relative to the file, wherever the folder is mounted.
        self.write_config(path, &format!("client-certificate: pki/{name}.crt, client-key: pki/{name}.key"))
    }

    fn write_config(&self, path: &Path, credentials: &str) -> Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: manx, cluster: {{server: \"{}\", certificate-authority: pki/ca.crt}}}}]\n\
             users: [{{name: user, user: {{{credentials}}}}}]\n\
             contexts: [{{name: manx, context: {{cluster: manx, user: user}}}}]\ncurrent-context: manx\n",
            self.server()
        );
        fs::write(path, text).with_context(|| format!("{}", path.display()))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Each ends when it is dropped; the API server before what it asks.
        drop(self.api_server.take());
        drop(self.etcd.take());
        if self.own {
            // Nobody can be told here; what is left over is removed by the next run.
            let _ = netns::remove([self.site.netns.name()]);
            let _ = fs::remove_dir_all(&self.site.home);
        }
    }
}

/// The first address of a range after its network address: 10.96.0.1 of 10.96.0.0/16.
fn first_of(range: &str) -> Result<IpAddr> {
    let network = range.split('/').next().unwrap_or_default();
    let network: IpAddr = network.parse().with_context(|| format!("range {range}"))?;
    Ok(match network {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | 1).into()),
    })
}

/// Removes homes of tests whose process is gone.
fn remove_stale_homes() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("manx-test-") else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if name.ends_with("-ctl") && !Path::new("/proc").join(pid).exists() {
            // Another test may be removing it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_has_the_first_address_of_each_range() {
        assert_eq!(first_of("10.96.0.0/16").unwrap().to_string(), "10.96.0.1");
        assert_eq!(first_of("fd00:96::/112").unwrap().to_string(), "fd00:96::1");
        assert!(first_of("nonsense").is_err());
    }
}

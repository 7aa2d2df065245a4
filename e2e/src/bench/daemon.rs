//! The five daemons as the benchmark runs them: the same sessions, everything taken and handed on.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::bench::feed::SOURCE_AS;
use crate::bench::proc::Processes;
use crate::bird::{self, Bird};
use crate::frr::{self, Frr};
use crate::gobgp::{self, GoBgp};
use crate::netns::{self, Netns, stdout_of};
use crate::openbgpd::{self, OpenBgpd};
use crate::process::{Launch, Process, tail, wait_for};
use crate::store::{Objects, peer};
use crate::topology::Scope;

pub const DAEMON_AS: u32 = 64512;
pub const SINK_AS: u32 = 65002;
/// The source and the daemon on the link between them.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
pub const TO_SOURCE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// The daemon on the sinks' link.
pub const TO_SINKS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);

/// Sinks are 192.168.1.1 and on.
#[must_use]
pub fn sink_address(number: usize) -> Ipv4Addr {
    let offset = u32::try_from(number).unwrap_or_default() + 1;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 1, 0)) + offset)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Manx,
    Bird,
    Frr,
    OpenBgpd,
    GoBgp,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Manx, Self::Bird, Self::Frr, Self::OpenBgpd, Self::GoBgp];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manx => "manx",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::OpenBgpd => "openbgpd",
            Self::GoBgp => "gobgp",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("no daemon {name:?}: DAEMONS=manx,bird,frr,openbgpd,gobgp"),
        }
    }

    /// Such as `BIRD 2.0.12`; an error that says what to install.
    pub fn version(self, manx: &Path) -> Result<String> {
        Ok(match self {
            Self::Manx => format!("Manx {}", line_of(manx, "--version")?.trim_start_matches("bgpd ")),
            Self::Bird => format!("BIRD {}", bird::version_of(None)?),
            Self::Frr => format!("FRR {}", frr::version()?),
            Self::OpenBgpd => format!("OpenBGPD {}", openbgpd::version()?),
            Self::GoBgp => format!("GoBGP {}", gobgp::version()?),
        })
    }
}

fn line_of(program: &Path, argument: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(argument);
    Ok(stdout_of(command)?.lines().next().unwrap_or_default().to_owned())
}

/// What a daemon is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub sinks: usize,
    /// Whether what is learned is written to the kernel.
    pub kernel: bool,
    /// The daemon waits to be dialled.
    pub passive: bool,
    /// Seconds.
    pub hold: u16,
    /// Graceful restart; `start_again` then says so.
    pub restart: bool,
}

/// The two namespaces of a run, with their links. Dropped, they are removed with everything in them.
#[derive(Debug)]
pub struct Bed {
    pub generator: Netns,
    daemon: Netns,
    directory: PathBuf,
    router: String,
    manx: PathBuf,
    running: Option<Running>,
}

/// Dropped, each ends its daemon.
#[derive(Debug)]
enum Running {
    Manx { _bgpd: Process },
    Bird { _bird: Bird },
    Frr(Frr),
    OpenBgpd { _bgpd: OpenBgpd },
    GoBgp { _gobgp: GoBgp },
}

impl Bed {
    /// Makes the namespaces; `manx` is the bgpd to measure.
    pub fn make(manx: &Path, sinks: usize) -> Result<Self> {
        let scope = Scope::test("bench");
        let (generator, daemon) =
            (Netns::create(scope.netns("gen").name())?, Netns::create(scope.netns("daemon").name())?);
        let directory = std::env::temp_dir().join(scope.router("files"));
        fs::create_dir_all(&directory)?;
        // OpenBGPD and FRR leave root behind.
        let bed = Self {
            generator,
            daemon,
            directory,
            router: scope.router("frr"),
            manx: manx.to_owned(),
            running: None,
        };
        for netns in [&bed.generator, &bed.daemon] {
            netns.sysctl(&[("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0")])?;
        }
        let (left, right) = (bed.generator.name(), bed.daemon.name());
        let links: String = ["src0", "snk0"]
            .iter()
            .map(|link| format!("link add {link} netns {left} type veth peer name {link} netns {right}\n"))
            .collect();
        netns::batch(&[], &links)?;
        let mut lines = format!(
            "link set src0 up\nlink set snk0 up\naddr add {SOURCE}/12 dev src0\naddr add 192.168.0.1/16 dev snk0\n"
        );
        for sink in 0..sinks {
            writeln!(lines, "addr add {}/32 dev snk0", sink_address(sink))?;
        }
        bed.generator.ip(&lines)?;
        bed.daemon.ip(&format!(
            "link set src0 up\nlink set snk0 up\naddr add {TO_SOURCE}/12 dev src0\naddr add {TO_SINKS}/16 dev snk0\n"
        ))?;
        Ok(bed)
    }

    /// Starts the daemon on an empty directory and waits until it answers.
    pub fn start(&mut self, kind: Kind, setup: Setup) -> Result<Processes> {
        self.launch(kind, setup, false)
    }

    /// Starts it again after [`Bed::kill`], with what it kept.
    pub fn start_again(&mut self, kind: Kind, setup: Setup) -> Result<Processes> {
        self.launch(kind, setup, true)
    }

    fn launch(&mut self, kind: Kind, setup: Setup, again: bool) -> Result<Processes> {
        let running = match kind {
            Kind::Manx => Running::Manx { _bgpd: self.start_manx(setup, again)? },
            Kind::Bird => {
                let bird: &[&str] = if again { &["-R"] } else { &[] };
                let arguments = bird::Arguments { bird, ..bird::Arguments::default() };
                Running::Bird {
                    _bird: Bird::start_with(
                        "bench",
                        &self.daemon,
                        &self.directory,
                        &bird_config(setup),
                        arguments,
                    )?,
                }
            }
            Kind::Frr => {
                let bgpd: &[&str] = if setup.kernel { &[] } else { &["-n"] };
                let zebra: &[&str] = if setup.restart { &["-K", "120"] } else { &[] };
                let arguments = frr::Arguments { zebra, bgpd, ..frr::Arguments::default() };
                let (name, config) = (&self.router, frr_config(setup));
                Running::Frr(Frr::start_with(name, &self.daemon, &self.directory, &config, arguments)?)
            }
            Kind::OpenBgpd => Running::OpenBgpd {
                _bgpd: OpenBgpd::start("bench", &self.daemon, &self.directory, &openbgpd_config(setup))?,
            },
            Kind::GoBgp => Running::GoBgp {
                _gobgp: GoBgp::start("bench", &self.daemon, &self.directory, &gobgp_config(setup))?,
            },
        };
        self.running = Some(running);
        Ok(Processes::of(self.daemon.pids()))
    }

    /// `kill -9` for every process of the daemon.
    pub fn kill(&mut self) {
        self.running = None;
    }

    #[must_use]
    pub fn daemon_netns(&self) -> &Netns {
        &self.daemon
    }

    /// Where bgpd keeps its files.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.directory.join("manx")
    }

    /// What bgpd logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("manx.log")
    }

    fn start_manx(&self, setup: Setup, again: bool) -> Result<Process> {
        let home = self.home();
        let (run, state) = (home.join("run"), home.join("state"));
        for directory in [&run, &state] {
            fs::create_dir_all(directory)?;
        }
        let socket = run.join("bgpd.sock");
        if !again {
            put_objects(&Objects::create(&home.join("objects"))?, setup)?;
        }
        // A socket that nobody listens on is left by kill -9, and would say that it is ready.
        let _ = fs::remove_file(&socket);
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let store = path(&home.join("objects"));
        let words =
            ["--node", "bench", "--store", &store, "--run-dir", &path(&run), "--state-dir", &path(&state)];
        let mut arguments: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        if !setup.kernel {
            arguments.push("--no-kernel-routes".to_owned());
        }
        let log = self.log();
        let mut process = Launch {
            label: "bgpd".to_owned(),
            netns: self.daemon.clone(),
            program: self.manx.clone(),
            arguments,
            capabilities: Some(&["net_admin", "net_raw", "net_bind_service"]),
            log: log.clone(),
        }
        .start()?;
        let ready = wait_for(Duration::from_secs(5), || socket.exists().then_some(()));
        process.check_running().with_context(|| tail(&log, 10))?;
        ready.with_context(|| format!("bgpd opened no socket\n{}", tail(&log, 10)))?;
        Ok(process)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(Running::Frr(router)) = self.running.take() {
            router.stop();
        }
        frr::forget(&self.router);
        // What is left says its name, and the next run removes it.
        let _ = netns::remove([self.generator.name(), self.daemon.name()]);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Address and AS of every neighbour, the source first.
fn neighbours(setup: Setup) -> impl Iterator<Item = (Ipv4Addr, u32)> {
    std::iter::once((SOURCE, SOURCE_AS)).chain((0..setup.sinks).map(|sink| (sink_address(sink), SINK_AS)))
}

fn put_objects(objects: &Objects, setup: Setup) -> Result<()> {
    let Setup { hold, passive, restart, .. } = setup;
    let mode = if restart { "Full" } else { "Disabled" };
    objects.put(
        "fabricconfigurations.manx.dev/default",
        &format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {{name: default}}\nspec:\n  \
             topology: {{mode: None}}\n  session:\n    timers: {{hold: {hold}s, connectRetry: 1s}}\n    \
             gracefulRestart: {{mode: {mode}}}\n    maxPrefixes: {{ipv4: 10000000}}\n"
        ),
    )?;
    // What may be learned lies inside a pool: both kinds of tables lie in 0.0.0.0/3.
    objects.put(
        "ippools.manx.dev/all",
        "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata: {name: all}\nspec: {cidr: \"0.0.0.0/3\"}\n",
    )?;
    objects.put(
        "nodes/bench",
        &format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: bench}}\nstatus:\n  addresses:\n  \
             - {{type: InternalIP, address: {TO_SINKS}}}\n"
        ),
    )?;
    objects.put(
        "fabricnodes.manx.dev/bench",
        &format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: bench}}\nspec: {{asn: {DAEMON_AS}}}\n"
        ),
    )?;
    for (number, (address, asn)) in neighbours(setup).enumerate() {
        let name = format!("p{number}");
        let more = format!("  transit: true\n  passive: {passive}\n  families: [IPv4Unicast]\n");
        objects.put(&format!("bgppeers.manx.dev/{name}"), &peer(&name, &address.to_string(), asn, &more))?;
    }
    Ok(())
}

fn bird_config(setup: Setup) -> String {
    let Setup { hold, kernel, passive, restart, .. } = setup;
    let mut config = format!("router id {TO_SINKS};\nprotocol device {{ scan time 60; }}\n");
    if kernel {
        let graceful = if restart { "persist; graceful restart on;" } else { "" };
        config += &format!("protocol kernel {{ {graceful} scan time 60; ipv4 {{ export all; }}; }}\n");
    }
    let (switch, restart) = (if passive { "on" } else { "off" }, if restart { "on" } else { "aware" });
    config += &format!(
        "template bgp one {{ local as {DAEMON_AS}; hold time {hold}; passive {switch}; connect delay time 1; \
         connect retry time 1; error wait time 1, 5; graceful restart {restart}; \
         ipv4 {{ import all; export all; }}; }}\n"
    );
    for (number, (address, asn)) in neighbours(setup).enumerate() {
        config += &format!("protocol bgp p{number} from one {{ neighbor {address} as {asn}; }}\n");
    }
    config
}

fn frr_config(setup: Setup) -> String {
    let Setup { hold, passive, restart, .. } = setup;
    let mut config = format!(
        "frr defaults datacenter\nhostname bench\nrouter bgp {DAEMON_AS}\n bgp router-id {TO_SINKS}\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n"
    );
    if restart {
        config += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    }
    for (group, asn) in [("SOURCE", SOURCE_AS), ("SINKS", SINK_AS)] {
        config += &format!(
            " neighbor {group} peer-group\n neighbor {group} remote-as {asn}\n neighbor {group} timers {} {hold}\n \
             neighbor {group} timers connect 1\n",
            hold / 3
        );
        if passive {
            config += &format!(" neighbor {group} passive\n");
        }
    }
    for (address, asn) in neighbours(setup) {
        let group = if asn == SOURCE_AS { "SOURCE" } else { "SINKS" };
        config += &format!(" neighbor {address} peer-group {group}\n");
    }
    config + "exit\n"
}

fn openbgpd_config(setup: Setup) -> String {
    let Setup { hold, passive, .. } = setup;
    let mut config = format!(
        "AS {DAEMON_AS}\nrouter-id {TO_SINKS}\nfib-update no\nlisten on 0.0.0.0\nholdtime {hold}\nconnect-retry 1\n"
    );
    let passive = if passive { " passive;" } else { "" }.trim_end_matches(';');
    for (address, asn) in neighbours(setup) {
        config += &format!("neighbor {address} {{\n remote-as {asn}\n{passive}\n}}\n");
    }
    config + "allow from any\nallow to any\n"
}

fn gobgp_config(setup: Setup) -> String {
    let Setup { hold, passive, .. } = setup;
    let mut config = format!("[global.config]\n  as = {DAEMON_AS}\n  router-id = \"{TO_SINKS}\"\n");
    for (address, asn) in neighbours(setup) {
        config += &format!(
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{address}\"\n    peer-as = {asn}\n  \
             [neighbors.transport.config]\n    passive-mode = {passive}\n  [neighbors.timers.config]\n    \
             hold-time = {hold}\n    keepalive-interval = {}\n    connect-retry = 1\n",
            hold / 3
        );
    }
    config
}

//! One source, a million prefixes, one sink, all in process: `make bench-rib`. Beside it what the layout was chosen by.
//!
//! | profile | attribute sets | UPDATEs in |
//! |---|---|---|
//! | dfz | one per 10 prefixes: 4 ASes, 4 communities | of 10 |
//! | k8s | one per prefix: 2 ASes | of 1 |
//! | k8snodes | one per node (40,000), which differ in the next hop alone | of 2 |
//!
//! CPU is that of the whole process, user and system, what makes the UPDATEs included; memory is VmHWM. Each run is a process
//! of its own, since a high-water mark does not fall.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::env;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use bgp_proto::policy::ExportPolicy;
use bgp_proto::rib::{PeerFacts, Rib, RibConfig, UnknownNextHops};
use bgp_proto::wire::attr::{self, code, flag};
use bgp_proto::wire::nlri;
use bgp_proto::{AfiSafi, Asn, PeerId, RouterId};

const OWN_AS: u32 = 64512;
const SOURCE_AS: u32 = 65001;
const SOURCE: PeerId = PeerId(0);
const SINK: PeerId = PeerId(1);
const MILLION: u32 = 1_000_000;
/// Prefixes of a run that only shows that the benchmark works.
const FEW: u32 = 10_000;
const RUNS: usize = 3;
/// Octets of UPDATEs between two drains, as the shell reads them.
const AT_ONCE: usize = 64 << 10;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Debug, Clone, Copy)]
enum Profile {
    Dfz,
    K8s,
    K8sNodes,
}

impl Profile {
    const ALL: [Profile; 3] = [Profile::Dfz, Profile::K8s, Profile::K8sNodes];

    fn name(self) -> &'static str {
        match self {
            Profile::Dfz => "dfz",
            Profile::K8s => "k8s",
            Profile::K8sNodes => "k8snodes",
        }
    }

    /// CPU s and MiB of the layout's prototype, in process, for a million prefixes.
    fn prototype(self) -> (&'static str, u32) {
        match self {
            Profile::Dfz => ("0.16-0.28", 50),
            Profile::K8s => ("0.42-0.80", 108),
            Profile::K8sNodes => ("0.19-0.33", 43),
        }
    }

    fn prefixes_per_update(self) -> u32 {
        match self {
            Profile::Dfz => 10,
            Profile::K8s => 1,
            Profile::K8sNodes => 2,
        }
    }

    /// The prefix with this number: /24s of a full table, /26s of blocks.
    fn prefix(self, number: u32) -> (u32, u8) {
        match self {
            Profile::Dfz => ((1 << 24) + (number << 8), 24),
            Profile::K8s | Profile::K8sNodes => ((10 << 24) + (number << 6), 26),
        }
    }

    /// The body of the UPDATE with this number.
    fn update(self, number: u32, body: &mut Vec<u8>) {
        let (mut path, mut next_hop) = (vec![SOURCE_AS], 0xC000_0201);
        let mut communities = Vec::new();
        match self {
            Profile::Dfz => {
                path.extend([3000 + number % 977, 70_000 + number % 7919, 200_000 + number]);
                communities
                    .extend((0..4).flat_map(|at| (65_001 << 16 | (number + at) & 0xFFFF).to_be_bytes()));
            }
            Profile::K8s => path.push(4_200_000_000 + number),
            Profile::K8sNodes => next_hop = 0x0A80_0001 + number % 40_000,
        }
        let mut as_path = vec![2, u8::try_from(path.len()).unwrap_or(0)];
        path.iter().for_each(|asn| as_path.extend(asn.to_be_bytes()));
        body.clear();
        body.extend([0, 0, 0, 0]);
        attr::put(body, flag::WELL_KNOWN, code::ORIGIN, &[0]);
        attr::put(body, flag::WELL_KNOWN, code::AS_PATH, &as_path);
        attr::put(body, flag::WELL_KNOWN, code::NEXT_HOP, &u32::to_be_bytes(next_hop));
        if !communities.is_empty() {
            attr::put(body, flag::OPTIONAL_TRANSITIVE, code::COMMUNITIES, &communities);
        }
        let length = u16::try_from(body.len() - 4).unwrap_or(0).to_be_bytes();
        body.iter_mut().skip(2).zip(length).for_each(|(to, from)| *to = from);
        let first = number * self.prefixes_per_update();
        for prefix in first..first + self.prefixes_per_update() {
            let (address, len) = self.prefix(prefix);
            nlri::put(body, address, len);
        }
    }
}

fn facts(number: u8, remote_asn: u32) -> PeerFacts {
    PeerFacts {
        families: [AfiSafi::Ipv4Unicast].into(),
        next_hop_ipv4: Some(Ipv4Addr::new(203, 0, 113, 9)),
        export: ExportPolicy::new(true),
        ..PeerFacts::new(
            Asn(remote_asn),
            Asn(OWN_AS),
            RouterId(Ipv4Addr::new(10, 0, 0, number)),
            IpAddr::from([192, 0, 2, number]),
        )
    }
}

/// What the RIB wants done after some input.
struct Sink {
    stream: Vec<u8>,
    updates: u32,
    kernel_routes: u32,
}

impl Sink {
    fn serve(&mut self, rib: &mut Rib) {
        while rib.drain() {}
        while rib.poll_fib().is_some() {
            self.kernel_routes += 1;
        }
        while rib.poll_event().is_some() {}
        while let Some(bytes) = rib.poll_transmit(SINK) {
            let length = bytes.len();
            self.stream.clear();
            self.stream.extend_from_slice(bytes);
            rib.transmitted(SINK, length);
            let mut messages = &self.stream[..];
            while let Some(length) = bgp_proto::wire::update::message_length(messages) {
                messages = messages.get(length..).unwrap_or_default();
                self.updates += 1;
            }
        }
    }
}

/// One run in this process; prints what it cost, for [`compare`].
fn run(profile: Profile, prefixes: u32) -> Outcome<()> {
    let mut config = RibConfig::new(Asn(OWN_AS), RouterId(Ipv4Addr::new(10, 0, 0, 99)), 42);
    config.unknown_next_hops = UnknownNextHops::Reachable;
    let mut rib = Rib::new(config);
    rib.peer_up(SOURCE, facts(1, SOURCE_AS));
    rib.peer_up(SINK, facts(2, 65002));
    let mut sink = Sink { stream: Vec::new(), updates: 0, kernel_routes: 0 };
    let (mut body, mut waiting) = (Vec::new(), 0);
    for number in 0..prefixes / profile.prefixes_per_update() {
        profile.update(number, &mut body);
        let outcome = rib.update(SOURCE, &body);
        if let Some(fault) = outcome.strongest() {
            return Err(format!("{}, UPDATE {number}: {fault}", profile.name()).into());
        }
        waiting += 19 + body.len();
        if waiting > AT_ONCE {
            sink.serve(&mut rib);
            waiting = 0;
        }
    }
    sink.serve(&mut rib);
    let told = rib.advertised(SINK, AfiSafi::Ipv4Unicast);
    if told != prefixes || sink.kernel_routes != prefixes {
        return Err(format!("{prefixes} in, {told} told, {} kernel routes", sink.kernel_routes).into());
    }
    println!("{} {} {}", cpu_seconds()?, peak_mib()?, sink.updates);
    Ok(())
}

/// User and system time of this process, in steps of the kernel's clock tick (10 ms).
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn peak_mib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// Every profile, each run in a child.
fn compare() -> Outcome<()> {
    println!("1,000,000 prefixes, {RUNS} runs each   CPU s (prototype)        MiB (prototype)   UPDATEs out");
    for profile in Profile::ALL {
        let (mut cpu, mut memory, mut updates) = (Vec::new(), 0, 0);
        for _ in 0..RUNS {
            let output = Command::new(env::current_exe()?).args(["run", profile.name()]).output()?;
            let text = String::from_utf8(output.stdout)?;
            let figures: Vec<&str> = text.split_whitespace().collect();
            let [seconds, mib, sent] = figures[..] else {
                return Err(format!("{}: {}", profile.name(), String::from_utf8_lossy(&output.stderr)).into());
            };
            cpu.push(seconds.parse::<f64>()?);
            memory = memory.max(mib.parse::<u64>()?);
            updates = sent.parse::<u32>()?;
        }
        let lowest = cpu.iter().copied().fold(f64::MAX, f64::min);
        let highest = cpu.iter().copied().fold(0.0, f64::max);
        let (seconds, mib) = profile.prototype();
        let name = profile.name();
        println!("{name:<28} {lowest:.2}-{highest:.2} ({seconds})    {memory:>4} ({mib:>3})    {updates:>9}");
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let by_name = |name: &str| Profile::ALL.into_iter().find(|profile| profile.name() == name);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", name] => run(by_name(name).ok_or("no such profile")?, MILLION),
        _ if arguments.iter().any(|argument| argument == "--bench") => compare(),
        // As a test: that it works, not how fast.
        _ => Profile::ALL.into_iter().try_for_each(|profile| run(profile, FEW)),
    }
}

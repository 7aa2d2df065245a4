//! The table outlives us, and others: adoption, foreign flushes, removal.

use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use felix_calc::plan::plan;
use felix_calc::table::{Field, Hook, Statement, Table, Value, Verdict};
use felix_kernel::nft::{Foreign, NftError, PolicyTable, Protection, Watch};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::packets::Path;
use crate::table::{base, equal, everything, put, table};

/// Set for the child process of [`the_table_survives_kill_and_is_adopted`].
const HOLD: &str = "FELIX_KERNEL_TEST_HOLD_TABLE";

/// Drops UDP to port 6000 on its way through.
fn refuse_6000() -> Table {
    let rules = vec![vec![
        equal(Field::Protocol, Value::Protocol(17)),
        equal(Field::DestinationPort, Value::Port(6000)),
        Statement::Verdict(Verdict::Drop),
    ]];
    table(vec![], vec![("forward", base(Hook::Forward, 0, rules))])
}

/// What the child does: makes the table and waits to be killed.
fn hold() {
    let mut kernel = PolicyTable::open().unwrap();
    assert_eq!(kernel.protection(), Protection::Owned);
    put(&mut kernel, &Table::default(), &refuse_6000()).unwrap();
    println!("written");
    thread::sleep(Duration::from_secs(60));
}

/// This test once more, in a process of its own, up to where the table is written.
fn holder() -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetime::the_table_survives_kill_and_is_adopted", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("written")), "the child ended early");
    child
}

#[test]
fn the_table_survives_kill_and_is_adopted() {
    if std::env::var_os(HOLD).is_some() {
        return hold();
    }
    let path = Path::new();
    let mut child = path.node.run(holder);
    let [open, refused] = [5000, 6000].map(|port| ([10, 9, 2, 2], port).into());
    assert!(path.udp_passes(open) && !path.udp_passes(refused));
    // A second felix is told, and changes nothing.
    let error = path.node.run(|| PolicyTable::open().unwrap_err());
    assert!(matches!(error, NftError::Owned { port } if port != 0), "{error}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();

    assert!(path.udp_passes(open) && !path.udp_passes(refused), "the rules are in force without their owner");
    let mut kernel = path.node.run(|| PolicyTable::open().unwrap());
    assert_eq!(kernel.protection(), Protection::Owned);
    let reading = kernel.read().unwrap();
    assert!(plan(&reading.table, &refuse_6000()).is_empty());
    assert!(!path.udp_passes(refused));
    // Adopted is owned: others cannot flush it, the new owner can change it.
    path.node.sh("nft flush ruleset; nft add table ip other; nft flush ruleset");
    path.node.sh("! nft delete table inet manx 2>/dev/null; ! nft flush table inet manx 2>/dev/null");
    assert!(!path.udp_passes(refused));
    put(&mut kernel, &refuse_6000(), &Table::default()).unwrap();
    assert!(path.udp_passes(refused));
}

/// Readable within a second; then what it says.
fn hear(watch: &mut Watch) -> Foreign {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(1000u16)), Ok(1), "nothing was heard");
    watch.look().unwrap()
}

fn quiet(watch: &Watch) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(0)
}

#[test]
fn a_foreign_change_is_heard_and_an_own_one_is_not() {
    let namespace = Namespace::new();
    let mut kernel = namespace.run(|| PolicyTable::open_unprotected().unwrap());
    assert_eq!(kernel.protection(), Protection::Open);
    let mut watch = namespace.run(|| kernel.watch().unwrap());
    put(&mut kernel, &Table::default(), &everything()).unwrap();
    assert!(quiet(&watch), "our own writing does not even wake the watcher");

    namespace.sh("nft add table ip other; nft add chain ip other c; nft add rule ip other c accept");
    assert_eq!(hear(&mut watch), Foreign::Unchanged, "another table");
    namespace.sh("nft add element inet manx sel4 '{ 10.0.0.77 }'");
    let Foreign::Changed { by: Some((process, name)) } = hear(&mut watch) else {
        panic!("an element was added");
    };
    assert!(process != 0 && name == "nft");
    assert_eq!(watch.look().unwrap(), Foreign::Unchanged, "news are told once");

    let before = kernel.read().unwrap().table;
    put(&mut kernel, &before, &everything()).unwrap();
    namespace.sh("nft flush ruleset");
    assert!(matches!(hear(&mut watch), Foreign::Changed { .. }));
    let reading = kernel.read().unwrap();
    assert_eq!((reading.present, &reading.table), (false, &Table::default()));
    put(&mut kernel, &reading.table, &everything()).unwrap();
    assert_eq!(kernel.read().unwrap().table, everything());
    assert!(quiet(&watch));
}

/// More news than the watcher's buffer holds: it says that it does not know, and goes on.
#[test]
fn lost_news_are_admitted() {
    let namespace = Namespace::new();
    let kernel = namespace.run(|| PolicyTable::open_unprotected().unwrap());
    let mut watch = namespace.run(|| kernel.watch().unwrap());
    setsockopt(&watch, sockopt::RcvBuf, &4096).unwrap();
    let chains: String = (0..500).map(|n| format!("add chain ip other c{n}\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("add table ip other\n{chains}")).unwrap();
    namespace.sh(&format!("nft -f {}", file.path().display()));
    assert_eq!(hear(&mut watch), Foreign::Unknown);
    namespace.sh("nft add chain inet manx c");
    assert!(matches!(hear(&mut watch), Foreign::Changed { .. }));
}

/// An `nft` that adds and deletes a chain of another table without a pause, until it is dropped.
struct Neighbour {
    nft: Child,
    typist: Option<JoinHandle<()>>,
}

impl Neighbour {
    fn start(namespace: &Namespace, number: usize) -> Self {
        let mut nft = namespace.run(|| {
            let mut nft = Command::new("nft");
            nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let mut input = nft.stdin.take().unwrap();
        // Ends with the pipe, when the process is killed.
        let typist = thread::spawn(move || {
            while writeln!(input, "add chain ip other c{number}\ndelete chain ip other c{number}").is_ok() {}
        });
        Self { nft, typist: Some(typist) }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.nft.kill().unwrap();
        self.nft.wait().unwrap();
        self.typist.take().unwrap().join().unwrap();
    }
}

/// Others commit all the time, to their own tables: we still get our reading.
#[test]
fn a_busy_neighbour_does_not_starve_reading() {
    let namespace = Namespace::new();
    let mut kernel = namespace.run(|| PolicyTable::open().unwrap());
    let wanted = everything();
    put(&mut kernel, &Table::default(), &wanted).unwrap();
    namespace.sh("nft add table ip other");
    // Several, so that something changes within each dump, however quick this machine is.
    let neighbours: Vec<_> = (0..8).map(|number| Neighbour::start(&namespace, number)).collect();
    let first = kernel.generation().unwrap();
    for _ in 0..200 {
        assert_eq!(kernel.read().unwrap().table, wanted);
    }
    let moved = kernel.generation().unwrap().wrapping_sub(first);
    drop(neighbours);
    assert!(moved > 0, "the neighbour did nothing");
}

#[test]
fn deleting_leaves_nothing_and_touches_nobody() {
    let namespace = Namespace::new();
    let mut kernel = namespace.run(|| PolicyTable::open().unwrap());
    namespace.sh("nft add table ip other");
    put(&mut kernel, &Table::default(), &everything()).unwrap();
    kernel.delete().unwrap();
    assert_eq!(namespace.sh("nft list ruleset").trim(), "table ip other {\n}");
    kernel.delete().unwrap();
    assert!(!kernel.read().unwrap().present);
    assert_eq!(kernel.counters().unwrap(), felix_kernel::nft::Counters::default());
    put(&mut kernel, &Table::default(), &everything()).unwrap();
    assert_eq!(kernel.read().unwrap().table, everything());
}

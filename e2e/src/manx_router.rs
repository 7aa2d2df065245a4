//! bgpd as a ToR: a fabric of one node whose peers are the nodes and the client, each with `transit`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use serde_json::Value;

use crate::netns::{Netns, stdout_of};
use crate::process::{Launch, Process, tail, wait_for};
use crate::router::{BestPath, RouterPlaces, RouterSession};
use crate::store::{Objects, peer};
use crate::topology::{CLIENT_AS, NODES, Tor};

/// One running bgpd that plays a router.
#[derive(Debug)]
pub struct ManxRouter {
    bgpd: Process,
    objects: Objects,
    /// Its sockets, one directory a node, as everywhere.
    run: PathBuf,
    manxctl: PathBuf,
}

impl ManxRouter {
    /// Starts bgpd in `netns` on a directory datastore of its own.
    pub fn start(tor: Tor, netns: &Netns, places: &RouterPlaces<'_>) -> Result<Self> {
        let home = places.home.join(tor.name);
        let objects = Objects::create(&home.join("objects"))?;
        put_objects(&objects, tor)?;
        let run = places.run.join("routers");
        let (own_run, state) = (run.join(tor.name), home.join("state"));
        for directory in [&own_run, &state] {
            fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
        }
        let log = places.logs.join(format!("{}.bgpd.log", tor.name));
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let launch = Launch {
            label: format!("bgpd of {}", tor.name),
            netns: netns.clone(),
            program: places.binaries.join("bgpd"),
            arguments: vec![
                "--node".to_owned(),
                tor.name.to_owned(),
                "--store".to_owned(),
                path(objects.directory()),
                "--run-dir".to_owned(),
                path(&own_run),
                "--state-dir".to_owned(),
                path(&state),
            ],
            capabilities: Some(&["net_admin", "net_bind_service"]),
            log: log.clone(),
        };
        let router = Self { bgpd: launch.start()?, objects, run, manxctl: places.binaries.join("manxctl") };
        wait_for(Duration::from_secs(10), || own_run.join("bgpd.sock").exists().then_some(()))
            .with_context(|| format!("bgpd of {} opened no socket:\n{}", tor.name, tail(&log, 10)))?;
        Ok(router)
    }

    /// Such as `bgpd 0.1.0`.
    pub(crate) fn version(binaries: &Path) -> Result<String> {
        let mut command = Command::new(binaries.join("bgpd"));
        command.arg("--version");
        Ok(stdout_of(command)?.lines().next().unwrap_or_default().to_owned())
    }

    pub(crate) fn sessions(&self) -> Result<BTreeMap<String, RouterSession>> {
        let report = self.ask(&["bgp", "peers", "-o", "json"])?;
        let rows = report.get("sessions").and_then(Value::as_array).context("no sessions")?;
        let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut sessions = BTreeMap::new();
        for row in rows {
            let up = text(row, "state").as_deref() == Some("Established");
            let families = row.get("families").and_then(Value::as_array).map_or(0, Vec::len);
            let since = text(row, "since").and_then(|since| since.parse::<Timestamp>().ok());
            let uptime = since.and_then(|since| Duration::try_from(Timestamp::now() - since).ok());
            let session = RouterSession {
                families: if up { families } else { 0 },
                uptime: uptime.unwrap_or_default(),
                established: row.get("resets").and_then(Value::as_u64).unwrap_or_default(),
            };
            sessions.insert(text(row, "remote").context("a session without remote")?, session);
        }
        Ok(sessions)
    }

    pub(crate) fn best_path(&self, cidr: &str) -> Result<BestPath> {
        let report = self.ask(&["bgp", "routes", cidr, "-o", "json"])?;
        let rows = report.get("routes").and_then(Value::as_array).context("no routes")?;
        let text = |row: &Value, key: &str| {
            row.get(key).and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let of_cidr = |row: &&Value| text(row, "prefix") == cidr;
        let used = |key: &str| {
            let of = rows.iter().filter(of_cidr);
            of.filter(|row| row.get(key) == Some(&Value::Bool(true))).collect::<Vec<_>>()
        };
        let best = *used("best").first().context("no best path")?;
        Ok(BestPath {
            as_path: text(best, "asPath"),
            next_hops: used("installed").into_iter().map(|row| text(row, "nextHop")).collect(),
        })
    }

    pub(crate) fn evidence(&self) -> Result<String> {
        let tables = [["bgp", "peers"], ["bgp", "routes"]];
        let texts = tables.iter().map(|words| stdout_of(self.manxctl(words)));
        Ok(texts.collect::<Result<Vec<_>>>()?.join("\n"))
    }

    pub(crate) fn leave(self) {
        self.bgpd.leave();
    }

    fn manxctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.manxctl);
        command.arg("--store").arg(self.objects.directory()).arg("--run-dir").arg(&self.run).args(words);
        command
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        // Exit code 1 says that something is down: no news for who asks what is up.
        let output = self.manxctl(words).output().context("starting manxctl")?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| anyhow!("JSON of manxctl {}: {error}", words.join(" ")))
    }
}

/// A node named after the router, a peer for each neighbour. The client is the way to everywhere else: it originates the
/// default routes that an FRR ToR originates itself.
fn put_objects(objects: &Objects, tor: Tor) -> Result<()> {
    objects.put_settings()?;
    objects.put(
        &format!("nodes/{}", tor.name),
        &format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nstatus:\n  addresses:\n  \
             - {{type: InternalIP, address: {}}}\n  - {{type: InternalIP, address: \"{}\"}}\n",
            tor.name,
            tor.v4(),
            tor.v6()
        ),
    )?;
    objects.put(
        &format!("fabricnodes.manx.dev/{}", tor.name),
        &format!(
            "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {}}}\nspec: {{asn: {}}}\n",
            tor.name, tor.asn
        ),
    )?;
    let transit = "  transit: true\n";
    for node in NODES {
        let v4 = node.link_v4(tor).to_string();
        objects.put(&format!("bgppeers.manx.dev/{}", node.name), &peer(node.name, &v4, node.asn, transit))?;
        // Who dials over IPv6 is answered, as an FRR with a listen range does.
        let (name, v6) = (format!("{}-v6", node.name), node.link_v6(tor).to_string());
        let passive = "  passive: true\n";
        objects.put(&format!("bgppeers.manx.dev/{name}"), &peer(&name, &v6, node.asn, passive))?;
    }
    let client = tor.client_address().to_string();
    objects.put("bgppeers.manx.dev/client", &peer("client", &client, CLIENT_AS, transit))
}

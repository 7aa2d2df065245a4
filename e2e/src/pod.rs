//! What a container runtime does for a pod: a namespace, and `manx-cni` with environment and standard input.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::netns::Netns;

/// One pod as its runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub container: String,
    /// The pod's own network namespace.
    pub netns: Netns,
}

/// A node's runtime: where manx-cni is and how it is called there.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub program: PathBuf,
    /// The node's network namespace, where the runtime lives.
    pub node: Netns,
    /// felix's CNI socket on that node.
    pub socket: PathBuf,
}

/// What one call came to.
#[derive(Clone, Debug)]
pub struct Call {
    pub took: Duration,
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// The answer to ADD, as far as a runtime reads it (CNI 1.0.0).
#[derive(Clone, Debug, Deserialize)]
struct AddResult {
    ips: Vec<AddedAddress>,
}

#[derive(Clone, Debug, Deserialize)]
struct AddedAddress {
    address: String,
}

/// An error as CNI prints it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct CniError {
    pub code: u32,
    pub msg: String,
    #[serde(default)]
    pub details: String,
}

/// A pod's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: std::net::Ipv4Addr,
    pub v6: std::net::Ipv6Addr,
}

impl Addresses {
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl Runtime {
    /// The network configuration that is passed on standard input.
    #[must_use]
    pub fn config(&self) -> Value {
        json!({ "cniVersion": "1.0.0", "name": "manx", "type": "manx-cni", "socket": self.socket })
    }

    /// ADD; the pod's addresses and how long the call took.
    pub fn add(&self, sandbox: &Sandbox) -> Result<(Addresses, Duration)> {
        let call = self.call("ADD", sandbox, &self.config().to_string())?;
        if !call.success {
            bail!("ADD {}/{}: {}{}", sandbox.namespace, sandbox.name, call.stdout.trim(), call.stderr.trim());
        }
        let addresses =
            addresses(&call.stdout).with_context(|| format!("answer to ADD: {}", call.stdout.trim()))?;
        Ok((addresses, call.took))
    }

    /// DEL; how long the call took.
    pub fn del(&self, sandbox: &Sandbox) -> Result<Duration> {
        let call = self.call("DEL", sandbox, &self.config().to_string())?;
        if !call.success {
            bail!("DEL {}/{}: {}{}", sandbox.namespace, sandbox.name, call.stdout.trim(), call.stderr.trim());
        }
        Ok(call.took)
    }

    /// Any call with any configuration, as a runtime makes it.
    pub fn call(&self, verb: &str, sandbox: &Sandbox, stdin: &str) -> Result<Call> {
        self.node.run(|| {
            let begun = Instant::now();
            let mut child = Command::new(&self.program)
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", &sandbox.container)
                .env("CNI_NETNS", sandbox.netns.path())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/opt/cni/bin")))
                .env("CNI_ARGS", arguments(sandbox))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {}", self.program.display()))?;
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(stdin.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            Ok(Call {
                took: begun.elapsed(),
                success: output.status.success(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        })
    }
}

/// As containerd writes them.
fn arguments(sandbox: &Sandbox) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        sandbox.namespace, sandbox.name, sandbox.container, sandbox.uid
    )
}

fn addresses(answer: &str) -> Result<Addresses> {
    let result: AddResult = serde_json::from_str(answer)?;
    let (mut v4, mut v6) = (None, None);
    for entry in &result.ips {
        let text = entry.address.split('/').next().unwrap_or_default();
        match text.parse().with_context(|| format!("address {text}"))? {
            IpAddr::V4(address) => v4 = Some(address),
            IpAddr::V6(address) => v6 = Some(address),
        }
    }
    Ok(Addresses { v4: v4.context("no IPv4 address")?, v6: v6.context("no IPv6 address")? })
}

/// The error that a failed call printed.
pub fn error_of(call: &Call) -> Result<CniError> {
    serde_json::from_str(&call.stdout).with_context(|| format!("CNI error on stdout: {:?}", call.stdout))
}

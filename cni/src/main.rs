//! `manx-cni`: called by the container runtime as root, ends within milliseconds of felix's answer.

mod namespace;
mod transport;

use std::io::{Read, Write};
use std::process::ExitCode;

use manx_cni::args::Args;
use manx_cni::conf::NetConf;
use manx_cni::error::{CniError, Code};
use manx_cni::request::{Request, Response, Verb};
use manx_cni::version::VersionReport;
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let outcome = match std::io::stdin().read_to_end(&mut stdin) {
        Ok(_) => run(&stdin),
        Err(error) => Err(CniError::new(Code::Io, format!("cannot read standard input: {error}"))),
    };
    let (answer, code) = match outcome {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (error_json(&error, &stdin), ExitCode::FAILURE),
    };
    match answer.map_or(Ok(()), |answer| writeln!(std::io::stdout(), "{answer}")) {
        Ok(()) => code,
        // Nobody reads: the exit code is all that is left to say it with.
        Err(_) => ExitCode::FAILURE,
    }
}

/// The answer on stdout; only ADD and VERSION have one.
fn run(stdin: &[u8]) -> Result<Option<Value>, CniError> {
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        return version(stdin).map(Some);
    }
    let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == command).ok_or_else(|| {
        CniError::new(Code::InvalidEnvironment, format!("CNI_COMMAND {command:?} is not supported")).because(
            "environment of manx-cni",
            "ADD, DEL, CHECK, GC, STATUS or VERSION",
            "let a container runtime call manx-cni",
        )
    })?;
    let conf = NetConf::parse(stdin)?;
    let args = Args::parse(verb, |name| std::env::var(name).ok())?;
    let connection = transport::connect(&conf.socket, &args)?;
    let sandbox = args.netns.clone().unwrap_or_default();
    // From here on this process may be inside the pod's namespace; the unix socket is not bound to one.
    let inside = match verb {
        Verb::Add => Some(namespace::enter(&sandbox, true)?),
        Verb::Check => Some(namespace::enter(&sandbox, false)?),
        Verb::Del | Verb::Gc | Verb::Status => None,
    };
    let (network, version, expected) = (conf.name.clone(), conf.version, conf.previous.clone());
    let attachments = if verb == Verb::Gc { conf.valid_attachments()? } else { Vec::new() };
    let request = Request {
        verb,
        network,
        container_id: args.container_id,
        ifname: args.ifname,
        netns: args.netns,
        pod: args.pod,
        ipv6_off: inside.as_ref().and_then(|i| i.ipv6_off.clone()),
        expected,
        attachments,
    };
    match transport::ask(connection, &request, inside.as_ref())? {
        Response::Added(network) => Ok(Some(network.to_json(version, &sandbox))),
        Response::Done => Ok(None),
        Response::Failed(error) => Err(error),
    }
}

/// VERSION takes any JSON object, with or without a version that we know.
fn version(stdin: &[u8]) -> Result<Value, CniError> {
    let asked = if stdin.trim_ascii().is_empty() {
        None
    } else {
        let value: Value = serde_json::from_slice(stdin)
            .map_err(|error| CniError::new(Code::Decode, format!("standard input is not JSON: {error}")))?;
        value.get("cniVersion").and_then(Value::as_str).map(str::to_owned)
    };
    Ok(json!(VersionReport::new(asked.as_deref())))
}

/// An error is answered in the version that the caller spoke, if it can be told.
fn error_json(error: &CniError, stdin: &[u8]) -> Option<Value> {
    let asked = serde_json::from_slice::<Value>(stdin).ok();
    let version = asked.as_ref().and_then(|v| v.get("cniVersion")?.as_str()).unwrap_or("1.0.0").to_owned();
    Some(json!({"cniVersion": version, "code": error.code, "msg": error.msg, "details": error.details}))
}

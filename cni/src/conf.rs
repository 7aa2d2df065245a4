//! The network configuration on stdin: parsed, and refused here where it can be.

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::SOCKET_PATH;
use crate::error::{CniError, Code};
use crate::request::AttachmentRef;
use crate::version::CniVersion;

/// Keys of our own, and those that the specification or a runtime adds.
const KNOWN: [&str; 14] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "socket",
    "logLevel",
    "prevResult",
    "runtimeConfig",
    "capabilities",
    "args",
    "disableCheck",
    "disableGC",
    VALID_ATTACHMENTS,
    "cni.dev/attachments",
];

/// What GC leaves alone.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// What we take from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConf {
    pub version: CniVersion,
    pub name: String,
    /// felix's socket.
    pub socket: String,
    /// The addresses of `prevResult`, those of other plugins of the chain among them.
    pub previous: Option<Vec<IpNet>>,
    /// Of GC.
    pub attachments: Option<Vec<AttachmentRef>>,
}

impl NetConf {
    /// # Errors
    /// Code 6 for what is no JSON object (with line and column), 7 for a key or value that we do not take,
    /// 1 for an unknown version.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let value: Value = serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(
                Code::Decode,
                format!(
                    "the network configuration is not JSON: line {} column {}",
                    error.line(),
                    error.column()
                ),
            )
            .because(
                &format!(
                    "standard input of manx-cni, line {} column {}: {error}",
                    error.line(),
                    error.column()
                ),
                "one JSON object",
                "correct the file under /etc/cni/net.d",
            )
        })?;
        let Value::Object(map) = value else {
            return Err(CniError::new(Code::Decode, "the network configuration is not a JSON object")
                .because(
                    "standard input of manx-cni, line 1",
                    "one JSON object",
                    "correct the file under /etc/cni/net.d",
                ));
        };
        let version = CniVersion::parse(text(&map, "cniVersion")?.unwrap_or("0.2.0"))?;
        let name = text(&map, "name")?.unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(refused("name is missing", "a network name, such as manx", "add \"name\": \"manx\""));
        }
        if let Some(key) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(unknown_key(key));
        }
        let socket = text(&map, "socket")?.unwrap_or(SOCKET_PATH).to_owned();
        if !socket.starts_with('/') {
            return Err(refused(
                &format!("socket {socket:?} is no absolute path"),
                "the path of felix's socket",
                &format!("write {SOCKET_PATH}, or leave the key out"),
            ));
        }
        if let Some(level) = text(&map, "logLevel")?
            && !["Error", "Warn", "Info", "Debug", "Trace"].contains(&level)
        {
            return Err(refused(
                &format!("logLevel {level:?} is unknown"),
                "Error, Warn, Info, Debug or Trace",
                "correct it, or leave the key out",
            ));
        }
        let previous = map.get("prevResult").map(addresses);
        let attachments = map.get(VALID_ATTACHMENTS).map(attachments).transpose()?;
        Ok(Self { version, name, socket, previous, attachments })
    }

    /// What GC leaves alone. Without the list nothing is collected: it would be everything.
    ///
    /// # Errors
    /// Code 7 where the list is missing.
    pub fn valid_attachments(self) -> Result<Vec<AttachmentRef>, CniError> {
        let todo = "let the runtime call GC with the attachments that exist";
        self.attachments
            .ok_or_else(|| refused(&format!("{VALID_ATTACHMENTS} is missing"), "a list of attachments", todo))
    }
}

/// The chain's last result, as far as it concerns us.
fn addresses(result: &Value) -> Vec<IpNet> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter_map(|ip| ip.get("address")?.as_str()?.parse().ok()).collect()
}

fn attachments(list: &Value) -> Result<Vec<AttachmentRef>, CniError> {
    serde_json::from_value(list.clone()).map_err(|error| {
        refused(
            &format!("{VALID_ATTACHMENTS} is not understood: {error}"),
            "a list of {\"containerID\": …, \"ifname\": …}",
            "let the runtime call GC as the specification says",
        )
    })
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, CniError> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(refused(&format!("{key} is {other}"), "a string", &format!("correct {key}"))),
    }
}

fn refused(what: &str, expected: &str, todo: &str) -> CniError {
    CniError::new(Code::InvalidConfig, what).because("manx-cni, network configuration", expected, todo)
}

fn unknown_key(key: &str) -> CniError {
    let todo = if key == "ipam" {
        "remove \"ipam\", or delete the file: felix writes it again".to_owned()
    } else {
        format!("remove {key:?}")
    };
    refused(
        &format!("unknown key {key:?} in the network configuration"),
        "type, socket, logLevel; addresses come from IPPools",
        &todo,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_configuration_is_taken() {
        let conf = NetConf::parse(
            br#"{"cniVersion":"1.0.0","name":"manx","type":"manx-cni","socket":"/run/x/felix.sock",
                 "prevResult":{"ips":[{"address":"10.244.0.1/32"},{"address":"no"}]},
                 "runtimeConfig":{"portMappings":[]}}"#,
        )
        .unwrap();
        assert_eq!(
            conf,
            NetConf {
                version: CniVersion::V1_0,
                name: "manx".into(),
                socket: "/run/x/felix.sock".into(),
                previous: Some(vec!["10.244.0.1/32".parse().unwrap()]),
                attachments: None,
            }
        );
    }

    #[test]
    fn a_collection_without_its_list_collects_nothing() {
        let parse = |rest: &str| {
            NetConf::parse(format!(r#"{{"cniVersion":"1.1.0","name":"manx"{rest}}}"#).as_bytes())
                .and_then(NetConf::valid_attachments)
        };
        let one = AttachmentRef { container_id: "a".into(), ifname: "eth0".into() };
        let list = r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#;
        assert_eq!(parse(list).unwrap(), [one]);
        assert_eq!(parse(r#","cni.dev/valid-attachments":[]"#).unwrap(), []);
        assert_eq!(parse("").unwrap_err().code, 7);
        assert_eq!(parse(r#","cni.dev/valid-attachments":[{"containerID":"a"}]"#).unwrap_err().code, 7);
    }

    #[test]
    fn what_is_no_json_is_named_by_line_and_column() {
        let error = NetConf::parse(b"{\n  \"cniVersion\": \"1.0.0\",\n  nonsense\n}").unwrap_err();
        assert_eq!(error.code, 6);
        assert!(error.msg.contains("line 3 column 3"), "{error}");
    }

    #[test]
    fn refusals_name_what_they_do_not_take() {
        let cases: [(&str, u32, &str); 6] = [
            (r#"{"cniVersion":"1.0.0","name":"m","ipam":{}}"#, 7, "unknown key \"ipam\""),
            (r#"{"cniVersion":"1.0.0","name":"m","mtu":9000}"#, 7, "unknown key \"mtu\""),
            (r#"{"cniVersion":"1.0.0"}"#, 7, "name is missing"),
            (r#"{"cniVersion":"0.3.1","name":"m"}"#, 1, "\"0.3.1\" is not supported"),
            (r#"{"cniVersion":"1.0.0","name":"m","socket":"felix.sock"}"#, 7, "no absolute path"),
            (r#"{"cniVersion":"1.0.0","name":"m","logLevel":"Loud"}"#, 7, "logLevel \"Loud\""),
        ];
        for (conf, code, text) in cases {
            let error = NetConf::parse(conf.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{conf}: {error}");
            assert!(error.msg.contains(text), "{conf}: {error}");
        }
        assert_eq!(NetConf::parse(b"[]").unwrap_err().code, 6);
        assert_eq!(NetConf::parse(b"").unwrap_err().code, 6);
    }
}

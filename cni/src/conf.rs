//! The network configuration on stdin: parsed, and refused here where it can be.

use serde_json::{Map, Value};

use crate::SOCKET_PATH;
use crate::error::{CniError, Code};
use crate::version::CniVersion;

/// Keys of our own, and those that the specification or a runtime adds.
const KNOWN: [&str; 12] = [
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
];

/// What we take from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConf {
    pub version: CniVersion,
    pub name: String,
    /// felix's socket.
    pub socket: String,
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
        Ok(Self { version, name, socket })
    }
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
                 "prevResult":{},"runtimeConfig":{"portMappings":[]}}"#,
        )
        .unwrap();
        assert_eq!(
            conf,
            NetConf { version: CniVersion::V1_0, name: "manx".into(), socket: "/run/x/felix.sock".into() }
        );
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

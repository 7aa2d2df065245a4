//! The CNI environment variables (spec §"Parameters").

use crate::error::{CniError, Code};
use crate::request::{PodRef, Verb};

/// What the runtime asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    pub verb: Verb,
    pub container_id: String,
    pub ifname: String,
    /// Absent at a DEL whose namespace is gone already.
    pub netns: Option<String>,
    pub pod: Option<PodRef>,
}

impl Args {
    /// Reads the variables through `var`, so that a test needs no process of its own.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn parse(verb: Verb, var: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        if !verb.names_container() {
            return Ok(Self {
                verb,
                container_id: String::new(),
                ifname: String::new(),
                netns: None,
                pod: None,
            });
        }
        let container_id = var("CNI_CONTAINERID").ok_or_else(|| missing("CNI_CONTAINERID"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !container_id.chars().all(plain) || !container_id.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(invalid(
                "CNI_CONTAINERID",
                &container_id,
                "letters, digits, _ . -, a letter or digit first",
            ));
        }
        let ifname = var("CNI_IFNAME").ok_or_else(|| missing("CNI_IFNAME"))?;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.len() > 15 || ifname.chars().any(bad) || ifname == "." || ifname == ".." {
            return Err(invalid("CNI_IFNAME", &ifname, "1 to 15 characters, no space, / or :"));
        }
        let netns = var("CNI_NETNS");
        if verb.enters_namespace() && netns.is_none() {
            return Err(missing("CNI_NETNS"));
        }
        let pod = pod(&var("CNI_ARGS").unwrap_or_default())?;
        Ok(Self { verb, container_id, ifname, netns, pod })
    }
}

/// `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=…`, in any order, beside keys that others read.
fn pod(args: &str) -> Result<Option<PodRef>, CniError> {
    let (mut namespace, mut name, mut uid) = (None, None, None);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid("CNI_ARGS", args, "KEY=VALUE;KEY=VALUE"));
        };
        match key {
            "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
            "K8S_POD_NAME" => name = Some(value.to_owned()),
            "K8S_POD_UID" => uid = Some(value.to_owned()).filter(|uid| !uid.is_empty()),
            _ => {}
        }
    }
    match (namespace, name) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Some(PodRef { namespace, name, uid }))
        }
        (None, None) => Ok(None),
        _ => Err(invalid("CNI_ARGS", args, "both K8S_POD_NAMESPACE and K8S_POD_NAME")),
    }
}

fn missing(name: &str) -> CniError {
    CniError::new(Code::InvalidEnvironment, format!("{name} is missing")).because(
        "environment of manx-cni",
        "the variables of the CNI specification",
        "let a container runtime call manx-cni",
    )
}

fn invalid(name: &str, value: &str, expected: &str) -> CniError {
    CniError::new(Code::InvalidEnvironment, format!("{name} {value:?} is invalid")).because(
        "environment of manx-cni",
        expected,
        "correct what the runtime passes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_owned())
    }

    #[test]
    fn kubernetes_arguments_come_in_any_order() {
        let args = Args::parse(
            Verb::Add,
            vars(&[
                ("CNI_CONTAINERID", "9f3c1a7be210"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", "/run/netns/a"),
                ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=shop;K8S_POD_UID="),
            ]),
        )
        .unwrap();
        assert_eq!(args.pod, Some(PodRef { namespace: "shop".into(), name: "web-1".into(), uid: None }));
    }

    #[test]
    fn a_delete_needs_no_namespace_and_an_add_does() {
        let pairs = [("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
        assert_eq!(Args::parse(Verb::Del, vars(&pairs)).unwrap().netns, None);
        let error = Args::parse(Verb::Add, vars(&pairs)).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (4, "CNI_NETNS is missing"));
    }

    #[test]
    fn what_is_about_no_container_needs_no_variable() {
        for verb in [Verb::Gc, Verb::Status] {
            assert_eq!(Args::parse(verb, vars(&[])).unwrap().container_id, "");
        }
        let pairs = [("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")];
        assert_eq!(Args::parse(Verb::Check, vars(&pairs)).unwrap_err().msg, "CNI_NETNS is missing");
    }

    #[test]
    fn bad_values_name_their_variable() {
        for (name, value) in
            [("CNI_CONTAINERID", "-a"), ("CNI_IFNAME", "a/b"), ("CNI_ARGS", "K8S_POD_NAME=x")]
        {
            let mut pairs = vec![("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", "")];
            pairs.iter_mut().find(|p| p.0 == name).unwrap().1 = value;
            let error = Args::parse(Verb::Del, vars(&pairs)).unwrap_err();
            assert_eq!(error.code, 4);
            assert!(error.msg.starts_with(name), "{error}");
        }
    }
}

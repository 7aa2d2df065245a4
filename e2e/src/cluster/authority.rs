//! The cluster's certificate authority, by openssl: identities as production has them, so that the Node and RBAC
//! authorizers see what they would see there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::netns::stdout_of;

/// Nothing of the machine's openssl.cnf takes part.
const SETTINGS: &str = "\
[req]
distinguished_name = name
prompt = no
x509_extensions = leaf
[name]
CN = unnamed
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth,serverAuth
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier = hash
";

/// A certificate authority in a folder: `ca.crt`, `ca.key`, the keys of service accounts `sa.key` and `sa.pub`, and
/// `NAME.crt`, `NAME.key` of whatever was issued.
#[derive(Clone, Debug)]
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes one, valid for 30 days.
    pub fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
        fs::write(directory.join("openssl.cnf"), SETTINGS)?;
        let authority = Self { directory: directory.to_owned() };
        authority.request("ca", &["-subj", "/CN=manx-cluster-ca", "-extensions", "authority"])?;
        authority.openssl(&["genpkey", "-algorithm", "RSA", "-out", "sa.key"])?;
        authority.openssl(&["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        Ok(authority)
    }

    /// The one that an earlier process made there.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file of this authority, such as `ca.crt`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Issues `NAME.crt` and `NAME.key` for a user of `groups`, or a server of the `names` (`IP:…`, `DNS:…`).
    pub fn issue(&self, name: &str, user: &str, groups: &[&str], names: &[String]) -> Result<()> {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('/', "\\/");
        let subject: String = groups.iter().map(|group| format!("/O={}", escape(group))).collect();
        let subject = format!("{subject}/CN={}", escape(user));
        let alternative = format!("subjectAltName={}", names.join(","));
        let mut arguments = vec!["-CA", "ca.crt", "-CAkey", "ca.key", "-subj", &subject];
        if !names.is_empty() {
            arguments.extend(["-addext", &alternative]);
        }
        self.request(name, &arguments).with_context(|| format!("certificate of {user}"))
    }

    fn request(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let key = format!("{name}.key");
        let certificate = format!("{name}.crt");
        let fixed = [
            "req",
            "-x509",
            "-config",
            "openssl.cnf",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        self.openssl(&[&fixed[..], arguments].concat())
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&self.directory);
        stdout_of(command).context("openssl: apt-get install -y openssl")?;
        Ok(())
    }
}

//! The directory datastore as a person uses it: one YAML file an object, written whole or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::topology::{NODES, Node, POOL_V4, POOL_V6, TORS};

/// A directory of objects.
#[derive(Clone, Debug)]
pub struct Objects {
    directory: PathBuf,
    /// Beside it, on the same filesystem: files are made here and renamed in.
    drafts: PathBuf,
}

/// What is read of an IPBlock.
#[derive(Clone, Debug, Deserialize)]
pub struct Block {
    pub spec: BlockSpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockSpec {
    pub cidr: String,
    #[serde(default)]
    pub node_name: Option<String>,
    #[serde(default)]
    pub allocations: Vec<Allocation>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Allocation {
    pub ip: String,
    #[serde(default)]
    pub owner: Owner,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Owner {
    #[serde(default)]
    pub name: String,
}

impl Objects {
    /// An empty store; what was in it is removed.
    pub fn create(directory: &Path) -> Result<Self> {
        let objects = Self::at(directory);
        for path in [&objects.directory, &objects.drafts] {
            if path.exists() {
                fs::remove_dir_all(path).with_context(|| format!("{}", path.display()))?;
            }
            fs::create_dir_all(path).with_context(|| format!("{}", path.display()))?;
        }
        Ok(objects)
    }

    /// A store that may exist.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), drafts: directory.with_extension("drafts") }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where an object lies, such as `ippools.manx.dev/default-ipv4` or `pods/shop/web-1`.
    #[must_use]
    pub fn path(&self, object: &str) -> PathBuf {
        self.directory.join(format!("{object}.yaml"))
    }

    /// Writes one object, new or changed.
    pub fn put(&self, object: &str, text: &str) -> Result<()> {
        let path = self.path(object);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let draft = self.drafts.join(object.replace('/', "_"));
        fs::write(&draft, text).with_context(|| format!("{}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("{}", path.display()))
    }

    /// Writes a Secret with one key in clear, which nobody else may read.
    pub fn put_secret(&self, namespace: &str, name: &str, key: &str, value: &str) -> Result<()> {
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             stringData: {{{key}: {value}, other: unused-{value}}}\n"
        );
        // The draft is renamed with its mode.
        let object = format!("secrets/{namespace}/{name}");
        let draft = self.drafts.join(object.replace('/', "_"));
        fs::write(&draft, "")?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        self.put(&object, &text)
    }

    /// The text of one object's file.
    pub fn text(&self, object: &str) -> Result<String> {
        let path = self.path(object);
        fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
    }

    /// Removes one object.
    pub fn delete(&self, object: &str) -> Result<()> {
        let path = self.path(object);
        fs::remove_file(&path).with_context(|| format!("{}", path.display()))
    }

    /// All IPBlocks, in the order of their names.
    pub fn blocks(&self) -> Result<Vec<Block>> {
        let directory = self.directory.join("ipblocks.manx.dev");
        let Ok(entries) = fs::read_dir(&directory) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut blocks = Vec::new();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            let Ok(text) = fs::read_to_string(path) else { continue };
            blocks.push(serde_saphyr::from_str(&text).with_context(|| format!("{}", path.display()))?);
        }
        Ok(blocks)
    }

    /// Every Event that was recorded, one JSON object a line, whatever the files are called.
    #[must_use]
    pub fn events(&self) -> String {
        let mut text = String::new();
        collect(&self.directory.join(".events"), &mut text);
        text
    }

    /// Writes what the demo's fabric is made of, pods and policies apart.
    pub fn put_fabric(&self) -> Result<()> {
        self.put_settings()?;
        for tor in TORS {
            self.put(
                &format!("bgppeers.manx.dev/{}", tor.name),
                &peer(tor.name, &tor.v4().to_string(), tor.asn, ""),
            )?;
        }
        self.put_advertisement()?;
        for node in NODES {
            self.put(&format!("nodes/{}", node.name), &kubernetes_node(node))?;
            self.put(
                &format!("fabricnodes.manx.dev/{}", node.name),
                &format!(
                    "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {}}}\nspec:\n  asn: {}\n",
                    node.name, node.asn
                ),
            )?;
        }
        for namespace in ["shop", "jobs"] {
            self.put(
                &format!("namespaces/{namespace}"),
                &format!(
                    "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n  \
                     labels: {{kubernetes.io/metadata.name: {namespace}}}\n"
                ),
            )?;
        }
        Ok(())
    }

    /// Writes what every fabric of the demo has: sessions to configured peers only, and the two pools.
    pub fn put_settings(&self) -> Result<()> {
        self.put(
            "fabricconfigurations.manx.dev/default",
            "apiVersion: manx.dev/v1alpha1\nkind: FabricConfiguration\nmetadata: {name: default}\nspec:\n  \
             topology: {mode: None}\n  session: {timers: {hold: 9s, connectRetry: 1s}}\n",
        )?;
        for (name, cidr, size) in [("default-ipv4", POOL_V4, 26), ("default-ipv6", POOL_V6, 122)] {
            self.put(
                &format!("ippools.manx.dev/{name}"),
                &format!(
                    "apiVersion: manx.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec:\n  \
                     cidr: \"{cidr}\"\n  blockSize: {size}\n"
                ),
            )?;
        }
        Ok(())
    }

    /// Writes a node as kubelet and a person describe it: its addresses, of either family; its AS; labels as in a flow mapping.
    pub fn put_node(&self, name: &str, addresses: &[&str], asn: u32, labels: &str) -> Result<()> {
        let lines: String =
            addresses.iter().map(|a| format!("  - {{type: InternalIP, address: \"{a}\"}}\n")).collect();
        self.put(
            &format!("nodes/{name}"),
            &format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nstatus:\n  addresses:\n{lines}"
            ),
        )?;
        let of = |key: &str, colon: bool| {
            let address = addresses.iter().find(|address| address.contains(':') == colon)?;
            Some(format!("{key}: \"{address}\""))
        };
        let both: Vec<String> = [of("ipv4", false), of("ipv6", true)].into_iter().flatten().collect();
        self.put(
            &format!("fabricnodes.manx.dev/{name}"),
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: FabricNode\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: \
                 {{asn: {asn}, addresses: {{{}}}}}\n",
                both.join(", ")
            ),
        )
    }

    /// Writes a block of this node, in the pool that [`Objects::put_settings`] makes for its family.
    pub fn put_block(&self, cidr: &str, node: &str) -> Result<()> {
        let name = block_name(cidr);
        let pool = if cidr.contains(':') { "default-ipv6" } else { "default-ipv4" };
        self.put(
            &format!("ipblocks.manx.dev/{name}"),
            &format!(
                "apiVersion: manx.dev/v1alpha1\nkind: IPBlock\nmetadata: {{name: \"{name}\"}}\nspec: {{cidr: \"{cidr}\", \
                 pool: {pool}, nodeName: {node}}}\n"
            ),
        )
    }

    /// Writes the BGPAdvertisement that makes nodes tell their blocks.
    pub fn put_advertisement(&self) -> Result<()> {
        self.put(
            "bgpadvertisements.manx.dev/pool-blocks",
            "apiVersion: manx.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: pool-blocks}\nspec: {pools: {}}\n",
        )
    }

    /// Writes a pod as the API server would hold it once it is scheduled.
    pub fn put_pod(&self, namespace: &str, name: &str, uid: &str, node: &str, app: &str) -> Result<()> {
        self.put(
            &format!("pods/{namespace}/{name}"),
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n  \
                 labels: {{app: {app}, pod: {name}}}\nspec:\n  nodeName: {node}\n  containers:\n  - name: main\n    \
                 image: demo\n    ports:\n    - {{name: sql, containerPort: 5432, protocol: TCP}}\n"
            ),
        )
    }
}

/// The name that a block's object has.
#[must_use]
pub fn block_name(cidr: &str) -> String {
    cidr.replace(['.', ':', '/'], "-")
}

/// A BGPPeer; `more` are further lines of spec, two spaces deep.
#[must_use]
pub fn peer(name: &str, address: &str, asn: u32, more: &str) -> String {
    format!(
        "apiVersion: manx.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec:\n  address: \"{address}\"\n  \
         asn: {asn}\n{more}"
    )
}

fn kubernetes_node(node: Node) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/hostname: {name}}}\n\
         status:\n  addresses:\n  - {{type: InternalIP, address: {v4}}}\n  - {{type: InternalIP, address: \"{v6}\"}}\n  \
         - {{type: Hostname, address: {name}}}\n",
        name = node.name,
        v4 = node.v4(),
        v6 = node.v6()
    )
}

fn collect(path: &Path, text: &mut String) {
    if path.is_dir() {
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        inside.sort();
        for entry in inside {
            collect(&entry, text);
        }
    } else if let Ok(content) = fs::read_to_string(path) {
        text.push_str(&content);
    }
}

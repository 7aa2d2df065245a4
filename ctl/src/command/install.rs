//! `manxctl install`: the CRDs of this version, and the objects that a cluster begins with.

use manx_crds::defaults::DEFAULTS;
use manx_crds::store::kube::{Created, KubeStore};
use serde_json::Value;

use crate::error::Failure;

/// Applies what is asked for and says each object's name.
pub(crate) async fn run(crds: bool, defaults: bool) -> Result<(), Failure> {
    if !crds && !defaults {
        return Err(Failure::new(
            "nothing to install",
            "manxctl install",
            "--crds, --defaults or both",
            "manxctl install --crds --defaults",
        ));
    }
    let store = KubeStore::from_environment().await?;
    if crds {
        for crd in manx_crds::v1alpha1::crds()? {
            store.install_crd(&crd).await?;
            println!("customresourcedefinition {} applied", name(&crd));
        }
    }
    if defaults {
        for object in DEFAULTS {
            let value: Value = serde_saphyr::from_str(object.yaml)
                .map_err(|error| Failure::plain(&format!("default of {}: {error}", object.plural)))?;
            let what = match store.create_if_absent(object.plural, &value).await? {
                Created::Now => "created",
                Created::Before => "is there: left as it is",
            };
            println!("{} {} {what}", object.plural, name(&value));
        }
    }
    Ok(())
}

fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

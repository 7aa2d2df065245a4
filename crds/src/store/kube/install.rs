//! What an installation writes: CustomResourceDefinitions by server-side apply, and objects where there are none.

use std::time::Duration;

use ::kube::core::Request;
use ::kube::core::params::{GetParams, Patch, PatchParams, PostParams};
use serde_json::Value;

use super::super::{Key, StoreError};
use super::KubeStore;
use super::error::Failure;
use crate::v1alpha1::IPPool;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const OURS: &str = "/apis/manx.dev/v1alpha1";
const MANAGER: &str = "manx-install";
/// How long the API server may take to serve a kind that it has just accepted.
const SERVED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// What became of an object that is created where absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Now,
    /// Somebody's: left as it is.
    Before,
}

impl KubeStore {
    /// Applies a CRD and waits until its kind is served.
    ///
    /// # Errors
    /// Refused, or not established within a minute; the text names the CRD.
    pub async fn install_crd(&self, crd: &Value) -> Result<(), StoreError> {
        let name = name_in(crd);
        let named = |error: Failure| StoreError::Invalid(format!("CRD {name}: {}", text(error)));
        let request =
            Request::new(CRDS).patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(crd));
        self.ask::<Value>(request).await.map_err(named)?;
        let deadline = tokio::time::Instant::now() + SERVED;
        loop {
            let request = Request::new(CRDS).get(&name, &GetParams::default());
            let held: Value = self.ask(request).await.map_err(named)?;
            if is_established(&held) {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(StoreError::Unavailable(format!(
                    "CRD {name} is not Established after {}s; its conditions: {}",
                    SERVED.as_secs(),
                    held.pointer("/status/conditions").unwrap_or(&Value::Null)
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Creates an object of ours, unless one of that name is there.
    ///
    /// # Errors
    /// Refused; the text names the object.
    pub async fn create_if_absent(&self, plural: &str, object: &Value) -> Result<Created, StoreError> {
        let name = name_in(object);
        let bytes = serde_json::to_vec(object).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let deadline = tokio::time::Instant::now() + SERVED;
        loop {
            let request =
                Request::new(format!("{OURS}/{plural}")).create(&PostParams::default(), bytes.clone());
            match self.ask::<Value>(request).await {
                Ok(_) => return Ok(Created::Now),
                Err(Failure::Refused(status)) if status.reason == "AlreadyExists" => {
                    return Ok(Created::Before);
                }
                // Another API server of the same cluster may serve the kind a moment later.
                Err(Failure::Refused(status))
                    if status.code == 404 && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    return Err(StoreError::Invalid(format!("{plural} {name}: {}", text(error))));
                }
            }
        }
    }
}

/// A failure's text; of which kind it is is said around it.
fn text(failure: Failure) -> String {
    failure.of_object::<IPPool>(&Key::cluster("")).to_string()
}

fn name_in(object: &Value) -> String {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn is_established(crd: &Value) -> bool {
    let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        let is = |key: &str, value: &str| condition.get(key).and_then(Value::as_str) == Some(value);
        is("type", "Established") && is("status", "True")
    })
}

//! A command in a container: for what only the process there knows.

use std::time::Duration;

use ::kube::Api;
use ::kube::api::AttachParams;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::super::StoreError;
use super::KubeStore;

/// More is no answer to a question.
const MOST: u64 = 256 << 20;

impl KubeStore {
    /// What a command prints in a container, which is told apart by namespace, pod and name.
    ///
    /// # Errors
    /// `Forbidden` without the right to `pods/exec`; else `Unavailable`, with the command's own words where it failed.
    pub async fn exec(
        &self,
        place: (&str, &str, &str),
        command: &[&str],
        patience: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        let (namespace, pod, _) = place;
        let Ok(answer) = tokio::time::timeout(patience, self.run(place, command)).await else {
            let seconds = patience.as_secs();
            return Err(StoreError::Unavailable(format!(
                "pod {namespace}/{pod} did not answer within {seconds}s"
            )));
        };
        answer
    }

    async fn run(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        command: &[&str],
    ) -> Result<Vec<u8>, StoreError> {
        let parameters = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut process = pods
            .exec(pod, command.iter().copied(), &parameters)
            .await
            .map_err(|error| refused(namespace, pod, &error))?;
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        let (stdout, stderr) = tokio::join!(whole(stdout), whole(stderr));
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        match status.and_then(|status| status.status) {
            Some(word) if word == "Success" => Ok(stdout),
            _ => {
                let said = String::from_utf8_lossy(&stderr);
                Err(StoreError::Unavailable(format!(
                    "{} in pod {namespace}/{pod}: {}",
                    command.join(" "),
                    said.trim()
                )))
            }
        }
    }
}

async fn whole(reader: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(reader) = reader {
        // What came before a connection broke is not taken for an answer: there is no status then.
        let _ = reader.take(MOST).read_to_end(&mut all).await;
    }
    all
}

/// The server says no before there is a stream, by its status alone.
fn refused(namespace: &str, pod: &str, error: &::kube::Error) -> StoreError {
    let text = error.to_string();
    if text.contains("403") {
        StoreError::Forbidden(format!("no right to create pods/exec in namespace {namespace}"))
    } else {
        StoreError::Unavailable(format!("pod {namespace}/{pod}: {text}"))
    }
}

//! CHECK and STATUS: what is, against what felix remembers. Nothing is changed, and the store is not asked.

use std::sync::Arc;

use ipnet::IpNet;
use manx_cni::error::{CniError, Code};
use manx_cni::request::Response;
use manx_crds::store::Store;

use crate::add::{attachment, reply};
use crate::cni::Call;
use crate::driver::Driver;
use crate::wiring::{self, Ends};

impl<S: Store> Driver<S> {
    pub(crate) fn begin_check(&self, call: Call) {
        let Call { request, pod, answer } = call;
        let place = format!("felix on {}, CHECK {} {}", self.node, request.container_id, request.ifname);
        let Some(attached) = self.attached.get(&attachment(&request)) else {
            let error = CniError::new(Code::UnknownContainer, "felix knows no such attachment").because(
                &place,
                "an interface that ADD made and DEL has not removed",
                "nothing: the runtime makes the sandbox again",
            );
            return reply(answer, Response::Failed(error));
        };
        let addresses = attached.addresses.clone();
        let differs = request.expected.as_ref().and_then(|expected| {
            addresses.iter().find(|address| !expected.contains(&IpNet::from(**address)))
        });
        let wrong = match differs {
            Some(address) => Some(format!("the pod has {address}, which prevResult does not name")),
            None => self
                .refusal(&addresses)
                .map(|why| format!("the kernel refuses the route by {}: {why}", attached.host_interface))
                .or_else(|| {
                    let error = self.programming.error.as_ref();
                    error.map(|error| format!("its policy is not in force: {error}"))
                }),
        };
        let failed = move |what: String| {
            let todo = "delete the pod; its sandbox is made again";
            let expected = "the link as ADD left it";
            Response::Failed(CniError::new(Code::Internal, what).because(&place, expected, todo))
        };
        if let Some(wrong) = wrong {
            return reply(answer, failed(wrong));
        }
        let Some(pod) = pod else { return };
        let ends = Ends::of(&request.container_id, &request.ifname);
        let host = Arc::clone(&self.host);
        tokio::task::spawn_blocking(move || {
            let response = match wiring::check(&host, &pod.socket, &ends, &request.ifname, &addresses) {
                Ok(()) => Response::Done,
                Err(wrong) => failed(wrong.to_string()),
            };
            reply(answer, response);
        });
    }

    /// Whether an ADD would be served.
    pub(crate) fn answer_status(&self, call: Call) {
        let reason = if let Some(error) = &self.programming.error {
            Some(format!("the kernel refused the ruleset: {error}"))
        } else if !self.serves() {
            Some("the datastore was not read whole yet".to_owned())
        } else {
            None
        };
        let response = match reason {
            None => Response::Done,
            Some(reason) => Response::Failed(CniError::new(Code::NotAvailable, reason).because(
                &format!("felix on {}, STATUS", self.node),
                "felix in sync with the datastore and the kernel",
                "manxctl status; kubectl -n manx-system logs -l app.kubernetes.io/component=felix",
            )),
        };
        reply(call.answer, response);
    }
}

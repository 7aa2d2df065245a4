//! What pods may send from beside their addresses (`manx.dev/allowed-source-prefixes`, api.md §8): read off the Pod and
//! its Namespace, told to the graph with the pod, and to the kernel, whose own check of the way back would drop it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use manx_crds::annotations::{BadAnnotation, allowed_source_prefixes};
use manx_crds::store::{Key, Store};
use manx_crds::v1alpha1::Cidr;

use crate::dataplane::Command;
use crate::driver::Driver;
use crate::objects::Objects;
use crate::writer::Write;

/// Reason of the Event on a pod that sends from its addresses only, against what its keys ask for.
pub(crate) const REFUSED: &str = "SourcePrefixesRefused";
/// Reason of the Event on a pod whose keys are good, and whose node drops what they allow.
const FILTERED: &str = "ReversePathFiltered";

/// How far one link has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourcePrefixes {
    /// Whether the kernel was told to check the way back. None: not by this process.
    strict: Option<bool>,
    /// What the keys were refused for, once said.
    refused: Option<String>,
}

impl SourcePrefixes {
    /// Of a link that was just made.
    pub(crate) fn strict() -> Self {
        Self { strict: Some(true), refused: None }
    }
}

impl Objects {
    /// What a pod's keys and those of its Namespace allow.
    pub(crate) fn allowed_sources(
        &self,
        namespace: &str,
        pod: &Pod,
    ) -> Result<BTreeSet<IpNet>, BadAnnotation> {
        let namespace = self.namespaces.named(namespace);
        let of_namespace = namespace.and_then(|namespace| namespace.metadata.annotations.as_ref());
        let allowed = allowed_source_prefixes(pod.metadata.annotations.as_ref(), of_namespace)?;
        Ok(allowed.iter().map(Cidr::net).collect())
    }
}

impl<S: Store> Driver<S> {
    /// The links of a pod of this node follow what its keys allow now.
    pub(crate) fn follow_sources(&mut self, pod: &Key, allowed: &Result<BTreeSet<IpNet>, BadAnnotation>) {
        let refused = allowed.as_ref().err().map(ToString::to_string);
        // Of IPv6 the kernel checks no way back.
        let borrows = |allowed: &BTreeSet<IpNet>| allowed.iter().any(|prefix| prefix.network().is_ipv4());
        let strict = !allowed.as_ref().is_ok_and(borrows);
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        for link in self.attached.values_mut() {
            if link.namespace != namespace || link.name != pod.name {
                continue;
            }
            if link.sources.strict != Some(strict) {
                link.sources.strict = Some(strict);
                let interface = link.host_interface.clone();
                self.dataplane.send(Command::ReversePath { interface, index: link.index, strict });
            }
            if link.sources.refused != refused {
                link.sources.refused.clone_from(&refused);
                if let Some(text) = &refused {
                    let text = format!("{text}; the pod sends from its own addresses only");
                    tracing::warn!(pod = %pod, error = text, "source prefixes refused");
                    self.status.pod_event(pod, REFUSED, &text);
                }
            }
        }
    }

    /// Pods of this node in these Namespaces.
    pub(crate) fn attached_in(&self, chosen: impl Fn(&Key) -> bool) -> BTreeSet<Key> {
        let concerned = self.attached.values().filter(|link| chosen(&Key::cluster(&link.namespace)));
        concerned.map(|link| Key::namespaced(&link.namespace, &link.name)).collect()
    }

    /// The kernel goes on dropping what the pod may send: whoever runs the node is to know.
    pub(crate) fn reverse_path_stays(&self, interface: &str, error: &str) {
        let Some(link) = self.attached.values().find(|link| link.host_interface == interface) else { return };
        let pod = Key::namespaced(&link.namespace, &link.name);
        tracing::warn!(pod = %pod, error, effect = "the kernel drops what it sends from its source prefixes", "source prefixes");
        self.status.send(Write::PodEvent { pod, reason: FILTERED, note: error.to_owned() });
    }
}

//! FabricConfiguration: Accepted, ResolvedRefs, TopologyReady, SchemaCompatible.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use manx_crds::acceptance::{self, Refusal};
use manx_crds::annotations;
use manx_crds::conditions::{self, ConditionReason as _, ResolvedRefs, SchemaCompatible, TopologyReady};
use manx_crds::v1alpha1::settings::topology_mode;
use manx_crds::v1alpha1::{FabricConfiguration, SCHEMA_REVISION, SessionAuth, TopologyMode};
use manx_daemon::secrets;
use serde_json::json;

use super::{Offer, accepted, status};
use crate::objects::Objects;
use crate::reflectors::Elected;
use crate::wish::{Kind, Saying, Wish};

/// A full mesh of more nodes works, and costs more than it is worth.
const LARGEST_MESH: usize = 100;

pub fn judge(objects: &Objects, elected: &Elected) -> Vec<Offer> {
    let Some(object) = objects.the_configuration() else { return Vec::new() };
    let topology = elected.saying.clone().unwrap_or_else(|| topology(objects, object));
    let mut conditions = vec![accepted(&verdict(object)), topology, schema(objects)];
    conditions.extend(references(objects, object));
    let mut wish = Wish { conditions, whole: true, ..Wish::default() };
    if !elected.reflectors.is_empty() {
        wish.fields.insert("routeReflectors".to_owned(), json!(elected.reflectors));
    }
    vec![status(Kind::FabricConfiguration, object, object.status.as_ref(), wish)]
}

/// Whether what the object names is there.
fn references(objects: &Objects, object: &FabricConfiguration) -> Option<Saying> {
    let profile = object.spec.session.as_ref().and_then(|session| session.bfd_profile.as_deref());
    if let Some(message) = missing_profile(objects, profile, "spec.session.bfdProfile") {
        return Some(Saying::new(ResolvedRefs::BFDProfileNotFound, message));
    }
    let auth = object.spec.topology.as_ref().and_then(|topology| topology.session.as_ref()?.auth.as_ref());
    let said = object.status.as_ref().map(|status| status.conditions.as_slice());
    keys(objects, auth, "spec.topology.session.auth", said.unwrap_or_default())
}

/// Condition ResolvedRefs where nothing but the keys of `auth` can be missing. Until the Secrets were heard it stays what
/// it is: a new leader takes nothing back.
pub(super) fn keys(
    objects: &Objects,
    auth: Option<&SessionAuth>,
    field: &str,
    said: &[Condition],
) -> Option<Saying> {
    let references = auth.map(secrets::references).unwrap_or_default();
    if !references.is_empty() && !objects.secrets.kind.in_sync() {
        let said = conditions::find(said, ResolvedRefs::TYPE)?;
        let reason = ResolvedRefs::ALL.iter().find(|reason| reason.as_str() == said.reason)?;
        return Some(Saying::new(*reason, said.message.clone()));
    }
    for (place, reference) in references {
        if let Err(missing) = objects.secrets.key(reference, &objects.invalid) {
            return Some(Saying::new(missing.reason, format!("{field}.{place}: {}", missing.message)));
        }
    }
    Some(Saying::new(ResolvedRefs::ResolvedRefs, ""))
}

/// Why this BFDProfile cannot be used: it is not there.
pub(super) fn missing_profile(objects: &Objects, name: Option<&str>, field: &str) -> Option<String> {
    let name = name.filter(|name| !name.is_empty())?;
    match objects.bfd_profiles.named(name) {
        Some(_) => None,
        None => Some(format!("{field}: there is no BFDProfile {name}: create it, or name another")),
    }
}

fn verdict(object: &FabricConfiguration) -> Result<(), Refusal> {
    acceptance::topology(Some(object))?;
    let mut names = BTreeSet::new();
    for (index, alias) in object.spec.communities.iter().enumerate() {
        if !names.insert(alias.name.as_str()) {
            return Err(Refusal {
                reason: "DuplicateCommunity",
                message: format!(
                    "spec.communities[{index}]: {} is defined twice: remove one of the two",
                    alias.name
                ),
            });
        }
    }
    Ok(())
}

fn topology(objects: &Objects, object: &FabricConfiguration) -> Saying {
    let nodes = objects.fabric_nodes.iter().count();
    match topology_mode(Some(object)) {
        TopologyMode::FullMesh if nodes > LARGEST_MESH => Saying::new(
            TopologyReady::MeshTooLarge,
            format!(
                "{nodes} nodes are a mesh of more than {LARGEST_MESH}: the sessions stay, but every node has one to \
                 every other; set topology.mode RouteReflector"
            ),
        ),
        // Of reflectors the election says how it stands.
        TopologyMode::FullMesh | TopologyMode::None | TopologyMode::RouteReflector => {
            Saying::new(TopologyReady::Ready, "")
        }
        TopologyMode::Unknown(mode) => Saying::new(
            TopologyReady::NotEnoughCandidates,
            format!("topology.mode {mode:?} is not known to this version: upgrade manx-controller first"),
        ),
    }
}

/// An agent runs with one revision lower and one higher than its own (api.md §14).
fn schema(objects: &Objects) -> Saying {
    let asked = objects.crds.iter().next();
    let schema = asked
        .and_then(|crd| annotations::SCHEMA_REVISION.read(crd.metadata.annotations.as_ref()).ok()?)
        .unwrap_or(SCHEMA_REVISION);
    let agents = objects.fabric_nodes.iter().flat_map(|node| {
        let agents = node.status.iter().flat_map(|status| &status.agents);
        agents.map(move |agent| (agent.schema_revision, agent.name.clone(), node.name_any()))
    });
    let agents: BTreeSet<(u32, String, String)> = agents.collect();
    let (oldest, newest) = (agents.first(), agents.last());
    if let Some((revision, agent, node)) =
        newest.filter(|(revision, ..)| *revision > schema.saturating_add(1))
    {
        return Saying::new(
            SchemaCompatible::SchemaOlderThanAgents,
            format!(
                "{agent} on {node} has schema revision {revision}, the CRDs {schema}: the API server drops fields that \
                 agents need; apply the CRDs of the release (helm upgrade does)"
            ),
        );
    }
    if let Some((revision, agent, node)) = oldest.filter(|(revision, ..)| revision.saturating_add(1) < schema)
    {
        return Saying::new(
            SchemaCompatible::AgentsOlderThanSchema,
            format!(
                "{agent} on {node} has schema revision {revision}, the CRDs {schema}: it does not know what newer \
                 objects say; upgrade the agents one release at a time"
            ),
        );
    }
    Saying::new(SchemaCompatible::Compatible, "")
}

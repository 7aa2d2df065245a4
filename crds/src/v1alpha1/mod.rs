//! `manx.dev/v1alpha1`: one kind a file. The types make the schema, `crds()` prints it, and the directory
//! backend validates by the very same schema.

#![expect(unreachable_pub, reason = "kube-derive repeats each pub struct inside a function")]
#![expect(clippy::duplicated_attributes, reason = "every printcolumn has a type_")]

mod bfd_profile;
mod bgp_advertisement;
mod bgp_filter;
mod bgp_peer;
mod bgp_session;
mod fabric_configuration;
mod fabric_node;
mod global_network_policy;
mod global_network_set;
mod host_endpoint;
mod ip_block;
mod ip_pool;
mod load_balancer_pool;
mod network_policy;
mod network_set;
mod policy_rule;
mod policy_values;
mod range;
pub mod schema;
pub mod selector;
mod session;
pub mod settings;
mod tier;
mod values;

pub use bfd_profile::*;
pub use bgp_advertisement::*;
pub use bgp_filter::*;
pub use bgp_peer::*;
pub use bgp_session::*;
pub use fabric_configuration::*;
pub use fabric_node::*;
pub use global_network_policy::*;
pub use global_network_set::*;
pub use host_endpoint::*;
pub use ip_block::*;
pub use ip_pool::*;
pub use load_balancer_pool::*;
pub use network_policy::*;
pub use network_set::*;
pub use policy_rule::*;
pub use policy_values::*;
pub use range::*;
pub use selector::selects;
pub use session::*;
pub use tier::*;
pub use values::*;

/// The API group.
pub const GROUP: &str = "manx.dev";
/// The version that these types are.
pub const VERSION: &str = "v1alpha1";
/// `manx.dev/schema-revision`: raised with each change of the schema (api.md §14).
pub const SCHEMA_REVISION: u32 = 1;

/// The CRDs of every kind, as JSON.
///
/// # Errors
/// Only if a derived CRD is no JSON; a test shows that each is.
pub fn crds() -> Result<Vec<serde_json::Value>, serde_json::Error> {
    Ok(vec![
        schema::crd::<FabricConfiguration>()?,
        schema::crd::<FabricNode>()?,
        schema::crd::<BGPPeer>()?,
        schema::crd::<BGPSession>()?,
        schema::crd::<BGPAdvertisement>()?,
        schema::crd::<BGPFilter>()?,
        schema::crd::<BFDProfile>()?,
        schema::crd::<IPPool>()?,
        schema::crd::<IPBlock>()?,
        schema::crd::<LoadBalancerPool>()?,
        schema::crd::<Tier>()?,
        schema::crd::<NetworkPolicy>()?,
        schema::crd::<GlobalNetworkPolicy>()?,
        schema::crd::<NetworkSet>()?,
        schema::crd::<GlobalNetworkSet>()?,
        schema::crd::<HostEndpoint>()?,
    ])
}

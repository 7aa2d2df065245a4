//! What a session needs before it may be tried: the key that its `auth` names.
//!
//! A session that cannot be signed as it asks is withheld: neither dialled nor accepted, and its BGPSession says why. The
//! key itself goes to the sockets (`net.rs`); the speaker only knows that there is one.

use bgp_proto::config::{AdminState, PeerConfig};
use bgp_proto::output::Reason;
use ipnet::IpNet;
use manx_crds::v1alpha1::EffectiveSession;
use manx_daemon::secrets::references;

use crate::desire::Desire;
use crate::objects::Objects;

/// A Secret and a key in it.
pub(crate) type SecretKey = (String, String);

/// Puts the key of a session into `desire`, or the reason why it is not tried into `config`. `field` is where its `auth`
/// stands,
/// `signers` are those who use the key.
pub(crate) fn require(
    session: &EffectiveSession,
    field: &str,
    objects: &Objects,
    signers: IpNet,
    config: &mut PeerConfig,
    desire: &mut Desire,
) {
    let Some(auth) = &session.auth else { return };
    config.signed = true;
    for (_, reference) in references(auth) {
        desire.secrets.insert((reference.name.clone(), reference.key.clone()));
    }
    let key = match (&auth.md5, &auth.tcp_ao) {
        (Some(md5), None) => match objects.secrets.key(&md5.secret_ref, &objects.invalid) {
            Ok(key) => Some(key),
            Err(missing) => {
                let text = format!("{field}.md5.secretRef: {}", missing.message);
                withhold(config, Reason::SecretMissing, text);
                None
            }
        },
        (_, Some(_)) => {
            let text = format!(
                "{field}.tcpAO is not supported by this version: use md5 on both sides, or upgrade the agents first"
            );
            withhold(config, Reason::AuthUnsupported, text);
            None
        }
        (None, None) => {
            let text = format!("{field} names no method that this version knows: upgrade the agents first");
            withhold(config, Reason::AuthUnsupported, text);
            None
        }
    };
    desire.keys.insert(signers, key);
}

/// Not tried. One that is shut down stays so.
pub(crate) fn withhold(config: &mut PeerConfig, reason: Reason, text: String) {
    if config.admin == AdminState::Up {
        config.admin = AdminState::Withheld { reason, text };
    }
}

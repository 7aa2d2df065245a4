//! Giving addresses back.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{Allocator, Now, Output, RequestId};
use crate::block::{Released, whole_seconds};
use crate::journal::{Attachment, Cooling, Record};
use crate::owner::{Owner, Sandbox};

impl Allocator {
    /// Releases what this attachment has, whether the journal knows it or only an object does. What is unknown
    /// everywhere was released before, which is what a DEL wants.
    pub(super) fn release(&mut self, id: RequestId, attachment: &Attachment, now: Now) {
        self.cancel(attachment);
        let until = whole_seconds(now.wall.saturating_add(self.settings.cooldown).unwrap_or(now.wall));
        #[cfg(test)]
        let until = if self.fault == Some(super::Fault::NoCooldown) { now.wall } else { until };
        let addresses = match self.known.pods.get(attachment) {
            Some(pod) => {
                let owner = Owner::Pod(pod.owner());
                let addresses: Vec<IpAddr> = pod.addresses.iter().map(|address| address.ip).collect();
                addresses.iter().for_each(|ip| self.release_one(*ip, &owner, until, now));
                addresses
            }
            None => self.release_unknown(attachment, until, now),
        };
        if !addresses.is_empty() {
            let record = Record::Removed {
                container_id: attachment.container_id.clone(),
                interface: attachment.interface.clone(),
                cooling: addresses.iter().map(|ip| Cooling { ip: *ip, until }).collect(),
            };
            self.known.apply(record.clone());
            self.outputs.push_back(Output::Journal(record));
        }
        self.outputs.push_back(Output::Released { id, addresses });
    }

    /// After a lost journal the objects still name the sandbox.
    fn release_unknown(&mut self, attachment: &Attachment, until: Timestamp, now: Now) -> Vec<IpAddr> {
        let sandbox = Sandbox::of(&attachment.container_id);
        let found: Vec<(IpAddr, Owner)> = self
            .held
            .values()
            .flat_map(|held| held.block.owned().filter(|(ip, _)| held.unknown.contains(ip)))
            .filter(|(_, allocation)| match &allocation.owner {
                Owner::Pod(pod) => pod.sandbox == sandbox && pod.interface == attachment.interface,
                Owner::Tunnel | Owner::Other(_) => false,
            })
            .map(|(ip, allocation)| (ip, allocation.owner.clone()))
            .collect();
        for (ip, owner) in &found {
            self.release_one(*ip, owner, until, now);
        }
        found.into_iter().map(|(ip, _)| ip).collect()
    }

    fn release_one(&mut self, ip: IpAddr, owner: &Owner, until: Timestamp, now: Now) {
        for held in self.held.values_mut().filter(|held| held.block.cidr().contains(&ip)) {
            if held.block.release(ip, owner, until) == Released::Now {
                held.unknown.remove(&ip);
                held.touch(now);
            }
        }
    }
}

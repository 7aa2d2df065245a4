//! The encoded UPDATEs of a group, in order, each stretch with its audience; peers read it from their cursors.

use std::collections::VecDeque;
use std::ops::Range;

use ipnet::IpNet;

use crate::types::{AfiSafi, PeerId};
use crate::wire::message::encode;
use crate::wire::nlri::Nlri;
use crate::wire::rewrite::Outgoing;
use crate::wire::update;
use crate::wire::{MessageType, RouteRefresh};

/// A chunk is full above this.
const FULL: usize = 60_000;

/// Who reads a stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum To {
    /// All but the source.
    AllBut(PeerId),
    Only(PeerId),
}

impl To {
    fn includes(self, peer: PeerId) -> bool {
        match self {
            To::AllBut(source) => source != peer,
            To::Only(one) => one == peer,
        }
    }
}

#[derive(Debug)]
struct Chunk {
    /// Place in the log of the first byte.
    start: u64,
    /// Whole messages.
    bytes: Vec<u8>,
    /// Where each stretch ends, and its audience.
    ends: Vec<(usize, To)>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Where in the bytes a place of the log is; 0 before the chunk.
    fn offset(&self, place: u64) -> usize {
        usize::try_from(place.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len())
    }
}

/// Append only; a place in it is a number of bytes since the group began.
#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    head: u64,
}

impl Log {
    /// The place behind the last byte.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes kept.
    pub(super) fn len(&self) -> u64 {
        self.chunks.front().map_or(0, |chunk| self.head - chunk.start)
    }

    /// UPDATEs that announce prefixes with one set.
    pub(super) fn announce<N: Nlri>(
        &mut self,
        to: To,
        outgoing: &Outgoing<'_>,
        max_message: usize,
        prefixes: impl Iterator<Item = N>,
    ) {
        let mut prefixes = prefixes.peekable();
        let fits = |limit: usize| {
            update::room::<N::Address>(outgoing, limit) >= update::longest_prefix::<N::Address>() + N::PATH_ID
        };
        // Extended messages where nothing else will do: a peer may act on the first of several short ones while the next
        // is on its way.
        let limit = if fits(update::MAX_MESSAGE) { update::MAX_MESSAGE } else { max_message };
        if !fits(limit) {
            debug_assert!(false, "the verdict lets no set pass that does not fit");
            return;
        }
        while prefixes.peek().is_some() {
            self.append(to, |out| update::put_announcement(out, outgoing, limit, &mut prefixes));
        }
    }

    /// UPDATEs that withdraw prefixes.
    pub(super) fn withdraw<N: Nlri>(&mut self, to: To, prefixes: impl Iterator<Item = N>) {
        let mut prefixes = prefixes.peekable();
        while prefixes.peek().is_some() {
            self.append(to, |out| update::put_withdrawal(out, &mut prefixes));
        }
    }

    /// End-of-RIB.
    pub(super) fn end_of_rib(&mut self, to: To, family: AfiSafi) {
        self.append(to, |out| update::put_end_of_rib(out, family));
    }

    /// A border of an enhanced refresh (RFC 7313).
    pub(super) fn refresh_border(&mut self, to: To, family: AfiSafi, subtype: u8) {
        let border = RouteRefresh { afi: family.afi(), subtype, safi: family.safi() };
        self.append(to, |out| encode(MessageType::RouteRefresh, out, |out| border.encode(out)));
    }

    fn append(&mut self, to: To, write: impl FnOnce(&mut Vec<u8>)) {
        if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() > FULL) {
            self.chunks.push_back(Chunk { start: self.head, bytes: Vec::new(), ends: Vec::new() });
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        write(&mut chunk.bytes);
        self.head = chunk.end();
        let end = chunk.bytes.len();
        match chunk.ends.last_mut() {
            Some(last) if last.1 == to => last.0 = end,
            _ => chunk.ends.push((end, to)),
        }
    }

    /// The next stretch for a peer that has read as far as `cursor`: where it is. What is not for the peer is passed over, which
    /// moves the cursor.
    pub(super) fn next(&self, peer: PeerId, cursor: &mut u64) -> Option<(usize, Range<usize>)> {
        let first = self.chunks.partition_point(|chunk| chunk.end() <= *cursor);
        for (at, chunk) in self.chunks.iter().enumerate().skip(first) {
            let mut from = chunk.offset(*cursor);
            let behind = chunk.ends.partition_point(|(end, _)| *end <= from);
            let mut ends = chunk.ends.iter().skip(behind).peekable();
            while let Some((end, _)) = ends.next_if(|(_, to)| !to.includes(peer)) {
                from = *end;
            }
            *cursor = chunk.start + from as u64;
            let mine = std::iter::from_fn(|| ends.next_if(|(_, to)| to.includes(peer)));
            if let Some((end, _)) = mine.last() {
                return Some((at, from..*end));
            }
        }
        None
    }

    /// The bytes that [`Log::next`] found.
    pub(super) fn bytes(&self, (at, range): (usize, Range<usize>)) -> Option<&[u8]> {
        self.chunks.get(at)?.bytes.get(range)
    }

    /// Calls `f` with each prefix named behind `cursor` in what is for the peer, and its path identifier where there is one
    /// (`ids`: IPv4, IPv6). Returns the rest of the message that the cursor is in the middle of.
    pub(super) fn unread(
        &self,
        peer: PeerId,
        cursor: u64,
        ids: (bool, bool),
        mut f: impl FnMut(IpNet, u32),
    ) -> Vec<u8> {
        let mut rest = Vec::new();
        for chunk in self.chunks.iter().filter(|chunk| chunk.end() > cursor) {
            let (mut start, read) = (0, chunk.offset(cursor));
            for (end, to) in &chunk.ends {
                let stretch = chunk.bytes.get(start..*end).unwrap_or_default();
                let mut at = start;
                start = *end;
                if !to.includes(peer) || *end <= read {
                    continue;
                }
                let mut messages = stretch;
                while let Some((message, behind)) =
                    update::message_length(messages).and_then(|length| messages.split_at_checked(length))
                {
                    let end = at + message.len();
                    if at < read && end > read {
                        rest = message.get(read - at..).unwrap_or_default().to_vec();
                    } else if at >= read {
                        update::each_named(message, ids, &mut f);
                    }
                    (messages, at) = (behind, end);
                }
            }
        }
        rest
    }

    /// Forgets what lies before `place`.
    pub(super) fn trim(&mut self, place: u64) {
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= place) {
            self.chunks.pop_front();
        }
    }
}

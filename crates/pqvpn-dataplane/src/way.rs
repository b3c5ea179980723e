// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways: underlay addresses that are not IP addresses, because a relay or a carrier of the control side is between.
//!
//! A way is named by an address out of the discard-only prefix `100::/64` (RFC 6666), which no host has. Whatever speaks
//! of a remote address (paths, the QUIC guest, probes, events) speaks of ways too; only sending and receiving look.

mod forward;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::{Arc, Weak},
};

use pqvpn_packet::relay::{Channel, RELAY_LEN};
use thiserror::Error;

use self::forward::End;
pub(crate) use self::forward::ForwardEntry;
pub use self::forward::{Forward, ForwardLimit, ForwardStats};
use crate::{route::Mixed, udp::canonical};

/// Most ways at a time.
pub const MAX_WAYS: usize = 4096;
/// Most forwards at a time.
pub const MAX_FORWARDS: usize = 16_384;

/// The upper half of the addresses of ways (RFC 6666).
const PREFIX: u128 = 0x0100 << 112;
/// The port of the addresses of ways.
const PORT: u16 = 1;

/// The number the node gives a way; the lower half of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WayId(pub u64);

impl WayId {
    /// The address that stands for the way.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_bits(PREFIX | self.0 as u128), PORT, 0, 0))
    }

    /// The way an address stands for, `None` when it is an ordinary address.
    #[must_use]
    pub const fn of(addr: SocketAddr) -> Option<Self> {
        let SocketAddr::V6(addr) = addr else { return None };
        let bits = addr.ip().to_bits();
        if bits & !(u64::MAX as u128) != PREFIX || addr.port() != PORT {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the upper half is the prefix")]
        Some(Self(bits as u64))
    }
}

/// What carries datagrams where UDP does not: the control side's end of a WebSocket or the like.
pub trait CarrierSink: Send + Sync {
    /// Takes a copy of a datagram; `false` when there is no room, and it is dropped and counted.
    ///
    /// Called on the packet threads, with a session locked: it must neither block nor call back into the data plane.
    fn send(&self, datagram: &[u8]) -> bool;

    /// The longest datagram it takes, where that does not depend on the network under it.
    fn max_datagram(&self) -> Option<usize> {
        None
    }
}

/// What carries the datagrams of many ways, whose numbers begin alike: ways come and go without the data plane being told.
pub trait CarrierGroup: Send + Sync {
    /// As [`CarrierSink::send`], on one of the ways; `false` also where there is no such way.
    fn send(&self, way: WayId, datagram: &[u8]) -> bool;
}

/// The upper 16 bits of the numbers of a group's ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId(pub u16);

impl GroupId {
    /// One of its ways, by the lower 48 bits of `number`.
    #[must_use]
    pub const fn way(self, number: u64) -> WayId {
        WayId((self.0 as u64) << 48 | number & (u64::MAX >> 16))
    }

    /// The group of a way that has no place of its own in the table.
    const fn of(id: WayId) -> Self {
        Self((id.0 >> 48) as u16)
    }
}

/// How datagrams go a way.
#[derive(Clone)]
pub enum Way {
    /// Through a relay, with a relay header in front.
    Relay {
        /// Address of the relay: of its own, or of a carried way to it.
        relay: SocketAddr,
        /// The channel written on what is sent, 56 bits.
        out_channel: u64,
        /// The channel seen on what is received, 56 bits.
        in_channel: u64,
    },
    /// By a carrier of the control side, which hands in what it receives by [`Control::inject`](crate::Control::inject).
    Carried(Arc<dyn CarrierSink>),
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay { relay, out_channel, in_channel } => {
                write!(f, "Relay {{ relay: {relay}, out: {out_channel:#x}, in: {in_channel:#x} }}")
            }
            Self::Carried(_) => f.write_str("Carried"),
        }
    }
}

/// Why a way or a forward was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WayError {
    /// Another way or forward receives on this channel.
    #[error("channel {0:#x} is already in use")]
    ChannelInUse(u64),
    /// A channel has more than 56 bits.
    #[error("channel {0:#x} has more than 56 bits")]
    BadChannel(u64),
    /// The address is that of a way through a relay, or of no way there is: relays are never nested.
    #[error("{0} is not an address a relay can have")]
    Nested(SocketAddr),
    /// There are [`MAX_WAYS`] ways or [`MAX_FORWARDS`] forwards.
    #[error("there are too many ways or forwards")]
    TooMany,
}

/// A way as the packet threads use it.
#[derive(Clone)]
enum Course {
    Relay { relay: SocketAddr, out: Channel, inward: Channel },
    Carried(Arc<dyn CarrierSink>),
}

/// Whose a channel is that was seen on a received relay datagram.
#[derive(Clone)]
pub(crate) enum Owner {
    /// What is inside came from `way`, if `relay` sent it.
    Way { way: WayId, relay: SocketAddr },
    /// It is to be sent on.
    Forward(Arc<ForwardEntry>),
}

/// How a datagram leaves: what stands in front of it, and what takes it.
#[derive(Clone, Copy)]
pub(crate) struct Exit<'t> {
    pub(crate) channel: Option<Channel>,
    pub(crate) by: By<'t>,
}

/// What takes a datagram.
#[derive(Clone, Copy)]
pub(crate) enum By<'t> {
    /// A UDP socket, to this address.
    Udp(SocketAddr),
    /// A carrier.
    Carrier(Carrier<'t>),
}

/// A carrier, and which of its ways.
#[derive(Clone, Copy)]
pub(crate) enum Carrier<'t> {
    One(&'t dyn CarrierSink),
    Group(&'t dyn CarrierGroup, WayId),
}

impl Carrier<'_> {
    pub(crate) fn send(&self, datagram: &[u8]) -> bool {
        match self {
            Self::One(sink) => sink.send(datagram),
            Self::Group(group, way) => group.send(*way, datagram),
        }
    }

    pub(crate) fn max_datagram(&self) -> Option<usize> {
        match self {
            Self::One(sink) => sink.max_datagram(),
            Self::Group(..) => None,
        }
    }
}

impl Exit<'_> {
    /// Bytes to leave free in front of the datagram.
    pub(crate) const fn lead(&self) -> usize {
        if self.channel.is_some() { RELAY_LEN } else { 0 }
    }
}

/// All ways and forwards; an immutable snapshot like the rest of what the packet threads read.
#[derive(Clone, Default)]
pub(crate) struct Ways {
    courses: HashMap<u64, Course, Mixed>,
    groups: HashMap<GroupId, Arc<dyn CarrierGroup>>,
    /// Others choose these numbers: a keyed hash.
    channels: HashMap<Channel, Owner>,
    forwards: usize,
    /// The ends of forwards.
    ends: HashMap<SocketAddr, Weak<End>>,
}

impl Ways {
    /// How a datagram for `remote` leaves, `None` when `remote` is a way that is not there.
    pub(crate) fn exit(&self, remote: SocketAddr) -> Option<Exit<'_>> {
        let Some(id) = WayId::of(remote) else {
            return Some(Exit { channel: None, by: By::Udp(remote) });
        };
        match self.courses.get(&id.0) {
            Some(Course::Carried(sink)) => Some(Exit { channel: None, by: By::Carrier(Carrier::One(sink.as_ref())) }),
            Some(Course::Relay { relay, out, .. }) => Some(Exit { channel: Some(*out), by: self.direct(*relay)? }),
            None => Some(Exit { channel: None, by: self.by_group(id)? }),
        }
    }

    fn by_group(&self, id: WayId) -> Option<By<'_>> {
        let group = self.groups.get(&GroupId::of(id))?;
        Some(By::Carrier(Carrier::Group(group.as_ref(), id)))
    }

    /// What takes datagrams to an address that is no way through a relay.
    pub(crate) fn direct(&self, addr: SocketAddr) -> Option<By<'_>> {
        match WayId::of(addr) {
            None => Some(By::Udp(addr)),
            Some(id) => match self.courses.get(&id.0) {
                Some(Course::Carried(sink)) => Some(By::Carrier(Carrier::One(sink.as_ref()))),
                Some(Course::Relay { .. }) => None,
                None => self.by_group(id),
            },
        }
    }

    /// Whose a channel is.
    pub(crate) fn owner(&self, channel: Channel) -> Option<&Owner> {
        self.channels.get(&channel)
    }

    /// Whether the control side may hand in datagrams for this way.
    pub(crate) fn is_carried(&self, id: WayId) -> bool {
        match self.courses.get(&id.0) {
            Some(course) => matches!(course, Course::Carried(_)),
            None => self.groups.contains_key(&GroupId::of(id)),
        }
    }

    /// Sets what carries the ways of a group, or nothing any more.
    pub(crate) fn set_group(&mut self, id: GroupId, group: Option<Arc<dyn CarrierGroup>>) {
        match group {
            Some(group) => drop(self.groups.insert(id, group)),
            None => drop(self.groups.remove(&id)),
        }
    }

    /// Sets a way, in the place of the one of this number.
    pub(crate) fn set_way(&mut self, id: WayId, way: Way) -> Result<(), WayError> {
        let course = match way {
            Way::Carried(sink) => Course::Carried(sink),
            Way::Relay { relay, out_channel, in_channel } => {
                Course::Relay { relay: self.checked(relay)?, out: channel(out_channel)?, inward: channel(in_channel)? }
            }
        };
        if let Course::Relay { inward, .. } = course
            && self.channels.get(&inward).is_some_and(|owner| !matches!(owner, Owner::Way { way, .. } if *way == id))
        {
            return Err(WayError::ChannelInUse(inward.get()));
        }
        if !self.courses.contains_key(&id.0) && self.courses.len() >= MAX_WAYS {
            return Err(WayError::TooMany);
        }
        self.remove_way(id);
        if let Course::Relay { relay, inward, .. } = course {
            self.channels.insert(inward, Owner::Way { way: id, relay });
        }
        self.courses.insert(id.0, course);
        Ok(())
    }

    /// Removes a way; `false` when there is none of that number.
    pub(crate) fn remove_way(&mut self, id: WayId) -> bool {
        let removed = self.courses.remove(&id.0);
        if let Some(Course::Relay { inward, .. }) = removed {
            self.channels.remove(&inward);
        }
        removed.is_some()
    }

    /// Sets a forward, in the place of the one of this channel, whose counters go on.
    pub(crate) fn set_forward(&mut self, number: u64, forward: Forward) -> Result<(), WayError> {
        let at = channel(number)?;
        let out = channel(forward.out_channel)?;
        let forward = Forward { from: self.checked(forward.from)?, to: self.checked(forward.to)?, ..forward };
        let old = match self.channels.get(&at) {
            Some(Owner::Way { .. }) => return Err(WayError::ChannelInUse(number)),
            Some(Owner::Forward(old)) => Some(Arc::clone(old)),
            None if self.forwards >= MAX_FORWARDS => return Err(WayError::TooMany),
            None => None,
        };
        self.forwards += usize::from(old.is_none());
        self.ends.retain(|_, end| end.strong_count() > 0);
        let mut end_of = |addr| {
            let known = self.ends.get(&addr).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let end = Arc::new(End::default());
                self.ends.insert(addr, Arc::downgrade(&end));
                end
            })
        };
        let entry = ForwardEntry::new(forward, out, old.as_deref(), &mut end_of);
        self.channels.insert(at, Owner::Forward(Arc::new(entry)));
        Ok(())
    }

    /// Removes a forward; `false` when there is none of that channel.
    pub(crate) fn remove_forward(&mut self, number: u64) -> bool {
        let Some(at) = Channel::new(number) else { return false };
        if !matches!(self.channels.get(&at), Some(Owner::Forward(_))) {
            return false;
        }
        self.channels.remove(&at);
        self.forwards -= 1;
        true
    }

    /// The forward of a channel.
    pub(crate) fn forward(&self, number: u64) -> Option<&Arc<ForwardEntry>> {
        match self.channels.get(&Channel::new(number)?)? {
            Owner::Forward(entry) => Some(entry),
            Owner::Way { .. } => None,
        }
    }

    /// The address in the form received datagrams have, if a relay or an end of a forward may have it.
    fn checked(&self, addr: SocketAddr) -> Result<SocketAddr, WayError> {
        let addr = canonical(addr);
        self.direct(addr).map(|_| addr).ok_or(WayError::Nested(addr))
    }
}

fn channel(number: u64) -> Result<Channel, WayError> {
    Channel::new(number).ok_or(WayError::BadChannel(number))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who sends how much of what one socket receives, so that what is given up is given up by those who send the most.

use pqvpn_packet::{
    header::{is_tunnel, receiver_of},
    relay::{Channel, is_relay},
};

use crate::{
    event::PeerSlot,
    table::Tables,
    udp::{RecvBatch, RecvMeta, SLOT_LEN, sys::RECV_SLOTS},
    way::Owner,
};

/// What a datagram costs besides its bytes, in bytes: it is opened, looked at and written however short it is.
const PER_DATAGRAM: usize = 512;

/// Whose messages are counted together. By what they name and not by address, of which a sender may have many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Peer(PeerSlot),
    Channel(Channel),
    /// All who have no session.
    Strangers,
}

impl Sender {
    fn of(first: &[u8], meta: &RecvMeta, tables: &Tables) -> Self {
        match first.first() {
            Some(&byte) if is_tunnel(byte) => {
                let session = receiver_of(first).and_then(|index| tables.sessions.get(&index));
                session.map_or(Self::Strangers, |session| Self::Peer(session.peer.slot))
            }
            Some(&byte) if is_relay(byte) => {
                let owned = Channel::of(first).filter(|&channel| match tables.ways.owner(channel) {
                    Some(Owner::Forward(forward)) => forward.from == meta.addr,
                    Some(Owner::Way { relay, .. }) => *relay == meta.addr,
                    None => false,
                });
                owned.map_or(Self::Strangers, Self::Channel)
            }
            _ => Self::Strangers,
        }
    }
}

/// The messages of a batch whose senders have at least an even share of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heavy(u64);

impl Heavy {
    pub(super) fn of(batch: &mut RecvBatch, tables: &Tables) -> Self {
        let mut messages = [(Sender::Strangers, 0); RECV_SLOTS];
        let mut count = 0;
        while let Some(meta) = batch.meta(count) {
            let start = count * SLOT_LEN;
            let first = &batch.storage()[start..start + meta.len.min(meta.stride)];
            messages[count] = (Sender::of(first, &meta, tables), meta.len + PER_DATAGRAM * meta.datagrams());
            count += 1;
        }
        Self(heavy(&messages[..count]))
    }

    pub(super) const fn contains(self, message: usize) -> bool {
        self.0 >> message & 1 == 1
    }
}

/// A bit for each of up to 64 messages, each with its sender and weight.
fn heavy<S: PartialEq>(messages: &[(S, usize)]) -> u64 {
    let of = |sender: &S| messages.iter().filter(|(other, _)| other == sender).map(|(_, weight)| weight).sum::<usize>();
    let senders =
        (0..messages.len()).filter(|&i| messages[..i].iter().all(|(other, _)| *other != messages[i].0)).count();
    let all: usize = messages.iter().map(|(_, weight)| weight).sum();
    let is_heavy = |(sender, _): &(S, usize)| of(sender) * senders >= all;
    messages.iter().enumerate().fold(0, |bits, (i, message)| bits | u64::from(is_heavy(message)) << i)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use pqvpn_packet::header::{HEADER_LEN, PacketKind, TAG_LEN};

    use super::*;
    use crate::{
        SessionId,
        backlog::Excess,
        clock,
        inbound::fuzz::{INDEX, Rig},
        session::TxSession,
        stats::{DropReason, Drops},
    };

    /// A packet of the peer's, long enough to be given up.
    fn sealed(peer: &mut TxSession) -> Vec<u8> {
        let mut inner = vec![0; 400];
        inner[..4].copy_from_slice(&[0x45, 0, 1, 144]);
        inner[9] = 253;
        inner[12..20].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
        let mut datagram = [&[0; HEADER_LEN], &inner[..], &[0; TAG_LEN]].concat();
        peer.begin_batch(clock::now(), 1).unwrap();
        peer.seal(INDEX, PacketKind::Data, &mut datagram).unwrap();
        datagram
    }

    /// Has one batch of four datagrams dealt with; gives what was written and the drops.
    fn batch(rig: &mut Rig, datagrams: [Vec<u8>; 4], excess: Excess) -> (usize, Drops) {
        let (sender, mut sources) = (UdpSocket::bind("127.0.0.1:0").unwrap(), rig.inbound.sources());
        let source = &mut sources.list[0];
        let to = rig.inbound.shared.underlay.sockets.local_addr().unwrap();
        for datagram in &datagrams {
            sender.send_to(datagram, to).unwrap();
        }
        let mut batch = RecvBatch::new();
        assert_eq!(batch.receive(source.socket.fd()).unwrap(), 4);
        let tables = rig.inbound.shared.tables.load_full();
        rig.inbound.take(&mut batch, &tables, source, excess, clock::now());
        let mut drops = Drops::default();
        rig.inbound.drops.add_to(&mut drops);
        (std::iter::from_fn(|| rig.tun.collect(std::time::Duration::ZERO)).count(), drops)
    }

    #[test]
    fn what_is_given_up_is_given_up_by_who_sends_the_most() {
        let mut rig = Rig::new();
        let peer = &mut rig.install(SessionId(1), clock::now());
        let garbage = || vec![0x40; 1000];
        // Two of three messages each, and a packet: strangers', who send the most, and none of the peer's.
        let excess = Excess::for_tests(true, 43);
        let (written, drops) = batch(&mut rig, [garbage(), sealed(peer), garbage(), garbage()], excess);
        assert_eq!((written, drops.get(DropReason::QueueDelay)), (1, 2));
        // And now the peer's.
        let (written, drops) =
            batch(&mut rig, [sealed(peer), garbage(), sealed(peer), sealed(peer)], Excess::default());
        assert_eq!((written, drops.get(DropReason::QueueDelay)), (3, 2));
        let long = [sealed(peer), sealed(peer), garbage(), sealed(peer)];
        let (written, drops) = batch(&mut rig, long, Excess::for_tests(true, 0));
        assert_eq!((written, drops.get(DropReason::QueueDelay)), (2, 3), "one of the peer's, once");
    }

    #[test]
    fn who_sends_the_most_is_heavy_and_who_sends_little_is_not() {
        assert_eq!(heavy::<u8>(&[]), 0);
        assert_eq!(heavy(&[('a', 1)]), 0b1, "alone");
        assert_eq!(heavy(&[('a', 900), ('b', 60), ('a', 900), ('c', 60)]), 0b0101);
        assert_eq!(heavy(&[('a', 900), ('b', 800), ('c', 60), ('c', 60)]), 0b0011, "more than one");
        assert_eq!(heavy(&[('a', 5), ('b', 5)]), 0b11, "equals");
        // Many messages of one sender count together.
        let mut messages = vec![('a', 100); 63];
        messages.push(('b', 1000));
        assert_eq!(heavy(&messages), u64::MAX >> 1);
    }
}

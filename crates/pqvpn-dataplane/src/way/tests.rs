// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses of ways, and what the table of ways and forwards takes and refuses.

use super::*;
use proptest::prelude::*;

struct Nowhere;

impl CarrierSink for Nowhere {
    fn send(&self, _datagram: &[u8]) -> bool {
        false
    }
}

/// Takes what goes on one way.
struct Only(WayId);

impl CarrierGroup for Only {
    fn send(&self, way: WayId, _datagram: &[u8]) -> bool {
        way == self.0
    }
}

fn relay(relay: &str, out_channel: u64, in_channel: u64) -> Way {
    Way::Relay { relay: relay.parse().unwrap(), out_channel, in_channel }
}

fn forward(from: &str, to: &str, out_channel: u64) -> Forward {
    let limit = Arc::new(ForwardLimit::new(1_000_000, 1_000_000));
    Forward { from: from.parse().unwrap(), to: to.parse().unwrap(), out_channel, limit }
}

const R: &str = "192.0.2.1:7";
const S: &str = "192.0.2.2:8";

#[test]
fn the_address_of_a_way_is_in_the_discard_prefix() {
    assert_eq!(WayId(0x0102_0304_0506_0708).address(), "[100::102:304:506:708]:1".parse().unwrap());
    for other in ["[100::1]:2", "[100:0:0:1::1]:1", "[::1]:1", "[::ffff:1.0.0.0]:1", "1.0.0.0:1"] {
        assert_eq!(WayId::of(other.parse().unwrap()), None, "{other}");
    }
}

proptest! {
    #[test]
    fn every_way_has_an_address_of_its_own(id: u64) {
        prop_assert_eq!(WayId::of(WayId(id).address()), Some(WayId(id)));
    }
}

#[test]
fn a_group_carries_its_ways_and_no_others() {
    let (mut ways, group) = (Ways::default(), GroupId(0xc123));
    let way = group.way(u64::MAX - 7);
    assert_eq!(GroupId::of(way), group);
    assert!(ways.exit(way.address()).is_none());
    ways.set_group(group, Some(Arc::new(Only(way))));
    assert!(ways.is_carried(way) && !ways.is_carried(GroupId(0xc124).way(1)));
    let takes =
        |ways: &Ways, way: WayId| match (ways.exit(way.address()).map(|exit| exit.by), ways.direct(way.address())) {
            (Some(By::Carrier(one)), Some(By::Carrier(other))) => one.send(b"a datagram") && other.send(b"a datagram"),
            _ => false,
        };
    assert!(takes(&ways, way) && !takes(&ways, group.way(1)) && !takes(&ways, GroupId(0xc124).way(u64::MAX - 7)));
    ways.set_way(group.way(1), Way::Carried(Arc::new(Nowhere))).unwrap();
    ways.set_forward(1, forward(R, &way.address().to_string(), 2)).unwrap();
    ways.set_group(group, None);
    assert!(!ways.is_carried(way) && ways.is_carried(group.way(1)), "that one was set by itself");
}

#[test]
fn a_channel_belongs_to_one_way_or_forward() {
    let mut ways = Ways::default();
    ways.set_way(WayId(1), relay(R, 10, 20)).unwrap();
    assert_eq!(ways.set_way(WayId(2), relay(S, 10, 20)), Err(WayError::ChannelInUse(20)));
    assert_eq!(ways.set_forward(20, forward(R, S, 1)), Err(WayError::ChannelInUse(20)));
    ways.set_forward(30, forward(R, S, 20)).unwrap();
    assert_eq!(ways.set_way(WayId(2), relay(S, 10, 30)), Err(WayError::ChannelInUse(30)));
    assert!(matches!(ways.owner(Channel::new(20).unwrap()), Some(Owner::Way { way: WayId(1), .. })));
    assert!(matches!(ways.owner(Channel::new(30).unwrap()), Some(Owner::Forward(_))));
    ways.set_way(WayId(1), relay(S, 11, 21)).unwrap();
    assert!(ways.owner(Channel::new(20).unwrap()).is_none(), "the channel before is free");
    assert!(ways.remove_way(WayId(1)) && !ways.remove_way(WayId(1)));
    assert!(ways.remove_forward(30) && !ways.remove_forward(30) && !ways.remove_forward(u64::MAX));
    ways.set_way(WayId(2), relay(S, 10, 30)).unwrap();
    ways.set_way(WayId(3), relay(S, 10, 21)).unwrap();
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut ways = Ways::default();
    ways.set_way(WayId(1), relay(R, 10, 20)).unwrap();
    ways.set_way(WayId(2), relay(R, 10, 21)).unwrap();
    assert_eq!(ways.set_way(WayId(2), relay(R, 10, 20)), Err(WayError::ChannelInUse(20)));
    assert_eq!(ways.set_way(WayId(2), relay(R, 1 << 56, 22)), Err(WayError::BadChannel(1 << 56)));
    assert_eq!(ways.set_forward(1 << 56, forward(R, S, 1)), Err(WayError::BadChannel(1 << 56)));
    assert_eq!(ways.set_forward(1, forward(R, S, 1 << 56)), Err(WayError::BadChannel(1 << 56)));
    assert!(matches!(ways.owner(Channel::new(21).unwrap()), Some(Owner::Way { way: WayId(2), .. })));
    assert!(ways.forward(1).is_none());
}

#[test]
fn relays_are_not_nested_but_a_carrier_may_lead_to_one() {
    let mut ways = Ways::default();
    let (carried, relayed) = (WayId(1).address().to_string(), WayId(2).address().to_string());
    assert_eq!(ways.set_way(WayId(2), relay(&carried, 1, 2)), Err(WayError::Nested(WayId(1).address())));
    ways.set_way(WayId(1), Way::Carried(Arc::new(Nowhere))).unwrap();
    ways.set_way(WayId(2), relay(&carried, 1, 2)).unwrap();
    assert_eq!(ways.set_way(WayId(3), relay(&relayed, 3, 4)), Err(WayError::Nested(WayId(2).address())));
    assert_eq!(ways.set_forward(5, forward(&relayed, S, 1)), Err(WayError::Nested(WayId(2).address())));
    assert_eq!(ways.set_forward(5, forward(S, &relayed, 1)), Err(WayError::Nested(WayId(2).address())));
    ways.set_forward(5, forward(S, &carried, 1)).unwrap();
    let exit = ways.exit(WayId(2).address()).unwrap();
    assert!(exit.channel.is_some() && matches!(exit.by, By::Carrier(_)));
    ways.remove_way(WayId(1));
    assert!(ways.exit(WayId(2).address()).is_none(), "its carrier is gone");
    ways.set_way(WayId(1), relay(R, 7, 8)).unwrap();
    assert!(ways.exit(WayId(2).address()).is_none(), "what was a carrier leads through a relay now");
}

#[test]
fn an_exit_says_what_stands_in_front_and_where_it_goes() {
    let mut ways = Ways::default();
    ways.set_way(WayId(1), relay("[::ffff:192.0.2.1]:7", 10, 20)).unwrap();
    let exit = ways.exit(WayId(1).address()).unwrap();
    assert!(matches!(exit.by, By::Udp(to) if to == R.parse().unwrap()), "in the form the sockets report");
    assert_eq!((exit.channel, exit.lead()), (Channel::new(10), RELAY_LEN));
    let plain = ways.exit(S.parse().unwrap()).unwrap();
    assert!(matches!(plain.by, By::Udp(to) if to == S.parse().unwrap()));
    assert_eq!((plain.channel, plain.lead()), (None, 0));
    assert!(ways.exit(WayId(2).address()).is_none());
}

#[test]
fn ways_forwards_and_ends_are_bounded() {
    let mut ways = Ways::default();
    for id in 0..MAX_WAYS as u64 {
        ways.set_way(WayId(id), Way::Carried(Arc::new(Nowhere))).unwrap();
    }
    assert_eq!(ways.set_way(WayId(u64::MAX), relay(R, 1, 2)), Err(WayError::TooMany));
    ways.set_way(WayId(0), relay(R, 1, 2)).unwrap();
    let one = forward(R, S, 1);
    for channel in 0..MAX_FORWARDS as u64 {
        ways.set_forward(1000 + channel, one.clone()).unwrap();
    }
    assert_eq!(ways.set_forward(1, one.clone()), Err(WayError::TooMany));
    ways.set_forward(1000, one).unwrap();
    assert_eq!(ways.ends.len(), 2);
    assert!(ways.remove_forward(1001));
    ways.set_forward(1, forward(R, S, 1)).unwrap();
    for port in 1..100 {
        ways.set_forward(1000, forward(&format!("192.0.2.3:{port}"), S, 1)).unwrap();
    }
    assert!(ways.ends.len() <= 4, "ends that roamed away are forgotten");
}

#[test]
fn a_forward_set_again_keeps_its_counters() {
    let mut ways = Ways::default();
    ways.set_forward(1, forward(R, S, 1)).unwrap();
    let start = std::time::Instant::now();
    ways.forward(1).unwrap().add(crate::stats::Run { bytes: 10, packets: 1, data: true }, start, start);
    ways.set_forward(1, forward("192.0.2.9:9", S, 2)).unwrap();
    let stats = ways.forward(1).unwrap().stats(start);
    assert_eq!((stats.packets, stats.bytes, stats.dropped, stats.last), (1, 10, 0, Some(start)));
    assert_eq!(ways.forward(1).unwrap().from, "192.0.2.9:9".parse().unwrap());
}

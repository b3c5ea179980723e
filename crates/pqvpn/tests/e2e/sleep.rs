// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that sleep between real daemons: packets need none, and a peer that lost its keys meanwhile is noticed.

use std::time::{Duration, Instant};

use crate::{
    rig::{Node, Outer, Pair, ms_since, poll, usable},
    traffic::echo_sizes,
};

/// Links sleep after a second.
const SLEEPY: &str = "[crypto]\nrekey_seconds = 6\n";
/// A peer that was started again is back after this: sooner than by its silence, which takes eight probes.
const NOTICED: Duration = Duration::from_millis(2500);

fn is_asleep(node: &Node, peer: &Node) -> bool {
    node.peer(peer).session.is_some_and(|session| session.link_asleep)
}

fn asleep() -> Pair {
    let mut pair = Pair::new(Outer::V4);
    let lines = [
        pair.b.as_peer(Some(Outer::V4.endpoint(&pair.host_b))),
        pair.a.as_peer(Some(Outer::V4.endpoint(&pair.host_a))),
    ];
    pair.a.configure(&lines[..1], SLEEPY);
    pair.b.configure(&lines[1..], SLEEPY);
    pair.a.start_up();
    pair.b.start_up();
    pair.a.meet(&pair.b);
    until_asleep(&pair);
    pair
}

fn until_asleep(pair: &Pair) {
    for (node, peer) in pair.both() {
        node.wait("a sleeping link", || is_asleep(node, peer).then_some(()));
    }
}

#[test]
fn packets_pass_at_once_while_the_link_sleeps() {
    if !usable() {
        return;
    }
    let pair = asleep();
    let (a, b) = (&pair.a, &pair.b);
    let before = a.peer(b).counts.sessions;
    echo_sizes(&a.namespace, &b.namespace, b.v6.into(), &[100, 1000]);
    assert!(a.peer(b).counts.sessions <= before + 1);
    a.meet(b);
}

#[test]
fn a_peer_that_was_killed_while_the_link_sleeps_is_noticed_when_it_is_back() {
    if !usable() {
        return;
    }
    let mut pair = asleep();
    pair.b.crash();
    pair.b.start_up();
    let start = Instant::now();
    let took = poll("an answer of the peer that was killed", || pair.a.ping(&pair.b).ok().map(|_| start.elapsed()));
    eprintln!("FIGURE back_after_kill_asleep_ms={:.0}", ms_since(start));
    assert!(took < NOTICED, "{took:?}");
    // The other way round: the one that was killed is asked for nothing, and speaks first.
    until_asleep(&pair);
    pair.a.crash();
    pair.a.start_up();
    let start = Instant::now();
    let took = poll("an answer to the peer that was killed", || pair.a.ping(&pair.b).ok().map(|_| start.elapsed()));
    assert!(took < NOTICED, "{took:?}");
}

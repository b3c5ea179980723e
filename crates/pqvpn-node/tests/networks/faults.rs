// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks when something goes wrong: nodes away, halves apart, one identity twice, several admins at once.

use std::time::{Duration, Instant};

use pqvpn_crypto::identity::IdentitySeed;
use pqvpn_node::{
    handle::PeerRef,
    membership::{InviteOptions, InviteState, NetworkError, NetworkState},
};

use crate::nodes::{ANY, Plan, TestNode, eventually, until_equal};

fn many(uses: u32) -> InviteOptions {
    InviteOptions { uses, ..InviteOptions::default() }
}

/// A network of nodes of these names; the first founded it, the first `admins` may sign.
async fn network(names: &[&str], admins: usize) -> Vec<TestNode> {
    let mut nodes = vec![TestNode::new(names[0]).await];
    nodes[0].create("home").await;
    let code = nodes[0].invite(many(20)).await;
    for name in &names[1..] {
        let node = TestNode::new(name).await;
        node.join(&code).await.unwrap();
        nodes.push(node);
    }
    for name in &names[1..admins] {
        eventually("its key is known", || async {
            nodes[0].members().await.iter().any(|member| member.name == *name && member.seen_ms.is_some())
        })
        .await;
        nodes[0].handle.admin_add(ANY, PeerRef((*name).to_owned())).await.unwrap();
    }
    until_equal(&nodes.iter().collect::<Vec<_>>()).await;
    nodes
}

#[tokio::test]
async fn who_was_away_learns_of_a_revocation_before_anything_else() {
    let mut nodes = network(&["alice", "bob", "carol"], 1).await;
    let carol = nodes.pop().unwrap().stop().await;
    let bob = nodes.pop().unwrap();
    let alice = nodes.pop().unwrap();
    alice.revoke(&bob).await.unwrap();
    let bob = bob.stop().await;
    let carol = carol.start().await;
    // The revoked one knocks as soon as it can; carol's sessions wait for a word of another member.
    let bob = bob.start().await;
    carol.until("told", |report| report.members == 2).await;
    assert!(carol.handle.ping(PeerRef(bob.id.to_string()), Duration::from_millis(300)).await.is_err());
    bob.until("told", |report| report.state == NetworkState::Revoked).await;
}

#[tokio::test]
async fn who_was_revoked_learns_it_with_the_proof_from_a_member_that_may_not_sign() {
    let mut nodes = network(&["alice", "bob", "carol"], 1).await;
    let (carol, bob, alice) = (nodes.pop().unwrap(), nodes.pop().unwrap(), nodes.pop().unwrap());
    eventually("bob knows where the others are", || async {
        bob.members().await.iter().all(|member| member.own || member.seen_ms.is_some())
    })
    .await;
    let bob = bob.stop().await;
    alice.handle.revoke(ANY, PeerRef("bob".to_owned()), "lost".to_owned()).await.unwrap();
    carol.until("told", |report| report.members == 2).await;
    let head = alice.network().await.head;
    alice.stop().await;
    let bob = bob.start().await;
    let report = bob.until("told", |report| report.state == NetworkState::Revoked).await;
    assert_eq!(report.head, head, "it holds the statement itself, not somebody's word");
    assert!(report.health.iter().any(|item| item.text.contains("lost")), "{:?}", report.health);
    bob.until("left alone", |report| report.gossip.links == 0).await;
}

#[tokio::test]
async fn who_is_revoked_while_it_talks_to_others_hears_so_at_once() {
    let mut nodes = network(&["alice", "bob", "carol"], 1).await;
    let (carol, bob, alice) = (nodes.pop().unwrap(), nodes.pop().unwrap(), nodes.pop().unwrap());
    carol.ping(&bob).await.unwrap();
    let start = Instant::now();
    alice.revoke(&bob).await.unwrap();
    bob.until("told", |report| report.state == NetworkState::Revoked).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    carol.until("parted", |report| report.members == 2 && report.online == 2).await;
}

#[tokio::test]
async fn who_is_cut_off_is_soon_not_online() {
    let mut nodes = network(&["alice", "bob", "carol"], 1).await;
    let (carol, bob, alice) = (nodes.pop().unwrap(), nodes.pop().unwrap(), nodes.pop().unwrap());
    for node in [&alice, &bob, &carol] {
        node.until("all there", |report| report.online == 3).await;
    }
    let start = Instant::now();
    carol.stop().await;
    for node in [&alice, &bob] {
        node.until("one gone", |report| (report.members, report.online) == (3, 2)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn halves_that_went_on_apart_become_equal_again_and_nobody_revoked_is_back() {
    let mut nodes = network(&["alice", "bob", "carol", "dave"], 2).await;
    // Apart: alice is away with carol, then bob with dave; each half decides something.
    let (dave, carol) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let (bob, alice) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let (bob, dave) = (bob.stop().await, dave.stop().await);
    alice.revoke(&carol).await.unwrap();
    let code_of_alice = alice.invite(many(1)).await;
    let alice = alice.stop().await;
    let carol = carol.stop().await;
    let (bob, dave) = (bob.start().await, dave.start().await);
    let code_of_bob = bob.invite(many(1)).await;
    let erin = TestNode::new("erin").await;
    erin.join(&code_of_bob).await.unwrap();
    until_equal(&[&bob, &dave, &erin]).await;
    assert_eq!(erin.network().await.members, 5, "carol is a member in this half");
    let start = Instant::now();
    let alice = alice.start().await;
    until_equal(&[&alice, &bob, &dave, &erin]).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for node in [&alice, &bob, &dave, &erin] {
        let names: Vec<String> = node.members().await.into_iter().map(|member| member.name).collect();
        assert!(!names.contains(&"carol".to_owned()) && names.len() == 4, "{names:?}");
    }
    let frank = TestNode::new("frank").await;
    frank.join(&code_of_alice).await.unwrap();
    let carol = carol.start().await;
    carol.until("told", |report| report.state == NetworkState::Revoked).await;
}

#[tokio::test]
async fn of_two_admins_that_let_in_by_one_use_at_once_only_one_has() {
    let nodes = network(&["alice", "bob"], 2).await;
    let code = nodes[0].invite(many(1)).await;
    let mut at_bob: pqvpn_wire::network::Code = code.parse().unwrap();
    at_bob.doors.retain(|door| door.peer == nodes[1].id);
    if at_bob.doors.is_empty() {
        let addresses = vec![nodes[1].plan.config.node.listen[0]];
        at_bob.doors = vec![pqvpn_wire::network::Door { peer: nodes[1].id, addresses }];
    }
    let mut at_alice: pqvpn_wire::network::Code = code.parse().unwrap();
    at_alice.doors.retain(|door| door.peer == nodes[0].id);
    eventually("the invite is known", || async { nodes[1].handle.invite_list(ANY).await.unwrap().len() == 2 }).await;
    let (carol, dave) = (TestNode::new("carol").await, TestNode::new("dave").await);
    let (at_alice, at_bob) = (at_alice.to_string(), at_bob.to_string());
    let (one, other) = tokio::join!(carol.join(&at_alice), dave.join(&at_bob));
    let used_up = NetworkError::InviteUsedUp { network: "home".to_owned() };
    match (&one, &other) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => assert_eq!(*error, used_up),
        both => panic!("one use, one member: {both:?}"),
    }
    until_equal(&[&nodes[0], &nodes[1]]).await;
    assert_eq!(nodes[0].network().await.members, 3);
    let invites = nodes[0].handle.invite_list(ANY).await.unwrap();
    assert!(invites.iter().any(|invite| invite.max_uses == 1 && invite.state == InviteState::UsedUp));
}

#[tokio::test]
async fn two_daemons_with_one_identity_are_told_so() {
    let nodes = network(&["alice", "bob"], 1).await;
    let (alice, bob) = (&nodes[0], &nodes[1]);
    let mut twin = Plan::new("bob");
    twin.seed = IdentitySeed::from_bytes(bob.plan.seed.expose());
    // A copied state directory, as of a restored backup.
    let file = "networks.redb";
    std::fs::copy(bob.plan.state.path().join(file), twin.state.path().join(file)).unwrap();
    let twin = twin.start().await;
    twin.until("in sync", |report| report.gossip.synced.is_some()).await;
    eventually("told", || async { bob.has_health("identity-twice").await || twin.has_health("identity-twice").await })
        .await;
    assert_eq!(alice.network().await.members, 2, "nobody is thrown out for it");
    let before = TestNode::counter(&alice.network().await, "record-old");
    until_equal(&[alice, bob]).await;
    assert!(TestNode::counter(&alice.network().await, "record-old") <= before + 4, "nobody fights");
}

#[tokio::test]
async fn a_revocation_reaches_everybody_in_seconds_over_few_links() {
    let names: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = network(&names, 1).await;
    let all: Vec<&TestNode> = nodes.iter().collect();
    let start = Instant::now();
    nodes[0].revoke(&nodes[11]).await.unwrap();
    until_equal(&all[..11]).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for node in &all[..11] {
        let report = node.network().await;
        assert_eq!(report.members, 11);
        assert!(report.gossip.links <= 2 * 4 + 2, "{} links", report.gossip.links);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks end to end in one process: made, joined, kept over restarts, left, revoked. No DHT, no LAN.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::time::Duration;

use pqvpn_node::{
    handle::PeerRef,
    membership::{CreateNetwork, InviteOptions, InviteState, NetRef, NetworkError, NetworkState},
};

#[path = "networks/faults.rs"]
mod faults;
#[path = "networks/nodes.rs"]
mod nodes;
#[path = "networks/rotation.rs"]
mod rotation;
#[path = "networks/strangers.rs"]
mod strangers;

use nodes::{ANY, TestNode, eventually, network_error, until_equal};

fn many(uses: u32) -> InviteOptions {
    InviteOptions { uses, ..InviteOptions::default() }
}

#[tokio::test]
async fn one_makes_a_network_another_joins_by_its_code_and_both_keep_it() {
    let (alice, bob) = (TestNode::new("alice").await, TestNode::new("bob").await);
    let made = alice.create("home").await;
    assert_eq!((made.state, made.members, made.admin), (NetworkState::Up, 1, true));
    assert!(made.disable_secret.is_some());
    let code = alice.invite(InviteOptions::default()).await;
    let joined = bob.join(&code).await.unwrap();
    assert_eq!((joined.id, joined.network.as_str(), joined.name.as_str()), (made.id, "home", "bob"));
    assert_eq!((joined.members, joined.addresses.len(), joined.waiting_for_approval), (2, 2, false));
    let names = |members: Vec<pqvpn_node::membership::MemberReport>| {
        members.into_iter().map(|member| (member.name, member.own, member.admin)).collect::<Vec<_>>()
    };
    let expected = [("bob".to_owned(), true, false), ("alice".to_owned(), false, true)];
    assert_eq!(names(bob.members().await), expected);
    until_equal(&[&alice, &bob]).await;
    bob.ping(&alice).await.unwrap();
    alice.handle.ping(PeerRef("bob".to_owned()), nodes::PATIENCE).await.unwrap();

    // After a restart of both they find each other where they met last.
    let (alice, bob) = (alice.stop().await, bob.stop().await);
    let (alice, bob) = (alice.start().await, bob.start().await);
    assert_eq!(alice.network().await.id, made.id);
    assert!(alice.network().await.disable_secret.is_none(), "shown once");
    bob.until("synced", |report| report.gossip.synced.is_some() && report.state == NetworkState::Up).await;
    until_equal(&[&alice, &bob]).await;
    alice.ping(&bob).await.unwrap();
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn many_join_by_one_code_through_any_member_and_all_know_all() {
    let alice = TestNode::new("alice").await;
    alice.create("home").await;
    let code = alice.invite(many(5)).await;
    let mut others = Vec::new();
    for name in ["bob", "carol", "dave", "erin", "frank"] {
        let node = TestNode::new(name).await;
        node.join(&code).await.unwrap();
        others.push(node);
    }
    let nodes: Vec<&TestNode> = std::iter::once(&alice).chain(&others).collect();
    until_equal(&nodes).await;
    eventually("six members everywhere", || async {
        for node in &nodes {
            if node.network().await.members != 6 {
                return false;
            }
        }
        true
    })
    .await;
    let seventh = TestNode::new("grace").await;
    assert_eq!(seventh.join(&code).await, Err(NetworkError::InviteUsedUp { network: "home".to_owned() }), "five uses");
    let report = alice.handle.invite_list(ANY).await.unwrap().remove(0);
    assert_eq!((report.uses, report.state), (5, InviteState::UsedUp));
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_everywhere_and_stays_out() {
    let (alice, bob, carol) = (TestNode::new("alice").await, TestNode::new("bob").await, TestNode::new("carol").await);
    alice.create("home").await;
    let code = alice.invite(many(3)).await;
    bob.join(&code).await.unwrap();
    carol.join(&code).await.unwrap();
    until_equal(&[&alice, &bob, &carol]).await;
    carol.ping(&bob).await.unwrap();
    let hidden = alice.handle.revoke(ANY, PeerRef("bob".to_owned()), "lost\u{202e}".to_owned()).await;
    assert!(matches!(hidden.map_err(network_error), Err(NetworkError::BadOption(_))), "a reason is plain text");
    let report = alice.handle.revoke(ANY, PeerRef("bob".to_owned()), "lost".to_owned()).await.unwrap();
    assert_eq!((report.name.as_str(), report.was_admin), ("bob", false));
    carol.until("told", |report| report.members == 2).await;
    bob.until("told", |report| report.state == NetworkState::Revoked).await;
    assert!(bob.has_health("network-revoked").await);
    assert!(carol.handle.ping(PeerRef("bob".to_owned()), Duration::from_millis(500)).await.is_err());
    assert_eq!(bob.join(&code).await, Err(NetworkError::Revoked { network: "home".to_owned() }));
    assert_eq!(
        carol.revoke(&alice).await,
        Err(NetworkError::NotAdmin { network: "home".to_owned(), admins: "alice".to_owned() })
    );
}

#[tokio::test]
async fn a_member_that_is_no_admin_names_one() {
    let (alice, bob, carol) = (TestNode::new("alice").await, TestNode::new("bob").await, TestNode::new("carol").await);
    alice.create("home").await;
    let code = alice.invite(many(3)).await;
    bob.join(&code).await.unwrap();
    until_equal(&[&alice, &bob]).await;
    // The same code, with the door of a member that may not sign.
    let mut through: pqvpn_wire::network::Code = code.parse().unwrap();
    through.doors[0].peer = bob.id;
    through.doors[0].addresses = vec![bob.plan.config.node.listen[0]];
    let invited = |report: Vec<pqvpn_node::membership::InviteReport>| report.len() == 1;
    eventually("the invite is known", || async { invited(bob.handle.invite_list(ANY).await.unwrap()) }).await;
    let joined = carol.join(&through.to_string()).await.unwrap();
    assert_eq!(joined.members, 3);
}

#[tokio::test]
async fn joins_wait_for_an_admin_who_says_yes_or_no() {
    let (alice, bob, carol) = (TestNode::new("alice").await, TestNode::new("bob").await, TestNode::new("carol").await);
    alice.create_with(CreateNetwork { name: "club".to_owned(), approval: true, ..CreateNetwork::default() }).await;
    let code = alice.invite(many(3)).await;
    let waiting = bob.join(&code).await.unwrap();
    assert!(waiting.waiting_for_approval && waiting.members == 0);
    assert_eq!(bob.network().await.state, NetworkState::Waiting);
    let requests = alice.handle.join_requests(ANY).await.unwrap();
    assert_eq!(requests.iter().map(|request| request.name.as_str()).collect::<Vec<_>>(), ["bob"]);

    // A restart forgets neither the wish nor the request.
    let (bob, alice) = (bob.stop().await, alice.stop().await);
    let alice = alice.start().await;
    let bob = bob.start().await;
    alice.handle.approve(ANY, PeerRef("bob".to_owned())).await.unwrap();
    bob.until("let in", |report| report.state == NetworkState::Up && report.members == 2).await;

    assert!(carol.join(&code).await.unwrap().waiting_for_approval);
    alice.handle.deny(ANY, PeerRef("carol".to_owned())).await.unwrap();
    eventually("turned away", || async { carol.handle.net_list().await.unwrap().is_empty() }).await;
    assert_eq!(carol.join(&code).await.err(), Some(NetworkError::Denied { network: "club".to_owned() }));

    // With a new code it asks anew, and so does whoever begins again while it waits: neither has to wait for an answer.
    let again = alice.invite(many(3)).await;
    for code in [&again, &again, &alice.invite(many(3)).await] {
        assert!(carol.join(code).await.unwrap().waiting_for_approval);
        eventually("held", || async { alice.handle.join_requests(ANY).await.unwrap().len() == 1 }).await;
    }
    alice.handle.approve(ANY, PeerRef("carol".to_owned())).await.unwrap();
    carol.until("let in", |report| report.state == NetworkState::Up && report.members == 3).await;

    // Whoever is invited with an admin's word already does not wait.
    let code = alice.invite(InviteOptions { preapproved: true, ..InviteOptions::default() }).await;
    let dave = TestNode::new("dave").await;
    assert_eq!(dave.join(&code).await.unwrap().members, 4);
}

#[tokio::test]
async fn bad_codes_and_names_get_one_clear_error_each_and_leave_nothing() {
    let (alice, bob) = (TestNode::new("alice").await, TestNode::new("bob").await);
    alice.create("home").await;
    let code = alice.invite(many(2)).await;
    assert_eq!(bob.join("hello").await, Err(NetworkError::NotACode));
    let last = code.chars().last().unwrap();
    let wrong = if last == 'a' { 'b' } else { 'a' };
    let mistyped = format!("{}{wrong}", &code[..code.len() - 1]);
    assert!(matches!(bob.join(&mistyped).await, Err(NetworkError::CodeChecksum { .. })));
    assert!(matches!(bob.join_as(&code, Some("No Name")).await, Err(NetworkError::BadName(_))));
    assert_eq!(
        bob.join_as(&code, Some("alice")).await,
        Err(NetworkError::NameTaken {
            network: "home".to_owned(),
            name: "alice".to_owned(),
            suggestion: "alice-2".to_owned()
        })
    );
    let serial = alice.handle.invite_list(ANY).await.unwrap().remove(0).serial;
    alice.handle.invite_cancel(ANY, serial[..8].to_owned()).await.unwrap();
    assert_eq!(bob.join(&code).await, Err(NetworkError::InviteCancelled { network: "home".to_owned() }));
    let short = alice.invite(InviteOptions { expires: Duration::from_millis(1), ..InviteOptions::default() }).await;
    assert!(matches!(bob.join(&short).await, Err(NetworkError::InviteExpired { .. })));
    assert!(bob.handle.net_list().await.unwrap().is_empty(), "nothing is left behind");
    assert_eq!(alice.network().await.members, 1);
    assert_eq!(bob.handle.members(ANY).await.map_err(network_error).err(), Some(NetworkError::NoNetwork));
    let missing = NetRef(Some("elsewhere".to_owned()));
    let error = alice.handle.members(missing).await.map_err(network_error).err();
    assert_eq!(error, Some(NetworkError::UnknownNetwork("elsewhere".to_owned())));
    let again = CreateNetwork { name: "home".to_owned(), ..CreateNetwork::default() };
    let error = alice.handle.net_create(again).await.map_err(network_error).err();
    assert_eq!(error, Some(NetworkError::NetworkNameTaken("home".to_owned())));
    let code = alice.invite(many(1)).await;
    bob.join(&code).await.unwrap();
    assert!(matches!(bob.join(&code).await, Err(NetworkError::AlreadyMember(..))));
    let error = alice.handle.net_leave(ANY).await.map_err(network_error).err();
    assert_eq!(error, Some(NetworkError::LastAdmin { network: "home".to_owned() }));
    bob.handle.net_leave(ANY).await.unwrap();
    alice.until("told", |report| report.members == 1).await;
    alice.handle.net_leave(ANY).await.unwrap();
    assert!(alice.handle.net_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_ephemeral_node_that_stops_is_gone_and_its_name_is_free() {
    let (alice, bob) = (TestNode::new("alice").await, TestNode::new("job").await);
    alice.create("ci").await;
    let options = InviteOptions { ephemeral: Some(Duration::from_secs(60)), uses: 2, ..InviteOptions::default() };
    let code = alice.invite(options).await;
    assert_eq!(bob.join(&code).await.unwrap().name, "job");
    until_equal(&[&alice, &bob]).await;
    bob.stop().await;
    alice.until("gone", |report| report.members == 1).await;
    let next = TestNode::new("job").await;
    assert_eq!(next.join(&code).await.unwrap().name, "job");
}

#[tokio::test]
async fn what_concerns_admins_needs_as_many_signatures_as_the_network_says() {
    let (alice, bob, carol) = (TestNode::new("alice").await, TestNode::new("bob").await, TestNode::new("carol").await);
    alice.create_with(CreateNetwork { name: "board".to_owned(), quorum: 2, ..CreateNetwork::default() }).await;
    let code = alice.invite(many(2)).await;
    bob.join(&code).await.unwrap();
    carol.join(&code).await.unwrap();
    until_equal(&[&alice, &bob, &carol]).await;
    eventually("bob's key is known", || async {
        alice.members().await.iter().any(|member| member.name == "bob" && member.seen_ms.is_some())
    })
    .await;
    let added = alice.handle.admin_add(ANY, PeerRef("bob".to_owned())).await.unwrap();
    assert!(added.in_force, "one admin is all there are: {added:?}");
    eventually("carol's key is known", || async {
        alice.members().await.iter().any(|member| member.name == "carol" && member.seen_ms.is_some())
    })
    .await;
    let proposed = alice.handle.admin_add(ANY, PeerRef("carol".to_owned())).await.unwrap();
    assert_eq!((proposed.in_force, proposed.have, proposed.need), (false, 1, 2));
    eventually("bob knows of it", || async { bob.handle.lock_status(ANY).await.unwrap().proposals.len() == 1 }).await;
    let signed = bob.handle.lock_sign(ANY, proposed.id[..12].to_owned()).await.unwrap();
    assert!(signed.in_force, "{signed:?}");
    eventually("three admins", || async { carol.handle.lock_status(ANY).await.unwrap().admins.len() == 3 }).await;
    until_equal(&[&alice, &bob, &carol]).await;
    let log = carol.handle.lock_log(ANY, 100).await.unwrap();
    assert_eq!(log.last().map(|entry| entry.act), Some("genesis"));
}

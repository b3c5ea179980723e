// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node goes on with another key: who is there learns it, who was away learns it, and the key before stays out.

use std::{fs, path::Path, sync::Arc, time::Duration};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    peer_id::PeerId,
};
use pqvpn_node::{
    handle::{PeerRef, RotateKeys, RotationReport},
    membership::{InviteOptions, NetRef, NetworkState},
};

use pqvpn_wire::network::{Act, NetResponse, NetworkId, Statement, StatementBody, StatementId};

use crate::{
    nodes::{PATIENCE, Plan, TestNode, eventually, free_port, until_equal},
    strangers::introduce,
};

impl TestNode {
    async fn kept(name: &str) -> Self {
        Plan::new(name).start_kept().await
    }

    async fn rotate(&mut self) -> RotationReport {
        let report = self.handle.rotate_keys(RotateKeys::default()).await.unwrap();
        assert_eq!((report.old, report.new != report.old), (self.id, true));
        self.id = report.new;
        report
    }

    async fn ping_name(&self, name: &str) {
        self.handle.ping(PeerRef(name.to_owned()), PATIENCE).await.unwrap();
    }

    /// Pings until there is an answer: the first may go to the key that is known so far.
    async fn meets(&self, name: &str) {
        let ping = || async { self.handle.ping(PeerRef(name.to_owned()), PATIENCE).await.is_ok() };
        eventually(name, ping).await;
    }

    async fn id_of(&self, name: &str) -> Option<PeerId> {
        self.members().await.into_iter().find(|member| member.name == name).map(|member| member.peer)
    }
}

fn uses(uses: u32) -> InviteOptions {
    InviteOptions { uses, ..InviteOptions::default() }
}

/// A network of two; both can rotate their keys.
async fn alice_and_bob() -> (TestNode, TestNode) {
    let (alice, bob) = (TestNode::kept("alice").await, TestNode::kept("bob").await);
    alice.create("home").await;
    bob.join(&alice.invite(InviteOptions::default()).await).await.unwrap();
    until_equal(&[&alice, &bob]).await;
    (alice, bob)
}

/// Copies the files of a stopped or running node, as a backup would.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_node_with_another_key_is_the_same_member_and_its_backup_is_nobody() {
    let (alice, carol) = (TestNode::new("alice").await, TestNode::new("carol").await);
    let bob = TestNode::kept("bob").await;
    alice.create("home").await;
    let code = alice.invite(uses(3)).await;
    bob.join(&code).await.unwrap();
    carol.join(&code).await.unwrap();
    until_equal(&[&alice, &bob, &carol]).await;
    carol.ping_name("bob").await;
    // Whoever copied the disk before has the old key and the old state.
    let mut stolen = Plan::new("bob");
    let plan = bob.stop().await;
    copy(plan.state.path(), stolen.state.path());
    stolen.seed = plan.keystore().load(None).unwrap();
    let mut bob = plan.start_kept().await;
    // What it holds is what the others hold as soon as it has read its disk.
    bob.until("linked", |report| report.gossip.links > 0 && report.gossip.synced.is_some()).await;

    let report = bob.rotate().await;
    assert_eq!(report.networks.len(), 1);
    let told = &report.networks[0];
    assert_eq!((told.network.as_str(), told.name.as_str(), told.others, told.admin), ("home", "bob", 2, false));
    assert!(told.told >= 1, "whoever it has a link with");
    for node in [&alice, &carol] {
        node.meets("bob").await;
        assert_eq!(node.id_of("bob").await, Some(bob.id));
        assert_eq!(node.network().await.members, 3);
    }
    bob.ping_name("carol").await;
    until_equal(&[&alice, &bob, &carol]).await;

    let old = stolen.start().await;
    old.until("turned away", |report| report.state == NetworkState::Revoked).await;
    let to_alice = old.handle.ping(PeerRef("alice".to_owned()), Duration::from_secs(2)).await;
    assert!(to_alice.is_err(), "{to_alice:?}");
    assert_eq!(alice.network().await.members, 3);
    carol.ping_name("bob").await;

    // The same node after a restart of its own.
    let bob = bob.stop().await.start_kept().await;
    assert_eq!(alice.id_of("bob").await, Some(bob.id));
    bob.ping_name("alice").await;
}

#[tokio::test]
async fn an_admin_stays_one_and_a_member_that_was_away_meets_it_under_its_new_key() {
    let (mut alice, bob) = alice_and_bob().await;
    let bob = bob.stop().await;
    let report = alice.rotate().await;
    let told = &report.networks[0];
    assert_eq!((told.told, told.others, told.admin, told.invites), (0, 1, true, 1));
    // Twice, so that the way from the key that is known has two steps.
    alice.rotate().await;
    let bob = bob.start().await;
    bob.meets("alice").await;
    assert_eq!(bob.id_of("alice").await, Some(alice.id));
    until_equal(&[&alice, &bob]).await;
    // It signs with the new key, and who joins by its code is a member everywhere.
    let carol = TestNode::new("carol").await;
    let code = alice.invite(InviteOptions::default()).await;
    carol.join(&code).await.unwrap();
    bob.ping_name("carol").await;
}

#[tokio::test]
async fn a_member_that_only_it_can_dial_asks_who_is_in_the_others_place() {
    let (mut alice, bob) = alice_and_bob().await;
    let mut bob = bob.stop().await;
    alice.rotate().await;
    // Where it is now alice does not know: nobody but bob can begin.
    bob.config.node.listen = vec![free_port()];
    let bob = bob.start().await;
    bob.meets("alice").await;
    assert_eq!(bob.id_of("alice").await, Some(alice.id));
    eventually("equal", || async { alice.network().await.head == bob.network().await.head }).await;
}

#[tokio::test]
async fn a_revoked_node_comes_back_under_another_key_and_a_new_code_and_not_without() {
    let (alice, mut bob) = alice_and_bob().await;
    alice.handle.revoke(NetRef(None), PeerRef(bob.id.to_string()), String::new()).await.unwrap();
    bob.until("told", |report| report.state == NetworkState::Revoked).await;
    let code = alice.invite(InviteOptions::default()).await;
    let refused = bob.join(&code).await.unwrap_err();
    assert!(refused.to_string().contains("only under another key"), "{refused}");
    // What the daemon says helps.
    assert_eq!(bob.rotate().await.networks.len(), 0, "there is nothing to sign over");
    bob.join(&code).await.unwrap();
    bob.meets("alice").await;
    until_equal(&[&alice, &bob]).await;
    assert_eq!((alice.network().await.members, alice.id_of("bob").await), (2, Some(bob.id)));
}

#[tokio::test]
async fn an_introduction_that_proves_nothing_is_not_looked_into() {
    let (alice, bob) = (TestNode::new("alice").await, TestNode::new("bob").await);
    let made = alice.create("home").await;
    bob.join(&alice.invite(InviteOptions::default()).await).await.unwrap();
    until_equal(&[&alice, &bob]).await;
    let identity = |byte: u8| Identity::from_seed(&IdentitySeed::from_bytes(&[byte; 64])).unwrap();
    let bobs = || Identity::from_seed(&bob.plan.seed).unwrap();
    let foreign = NetworkId::from_bytes([7; 32]);
    let rotation = |network, old: &Identity, signer: &Identity, new: &Identity| {
        let act = Act::rotate(&network, old.public().clone(), new).unwrap();
        let parents = vec![StatementId::from_bytes(*network.as_bytes())];
        let mut statement = Statement::draft(StatementBody { network, seq: 1, parents, at_ms: 1, act }).unwrap();
        statement.sign(signer).unwrap();
        Arc::new(statement)
    };
    let home = made.id;
    let lies = [
        ("signed by another than the old key", vec![rotation(home, &bobs(), &identity(1), &identity(1))]),
        ("to another than who shows it", vec![rotation(home, &bobs(), &bobs(), &identity(2))]),
        ("from nobody", vec![rotation(home, &identity(2), &identity(2), &identity(1))]),
        ("in another network", vec![rotation(foreign, &bobs(), &bobs(), &identity(1))]),
        (
            "with a gap",
            vec![
                rotation(home, &bobs(), &bobs(), &identity(2)),
                rotation(home, &identity(3), &identity(3), &identity(1)),
            ],
        ),
    ];
    let count = lies.len() as u64;
    for (what, line) in lies {
        let answer = introduce(identity(1), &alice, &home, line).await;
        assert_eq!(answer, Some(NetResponse::UnknownNetwork), "{what}");
    }
    let report = alice.network().await;
    assert_eq!((TestNode::counter(&report, "introduction-bad"), report.members), (count, 2));
    // What holds is looked into, and still changes nothing that the statements do not say: nobody can be asked here.
    let line = vec![rotation(home, &bobs(), &bobs(), &identity(1))];
    assert_eq!(introduce(identity(1), &alice, &home, line).await, Some(NetResponse::Done));
    assert_eq!((alice.network().await.members, alice.id_of("bob").await), (2, Some(bob.id)));
}

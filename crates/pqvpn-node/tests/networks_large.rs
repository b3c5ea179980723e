// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network of a thousand members: how long a newcomer takes to hold all of it, and what it costs on disk.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{path::Path, time::Instant};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_node::membership::NetworkState;
use pqvpn_packet::addr::ipv4_candidate;
use pqvpn_trust::{CompositeVerifier, Constitution};
use pqvpn_wire::network::{Act, NewMember, Statement};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

#[path = "networks/nodes.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod nodes;

use nodes::{TestNode, until_equal};

const MEMBERS: usize = 1_000;
/// As `membership/store.rs` keeps them.
const STATEMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("statements");

#[tokio::test]
async fn a_newcomer_to_a_thousand_members_soon_holds_all_of_them() {
    let alice = TestNode::new("alice").await;
    alice.create("big").await;
    let plan = alice.stop().await;
    let file = plan.state.path().join("networks.redb");
    add_members(&file, &Identity::from_seed(&plan.seed).unwrap());
    let began = Instant::now();
    let alice = plan.start().await;
    let opened = began.elapsed();
    let on_disk = std::fs::metadata(&file).unwrap().len();
    let report = alice.network().await;
    assert_eq!(report.members, MEMBERS);

    let code = alice.invite(Default::default()).await;
    let bob = TestNode::new("bob").await;
    let began = Instant::now();
    bob.join(&code).await.unwrap();
    let joined = began.elapsed();
    let report = bob.until("whole", |report| report.members == MEMBERS + 1).await;
    until_equal(&[&alice, &bob]).await;
    let whole = began.elapsed();
    assert_eq!(report.state, NetworkState::Up);
    bob.ping(&alice).await.unwrap();
    println_figures(&[
        format!("{MEMBERS} members: opened from disk in {opened:.2?}, file {} kB", on_disk / 1000),
        format!("newcomer: join answered after {joined:.2?}, everything held after {whole:.2?}"),
    ]);
    alice.stop().await;
    bob.stop().await;
}

/// Signs members into the store of a stopped node, each on top of the one before.
fn add_members(file: &Path, admin: &Identity) {
    let database = Database::open(file).unwrap();
    let genesis = {
        let read = database.begin_read().unwrap();
        let table = read.open_table(STATEMENTS).unwrap();
        let (_, bytes) = table.first().unwrap().unwrap();
        Statement::decode(bytes.value()).unwrap()
    };
    let mut constitution = Constitution::found(genesis, &CompositeVerifier, ipv4_candidate).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(STATEMENTS).unwrap();
        for number in 1..MEMBERS {
            let mut peer = [0; 32];
            peer[..8].copy_from_slice(&number.to_be_bytes());
            peer[15] = u8::try_from(number % 251).unwrap();
            let member = NewMember {
                peer: PeerId::from_bytes(peer),
                name: format!("member-{number}"),
                tags: Vec::new(),
                level_cap: 2,
                expires_ms: None,
                ephemeral_s: None,
                invite: None,
            };
            let mut statement = Statement::draft(constitution.draft(1, Act::AddMember(member))).unwrap();
            statement.sign(admin).unwrap();
            let key = [constitution.id().as_bytes().as_slice(), statement.id().as_bytes()].concat();
            table.insert(key.as_slice(), statement.encode().as_slice()).unwrap();
            constitution.insert(statement, &CompositeVerifier).unwrap();
        }
    }
    write.commit().unwrap();
    assert_eq!(constitution.view().members.len(), MEMBERS);
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks with --nocapture")]
fn println_figures(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

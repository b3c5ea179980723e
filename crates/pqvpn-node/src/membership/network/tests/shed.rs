// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members shed, what they still can tell, and who tells the rest.

use super::super::{
    shed::{SHED_AFTER_MS, tellable},
    *,
};
use pqvpn_wire::network::SyncState;

use super::attacks::{NOW, identity, member, network};

const MANY: usize = 900;

/// The founder's node with many members, and that of one of them which heard of everything.
fn founder_and_member() -> (Network, Network) {
    let (founder, own) = (identity(1), identity(2).peer_id());
    let mut admin = network(&founder);
    admin.act(&founder, NOW, member(own, None)).unwrap();
    for number in 0..MANY {
        let mut peer = [9; 32];
        peer[..8].copy_from_slice(&number.to_be_bytes());
        admin.act(&founder, NOW, member(PeerId::from_bytes(peer), None)).unwrap();
    }
    admin.act(&founder, NOW, Act::Checkpoint { seal: [0; 32] }).unwrap();
    let genesis = Statement::clone(&admin.constitution.get(&StatementId::from_bytes(*admin.id.as_bytes())).unwrap());
    let constitution = Constitution::found(genesis, &CompositeVerifier, ipv4_candidate).unwrap();
    let mut other = Network::new(own, constitution, admin.head.clone(), Moment { mono: clock::now(), unix_ms: NOW });
    let statements = admin.constitution.after(&[], usize::MAX).statements;
    other.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    assert_eq!(other.constitution.head(), admin.constitution.head());
    (admin, other)
}

#[test]
fn a_member_sheds_what_is_old_an_admin_nothing_and_both_stay_equal() {
    let (mut admin, mut other) = founder_and_member();
    other.shed(NOW + SHED_AFTER_MS);
    assert_eq!(other.counters.shed, 0, "not old enough");
    let later = NOW + SHED_AFTER_MS + 24 * 3_600_000;
    let before = other.constitution.bytes();
    other.shed(later);
    admin.shed(later);
    assert_eq!((admin.counters.shed, other.counters.shed), (0, MANY as u64 + 1));
    assert!(other.constitution.bytes() * 10 < before, "{before} {}", other.constitution.bytes());
    assert_eq!(other.constitution.head(), admin.constitution.head());
    assert_eq!(other.constitution.view(), admin.constitution.view());
    // Somebody who was away for long is told by the admin alone, a newer one by both.
    let nothing = SyncState { held: Some(Vec::new()), ..SyncState::default() };
    assert!(is_bare(&other.answer(&nothing)) && !is_bare(&admin.answer(&nothing)));
    let tips = admin.constitution.tips();
    admin.act(&identity(1), later, member(identity(3).peer_id(), None)).unwrap();
    let new = admin.answer(&SyncState { tips: tips.clone(), ..SyncState::default() });
    other.absorb(later, None, new);
    let told = other.answer(&SyncState { tips, ..SyncState::default() });
    assert!(!is_bare(&told) && told.statements.len() == 1);
    restart(&other);
}

/// What was written down is the same network after a restart.
fn restart(network: &Network) {
    let mut statements = BTreeMap::new();
    for change in &network.changes {
        if let Change::Statement(_, id, bytes) = change {
            statements.insert(*id, bytes.clone());
        }
    }
    let genesis = network.constitution.get(&StatementId::from_bytes(*network.id.as_bytes())).unwrap();
    statements.insert(*network.id.as_bytes(), genesis.encode());
    let on_disk: usize = statements.values().map(Vec::len).sum();
    assert_eq!(on_disk, network.constitution.bytes(), "the disk holds what memory holds");
    let kept =
        Kept { head: Some(network.head.clone()), statements: statements.into_values().collect(), ..Kept::default() };
    let now = Moment { mono: clock::now(), unix_ms: NOW };
    let again = Network::load(network.own, network.id, kept, now).unwrap();
    assert_eq!(again.constitution.view(), network.constitution.view());
    assert_eq!(again.constitution.head(), network.constitution.head());
}

#[test]
fn who_becomes_an_admin_asks_an_admin_for_what_it_shed() {
    let (mut admin, mut other) = founder_and_member();
    let later = NOW + SHED_AFTER_MS + 24 * 3_600_000;
    other.shed(later);
    let promoted = admin.act(&identity(1), later, Act::AddAdmin { key: identity(2).public().clone() }).unwrap();
    let statements = vec![admin.constitution.get(&promoted).unwrap()];
    other.absorb(later, None, Bundle { statements, ..Bundle::default() });
    let (theirs, now) = (admin.state(), clock::now());
    assert!(!other.lacks(now, &identity(3).peer_id(), &theirs).signers, "of no member that is no admin");
    let mut rounds = 0;
    while other.lacks(now, &admin.own, &theirs).signers {
        let asked = other.pull(Lacks { signers: true, ..Lacks::default() }, 0);
        other.absorb(later, Some(admin.own), admin.answer(&asked));
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(other.constitution.bare(1).is_empty() && rounds > 5);
    assert!(!is_bare(&other.answer(&SyncState { held: Some(Vec::new()), ..SyncState::default() })));
}

#[test]
fn of_a_statement_that_was_shed_only_what_is_here_is_told() {
    let (one, two) = (identity(1), identity(2));
    let network = network(&one);
    let mut statement = Statement::draft(network.constitution.draft(NOW, member(two.peer_id(), None))).unwrap();
    statement.sign(&one).unwrap();
    statement.shed_signatures();
    statement.sign(&two).unwrap();
    assert!(Statement::decode(&statement.encode()).is_err());
    let told = tellable(Arc::new(statement));
    assert_eq!(told.signers().copied().collect::<Vec<_>>(), [two.peer_id()]);
    assert_eq!(Statement::decode(&told.encode()).unwrap(), *told);
}

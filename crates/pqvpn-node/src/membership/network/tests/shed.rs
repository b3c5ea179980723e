// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members shed, what they still can tell, and who tells the rest.

use super::super::{
    shed::{SHED_AFTER_MS, tellable},
    *,
};
use pqvpn_packet::addr::ipv4_candidate;
use pqvpn_trust::CompositeVerifier;
use pqvpn_wire::network::{Act, NetRequest, SyncState};

use super::{
    attacks::{NOW, identity, member, network},
    moment, pull_all,
};

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
    assert!(other.answer(&nothing).is_none() && admin.answer(&nothing).is_some());
    let tips = admin.constitution.tips();
    admin.act(&identity(1), later, member(identity(3).peer_id(), None)).unwrap();
    let new = admin.answer(&SyncState { tips: tips.clone(), ..SyncState::default() }).unwrap();
    other.absorb(later, None, new);
    let told = other.answer(&SyncState { tips, ..SyncState::default() }).unwrap();
    assert!(!told.statements[0].is_bare() && told.statements.len() == 1);
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
        other.absorb(later, Some(admin.own), admin.answer(&asked).unwrap());
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(other.constitution.bare(1).is_empty() && rounds > 5);
    assert!(other.answer(&SyncState { held: Some(Vec::new()), ..SyncState::default() }).is_some());
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

/// A statement of the founder's on everything that a network holds.
fn said(network: &Network, act: Act) -> Arc<Statement> {
    let mut statement = Statement::draft(network.constitution.draft(NOW, act)).unwrap();
    statement.sign(&identity(1)).unwrap();
    Arc::new(statement)
}

#[test]
fn two_members_that_shed_meet_again_without_an_admin() {
    let (admin, mut one) = founder_and_member();
    let genesis = Statement::clone(&admin.constitution.get(&StatementId::from_bytes(*admin.id.as_bytes())).unwrap());
    let constitution = Constitution::found(genesis, &CompositeVerifier, ipv4_candidate).unwrap();
    let mut two = Network::new(PeerId::from_bytes([7; 32]), constitution, admin.head.clone(), moment(NOW));
    let statements = admin.constitution.after(&[], usize::MAX).statements;
    two.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    let later = NOW + SHED_AFTER_MS + 24 * 3_600_000;
    for (network, peer) in [(&mut one, [41; 32]), (&mut two, [42; 32])] {
        network.shed(later);
        assert_eq!(network.counters.shed, MANY as u64 + 1);
        // Cut off, each hears something of its own.
        let heard = said(network, member(PeerId::from_bytes(peer), None));
        assert!(network.absorb(later, None, Bundle { statements: vec![heard], ..Bundle::default() }).news);
    }
    for (by_name, network, other) in [(false, &one, &two), (true, &one, &two)] {
        // However little the asker says of what it holds, nothing comes that it could not believe.
        let state = if by_name { network.pull(Lacks::default(), 0) } else { network.state() };
        let told = other.answer(&SyncState { cursor: Some(0), ..state }).expect("not sent on to an admin");
        assert!(!told.statements.iter().any(|statement| statement.is_bare()));
        assert_eq!(told.statements.len() > 1, !by_name, "by waymarks just what is missing");
    }
    pull_all(&mut one, &two, moment(later));
    pull_all(&mut two, &one, moment(later));
    assert_eq!(one.constitution.head(), two.constitution.head());
    assert_eq!(one.constitution.len(), MANY + 5);
    // Somebody who lacks something that was shed is sent on, also if it asks by name.
    assert!(one.answer(&SyncState { tips: vec![admin.constitution.tips()[0]], ..SyncState::default() }).is_some());
    let bare = one.constitution.bare(1);
    assert!(one.answer(&SyncState { want: bare, ..one.state() }).is_none());
}

#[test]
fn two_that_heard_much_apart_meet_again() {
    let (_, mut one) = founder_and_member();
    let mut two = network(&identity(1));
    for statement in one.constitution.after(&[], usize::MAX).statements {
        let _known = two.author(Statement::clone(&statement));
    }
    for (network, of) in [(&mut one, 41), (&mut two, 42)] {
        for number in 0..100_u8 {
            let mut peer = [of; 32];
            peer[0] = number;
            let heard = said(network, member(PeerId::from_bytes(peer), None));
            network.absorb(NOW, None, Bundle { statements: vec![heard], ..Bundle::default() });
        }
    }
    assert!(pull_all(&mut one, &two, moment(NOW)) < 5 && pull_all(&mut two, &one, moment(NOW)) < 5);
    assert_eq!(one.constitution.head(), two.constitution.head());
}

#[test]
fn nobody_is_shown_what_was_shed() {
    let (mut admin, mut other) = founder_and_member();
    let mut peer = [9; 32];
    peer[..8].copy_from_slice(&5_usize.to_be_bytes());
    let out = PeerId::from_bytes(peer);
    let later = NOW + SHED_AFTER_MS + 24 * 3_600_000;
    let revoked = admin.act(&identity(1), NOW, Act::Revoke { peer: out, reason: String::new() }).unwrap();
    let statements = vec![admin.constitution.get(&revoked).unwrap()];
    other.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    other.shed(later);
    assert!(other.counters.shed > 0);
    for proof in [other.proof_for(&out, &[]).unwrap(), other.farewell(&out).unwrap()] {
        assert!(proof.statements.iter().any(|statement| statement.id() == revoked));
        let push = NetRequest::Push(Box::new(proof));
        let bytes = pqvpn_wire::network::encode_request(&other.id, &push).unwrap();
        assert!(pqvpn_wire::network::decode_request(&bytes).is_ok(), "what was shed cannot be decoded");
    }
}

#[test]
fn the_own_line_is_not_shed_and_what_is_left_of_one_that_was_is_shown() {
    let (mut admin, _) = founder_and_member();
    let (two, three, four) = (identity(2), identity(3), identity(4));
    let mut keys = [&two, &three, &four].into_iter();
    let mut old = keys.next().unwrap();
    for new in keys {
        let act = Act::rotate(&admin.id, old.public().clone(), new).unwrap();
        let mut rotation = Statement::draft(admin.constitution.draft(NOW, act)).unwrap();
        rotation.sign(old).unwrap();
        admin.author(rotation).unwrap();
        old = new;
    }
    admin.act(&identity(1), NOW, Act::Checkpoint { seal: [0; 32] }).unwrap();
    let genesis = Statement::clone(&admin.constitution.get(&StatementId::from_bytes(*admin.id.as_bytes())).unwrap());
    let constitution = Constitution::found(genesis, &CompositeVerifier, ipv4_candidate).unwrap();
    let mut own = Network::new(four.peer_id(), constitution, admin.head.clone(), moment(NOW));
    let statements = admin.constitution.after(&[], usize::MAX).statements;
    own.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    own.shed(NOW + SHED_AFTER_MS + 24 * 3_600_000);
    assert!(own.counters.shed > 0);
    let line = own.own_line();
    assert!(line.len() == 2 && !line.iter().any(|rotation| rotation.is_bare()));
    // One that was shed by an earlier version.
    let kept = [line[1].id()];
    own.constitution.shed(u64::MAX, &kept);
    assert_eq!(own.own_line().iter().map(|rotation| rotation.id()).collect::<Vec<_>>(), kept);
    own.constitution.shed(u64::MAX, &[]);
    assert!(own.own_line().is_empty());
}

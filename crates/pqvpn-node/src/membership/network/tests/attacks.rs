// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members and strangers with bad intentions try.

use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentitySeed, SIGNATURE_LEN},
    proofs::schnorr::JoinContext,
};
use pqvpn_packet::addr::ipv4_candidate;
use pqvpn_trust::CompositeVerifier;
use pqvpn_wire::network::{
    Act, Genesis, Invite, InviteSecret, JoinRequest, MemberDraft, NewMember, Params, StatementBody,
};

use super::super::*;
use crate::membership::NetworkError;

pub(in crate::membership) const NOW: u64 = 1_800_000_000_000;

pub(in crate::membership) fn identity(number: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[number; 64])).unwrap()
}

/// A network of `founder`, as its node holds it.
pub(in crate::membership) fn network(founder: &Identity) -> Network {
    let genesis = Genesis {
        name: "home".into(),
        founder: founder.public().clone(),
        founder_name: "desk".into(),
        secret: [3; 32],
        params: Params::default(),
        disable: None,
    };
    let body = StatementBody {
        network: NetworkId::from_bytes([0; 32]),
        seq: 0,
        parents: Vec::new(),
        at_ms: NOW,
        act: Act::Genesis(Box::new(genesis)),
    };
    let mut statement = Statement::draft(body).unwrap();
    statement.sign(founder).unwrap();
    let constitution = Constitution::found(statement, &CompositeVerifier, ipv4_candidate).unwrap();
    let head = Head { name: "home".into(), enabled: true, seq: 0, waiting: None, since_ms: NOW };
    Network::new(founder.peer_id(), constitution, head, Moment { mono: clock::now(), unix_ms: NOW })
}

pub(in crate::membership) fn member(peer: PeerId, ephemeral_s: Option<u32>) -> Act {
    let name = "x".to_owned();
    Act::AddMember(NewMember {
        peer,
        name,
        tags: Vec::new(),
        level_cap: 2,
        expires_ms: None,
        ephemeral_s,
        invite: None,
    })
}

fn record(of: &Identity, network: NetworkId, seq: u64) -> Arc<MemberRecord> {
    let (issued_ms, endpoints) = (NOW, Vec::new());
    let draft =
        MemberDraft { network, seq, issued_ms, not_after_ms: NOW + 1000, endpoints, head: [0; 32], left: false };
    Arc::new(MemberRecord::sign(draft, of).unwrap())
}

#[test]
fn a_code_of_an_admin_that_was_revoked_opens_nothing() {
    let (founder, former, joiner) = (identity(1), identity(2), identity(3));
    let mut network = network(&founder);
    network.act(&founder, NOW, member(former.peer_id(), None)).unwrap();
    network.act(&founder, NOW, Act::AddAdmin { key: former.public().clone() }).unwrap();
    let secret = InviteSecret::from_bytes([7; 16]);
    let invite = Invite {
        network: network.id,
        serial: secret.serial(),
        point: secret.key().point(),
        issuer: former.peer_id(),
        tags: Vec::new(),
        level_cap: 2,
        not_after_ms: NOW + 3_600_000,
        max_uses: 5,
        ephemeral_s: None,
        member_expires_s: None,
        preapproved: true,
    };
    assert!(network.absorb_invite(NOW, SignedInvite::sign(invite, &former).unwrap()));
    let ask = |network: &Network| {
        let (id, serial) = (network.id, secret.serial());
        let verifier = network.own;
        let context = JoinContext::new(id.as_bytes(), serial.as_bytes(), &verifier, &joiner.peer_id(), &[5; 32]);
        let request =
            JoinRequest::make(&joiner, (serial, &secret.key()), &context, "new".into(), NOW, &[1; 32]).unwrap();
        network.judge_join(JoinFacts { now_ms: NOW, key: joiner.public(), exporter: &[5; 32] }, &request)
    };
    assert!(matches!(ask(&network), Judged::Add(_)));
    network.act(&founder, NOW, Act::Revoke { peer: former.peer_id(), reason: String::new() }).unwrap();
    assert_eq!(ask(&network), Judged::Unknown);
}

#[test]
fn parents_that_nobody_has_are_not_remembered_without_end() {
    let founder = identity(1);
    let mut network = network(&founder);
    for round in 0..64_u8 {
        let junk = (0..16_u8).map(|number| {
            let parents =
                (0..16_u8).map(|at| StatementId::from_bytes([[round, number, at, 1]; 8].concat().try_into().unwrap()));
            let body = StatementBody {
                network: network.id,
                seq: 9,
                parents: parents.collect(),
                at_ms: NOW,
                act: member(PeerId::from_bytes([9; 32]), None),
            };
            let mut statement = Statement::draft(body).unwrap();
            statement.sign(&founder).unwrap();
            Arc::new(statement)
        });
        let bundle = Bundle { statements: junk.collect(), ..Bundle::default() };
        assert!(!network.absorb(NOW, None, bundle).news);
    }
    assert!(network.missing.len() <= MAX_IDS, "{}", network.missing.len());
}

#[test]
fn a_member_cannot_flood_the_network_with_records_of_itself() {
    let (founder, other) = (identity(1), identity(2));
    let mut network = network(&founder);
    network.act(&founder, NOW, member(other.peer_id(), None)).unwrap();
    network.news = News::default();
    let records = (1..=200).map(|seq| record(&other, network.id, seq)).collect();
    network.absorb(NOW, Some(other.peer_id()), Bundle { records, ..Bundle::default() });
    let told = network.news.bundle.records.len();
    assert!((1..=30).contains(&told), "{told} records passed on");
    assert!(network.counters.hurried_records >= 170);
}

#[test]
fn a_bundle_is_evaluated_once_however_much_it_holds() {
    let founder = identity(1);
    let (mut ours, mut theirs) = (network(&founder), network(&founder));
    ours.act(&founder, NOW, member(PeerId::from_bytes([8; 32]), None)).unwrap();
    for number in 0..20 {
        theirs.act(&founder, NOW, member(PeerId::from_bytes([10 + number; 32]), None)).unwrap();
    }
    let before = ours.constitution.counters().refolds;
    let statements = theirs.constitution.after(&[], usize::MAX).statements;
    ours.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    assert_eq!(ours.constitution.len(), 22);
    assert_eq!(ours.constitution.counters().refolds - before, 1);
}

#[test]
fn whoever_was_away_does_not_take_others_for_silent() {
    let (founder, other) = (identity(1), identity(2));
    let mut network = network(&founder);
    network.act(&founder, NOW, member(other.peer_id(), Some(60))).unwrap();
    network.absorb(NOW, None, Bundle { records: vec![record(&other, network.id, 1)], ..Bundle::default() });
    // A night later: started again, or awake again.
    let morning = NOW + 8 * 3_600_000;
    network.note_awake(morning);
    assert!(!network.is_member(morning, &other.peer_id()));
    assert_eq!(network.duties(morning), [], "it may have spoken all night");
    assert!(!network.is_out(morning, &other.peer_id()), "and may speak again");
    for minute in 0..3 {
        network.note_awake(morning + minute * 60_000);
    }
    assert_eq!(network.duties(morning + 120_000).len(), 1, "nothing was heard of it for two minutes");
}

#[test]
fn a_name_like_the_beginning_of_another_peer_id_does_not_stand_in_for_it() {
    let (founder, honest) = (identity(1), identity(2));
    let mut network = network(&founder);
    network.act(&founder, NOW, member(honest.peer_id(), None)).unwrap();
    let name: String = honest.peer_id().to_string().chars().take(12).collect();
    let Act::AddMember(new) = member(PeerId::from_bytes([9; 32]), None) else { unreachable!() };
    network.act(&founder, NOW, Act::AddMember(NewMember { name: name.clone(), ..new })).unwrap();
    assert!(matches!(find_member(&network, &name), Err(NetworkError::AmbiguousMember { .. })));
    assert!(find_member(&network, &honest.peer_id().to_string()).is_ok());
}

#[test]
fn one_leaked_code_does_not_fill_the_queue_of_those_who_wait() {
    let founder = identity(1);
    let mut network = network(&founder);
    let ask = |number: u8, serial: u8, asked_ms: u64, denied: bool| {
        let asked = (Serial::from_bytes([serial; 16]), identity(number).public().clone(), "x".to_owned());
        PendingJoin::vouch(&founder, &network.id, ([number; 16], asked_ms), asked, denied).unwrap()
    };
    let flood: Vec<PendingJoin> =
        (2..22).map(|number| ask(number, 7, NOW + u64::from(number), number % 2 == 0)).collect();
    let (honest, early) = (ask(40, 8, NOW + 100, false), ask(41, 7, NOW, false));
    for pending in &flood {
        network.keep_pending(pending.clone());
    }
    assert_eq!(network.pending.len(), MAX_PENDING_PER_INVITE);
    assert!(network.keep_pending(honest) && network.keep_pending(early));
    assert_eq!(network.pending.len(), MAX_PENDING_PER_INVITE + 1);
    let kept = |number: u8| network.pending.contains_key(&identity(number).peer_id());
    assert!((2..22).filter(|number| number % 2 == 1).all(kept), "whoever was not denied keeps its place");
    // Whatever the order, the same are kept.
    let before = network.pending.clone();
    for pending in flood.iter().rev() {
        network.keep_pending(pending.clone());
    }
    assert!(network.pending == before);
}

#[test]
fn who_waits_under_a_name_like_another_peer_id_is_not_approved_for_that_other() {
    let (founder, honest) = (identity(1), identity(2));
    let mut network = network(&founder);
    let prefix: String = honest.peer_id().to_string().chars().take(12).collect();
    for (who, name) in [(&honest, "laptop"), (&identity(3), prefix.as_str())] {
        let asked = (Serial::from_bytes([7; 16]), who.public().clone(), name.to_owned());
        network.keep_pending(PendingJoin::vouch(&founder, &network.id, ([1; 16], NOW), asked, false).unwrap());
    }
    assert!(matches!(network.find_pending(&prefix), Err(NetworkError::AmbiguousMember { .. })));
    assert_eq!(network.find_pending(&honest.peer_id().to_string()), Ok(honest.peer_id()));
    assert_eq!(network.find_pending("laptop"), Ok(honest.peer_id()));
}

/// A statement of `of`'s act with somebody else's bytes for a signature.
fn forged(network: &Network, of: &Identity, act: Act) -> Arc<Statement> {
    let mut statement = Statement::draft(network.constitution.draft(NOW, act)).unwrap();
    statement.add_signature(of.peer_id(), false_signature(7));
    Arc::new(statement)
}

fn false_signature(byte: u8) -> CompositeSignature {
    CompositeSignature::from_bytes(&[byte; SIGNATURE_LEN]).unwrap()
}

fn statements(statements: Vec<Arc<Statement>>) -> Bundle {
    Bundle { statements, ..Bundle::default() }
}

#[test]
fn who_passes_on_false_signatures_is_not_listened_to_and_everybody_else_is() {
    let (founder, honest, liar) = (identity(1), identity(2), identity(3));
    let mut network = network(&founder);
    for peer in [&honest, &liar] {
        network.act(&founder, NOW, member(peer.peer_id(), None)).unwrap();
    }
    let forge = |network: &Network, number: u8| forged(network, &founder, member(identity(number).peer_id(), None));
    let few = (10..25).map(|number| forge(&network, number)).collect();
    network.absorb(NOW, Some(liar.peer_id()), statements(few));
    assert_eq!(network.counters.false_signatures, 15);
    assert!(!network.is_deaf_to(clock::now(), &liar.peer_id()), "15 may be some mistake");
    // The true one comes after so many false ones that nobody looks at it any more.
    let mut true_one = Statement::draft(network.constitution.draft(NOW, member(identity(60).peer_id(), None))).unwrap();
    true_one.sign(&founder).unwrap();
    let true_one = Arc::new(true_one);
    let many = (25..45).map(|number| forge(&network, number)).chain([Arc::clone(&true_one)]).collect();
    let absorbed = network.absorb(NOW, Some(liar.peer_id()), statements(many));
    assert!(!absorbed.news && network.is_deaf_to(clock::now(), &liar.peer_id()));
    assert!(!network.is_deaf_to(clock::now(), &honest.peer_id()));
    assert!(network.absorb(NOW, Some(honest.peer_id()), statements(vec![true_one])).news, "it is nobody's fault");
    let later = clock::now() + Duration::from_secs(61);
    assert!(!network.is_deaf_to(later, &liar.peer_id()), "nobody is shut out for good");
}

#[test]
fn false_copies_that_wait_are_not_blamed_on_who_sends_the_true_one() {
    let (founder, honest, liar) = (identity(1), identity(2), identity(3));
    let (mut network, mut elsewhere) = (network(&founder), network(&founder));
    for peer in [&honest, &liar] {
        let id = network.act(&founder, NOW, member(peer.peer_id(), None)).unwrap();
        let statement = network.constitution.get(&id).unwrap();
        elsewhere.absorb(NOW, None, statements(vec![statement]));
    }
    let parent = elsewhere.act(&founder, NOW, member(identity(4).peer_id(), None)).unwrap();
    let child = elsewhere.act(&founder, NOW, member(identity(5).peer_id(), None)).unwrap();
    let (parent, child) = (elsewhere.constitution.get(&parent).unwrap(), elsewhere.constitution.get(&child).unwrap());
    let copies = (0..40).map(|byte| {
        let mut copy = Statement::draft(child.body().clone()).unwrap();
        copy.add_signature(founder.peer_id(), false_signature(byte));
        Arc::new(copy)
    });
    network.absorb(NOW, Some(liar.peer_id()), statements(copies.collect()));
    assert_eq!(network.constitution.waiting(), 40);
    let absorbed = network.absorb(NOW, Some(honest.peer_id()), statements(vec![parent, Arc::clone(&child)]));
    assert!(absorbed.news && network.constitution.contains(&child.id()));
    assert_eq!((network.constitution.waiting(), network.counters.false_signatures), (0, 0));
    assert!(!network.is_deaf_to(clock::now(), &honest.peer_id()));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network without any IO: who is believed, who may join, how two that differ become equal.

pub(in crate::membership) mod attacks;
mod covers;
mod halves;
mod homes;
mod joins;
mod own;
mod put_out;
mod rotation;
mod shed;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    proofs::schnorr::JoinContext,
};
use pqvpn_trust::CompositeVerifier;
use pqvpn_wire::network::{
    Act, Genesis, Invite, InviteSecret, JoinRefusal, JoinRequest, MemberDraft, NewMember, Params, StatementBody,
    SyncState,
};

use super::{records::*, *};

const HOUR: u64 = 3_600_000;
const NOW: u64 = 1_800_000_000_000;

/// The `n`-th identity; keys are made once.
fn who(n: usize) -> &'static Identity {
    static ALL: [OnceLock<Identity>; 8] = [const { OnceLock::new() }; 8];
    ALL[n].get_or_init(|| Identity::from_seed(&IdentitySeed::from_bytes(&[n as u8 + 1; 64])).unwrap())
}

fn moment(unix_ms: u64) -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Moment { mono: start + Duration::from_millis(unix_ms.saturating_sub(NOW)), unix_ms }
}

fn head() -> Head {
    Head { name: "home".to_owned(), enabled: true, seq: 0, waiting: None, since_ms: NOW }
}

/// A network founded by identity 0, as identity `own` holds it.
fn founded(own: usize, params: Params) -> Network {
    let genesis = Genesis {
        name: "home".to_owned(),
        founder: who(0).public().clone(),
        founder_name: "alice".to_owned(),
        secret: [7; 32],
        params,
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
    statement.sign(who(0)).unwrap();
    let id = statement.id().network();
    let constitution = constitution(&id, [statement], &CompositeVerifier).unwrap();
    Network::new(who(own).peer_id(), constitution, head(), moment(NOW))
}

fn home() -> Network {
    founded(0, Params::default())
}

fn member(n: usize, name: &str) -> Act {
    Act::AddMember(NewMember {
        peer: who(n).peer_id(),
        name: name.to_owned(),
        tags: Vec::new(),
        level_cap: 3,
        expires_ms: None,
        ephemeral_s: None,
        invite: None,
    })
}

fn do_act(network: &mut Network, act: Act) {
    network.act(who(0), NOW, act).unwrap();
}

fn invite(network: &mut Network, secret: &InviteSecret, change: impl FnOnce(&mut Invite)) {
    let mut invite = Invite {
        network: network.id,
        serial: secret.serial(),
        point: secret.key().point(),
        issuer: who(0).peer_id(),
        tags: vec!["server".to_owned()],
        level_cap: 2,
        not_after_ms: NOW + HOUR,
        max_uses: 1,
        ephemeral_s: None,
        member_expires_s: None,
        preapproved: false,
    };
    change(&mut invite);
    let _may_be_full = network.keep_invite(NOW, SignedInvite::sign(invite, who(0)).unwrap());
}

const SECRET: InviteSecret = InviteSecret::from_bytes([9; 16]);
const EXPORTER: [u8; 32] = [5; 32];

/// A join of identity `n` at a verifier, over a link with an exporter.
fn request(network: &Network, n: usize, name: &str, sent_ms: u64) -> JoinRequest {
    request_with(network, n, name, sent_ms, &network.own, &EXPORTER, &SECRET)
}

fn request_with(
    network: &Network,
    n: usize,
    name: &str,
    sent_ms: u64,
    verifier: &PeerId,
    exporter: &[u8; 32],
    secret: &InviteSecret,
) -> JoinRequest {
    let joiner = who(n).peer_id();
    let serial = SECRET.serial();
    let context = JoinContext::new(network.id.as_bytes(), serial.as_bytes(), verifier, &joiner, exporter);
    JoinRequest::make(who(n), (serial, &secret.key()), &context, name.to_owned(), sent_ms, &[3; 32]).unwrap()
}

fn judge(network: &Network, now_ms: u64, n: usize, request: &JoinRequest) -> Judged {
    network.judge_join(JoinFacts { now_ms, key: who(n).public(), exporter: &EXPORTER }, request)
}

fn record(n: usize, network: &Network, seq: u64, at: &str) -> Arc<MemberRecord> {
    record_at(n, network.id, seq, at, NOW)
}

fn record_at(n: usize, network: NetworkId, seq: u64, at: &str, issued_ms: u64) -> Arc<MemberRecord> {
    let draft = MemberDraft {
        network,
        seq,
        issued_ms,
        not_after_ms: issued_ms + 24 * HOUR,
        endpoints: vec![at.parse().unwrap()],
        head: [0; 32],
        left: false,
    };
    Arc::new(MemberRecord::sign(draft, who(n)).unwrap())
}

fn records(records: Vec<Arc<MemberRecord>>) -> Bundle {
    Bundle { records, ..Bundle::default() }
}

/// `network` asks `other` for what it lacks until it lacks nothing; gives the pages.
fn pull_all(network: &mut Network, other: &Network, now: Moment) -> usize {
    let theirs = other.state();
    let lacks = network.lacks(now.mono, &other.own, &theirs);
    let (mut pages, mut page) = (0, 0);
    while lacks.any() {
        let Some(bundle) = other.answer(&network.pull(lacks, page)) else { break };
        let (more, invites) = (bundle.more, bundle.invites.len() as u64);
        page += invites;
        let absorbed = network.absorb(now.unix_ms, Some(other.own), bundle);
        pages += 1;
        assert!(pages < 1000, "no end");
        // As the driver does: a page without anything new is the last.
        if !(more && (absorbed.news || invites > 0)) {
            break;
        }
    }
    pages
}

// ---- two become equal ---------------------------------------------------------------------------------------------

#[test]
fn two_halves_of_a_network_that_went_on_apart_become_equal() {
    let mut one = home();
    do_act(&mut one, member(1, "bob"));
    let mut other = founded(1, Params::default());
    pull_all(&mut other, &one, moment(NOW));
    assert_eq!(one.constitution.head(), other.constitution.head());
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    pull_all(&mut other, &one, moment(NOW));
    // Apart: each adds, one revokes; each has an invite and records of its own.
    do_act(&mut one, member(2, "carol"));
    invite(&mut one, &SECRET, |_| ());
    one.absorb(NOW, None, records(vec![record(2, &one, 5, "1.1.1.1:1")]));
    other.act(who(1), NOW + 1, member(3, "dave")).unwrap();
    other.act(who(1), NOW + 2, Act::Revoke { peer: who(3).peer_id(), reason: String::new() }).unwrap();
    one.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    pull_all(&mut one, &other, moment(NOW));
    pull_all(&mut other, &one, moment(NOW));
    assert_eq!(one.state(), other.state());
    assert_eq!(one.constitution.view().members, other.constitution.view().members);
    assert_eq!((other.invites.len(), other.records.len()), (1, 2));
    assert!(!one.lacks(moment(NOW).mono, &other.own, &other.state()).any());
}

#[test]
fn a_large_network_is_fetched_in_pages_that_each_fit_into_a_message() {
    let mut one = home();
    for n in 0..120_u32 {
        let mut peer = [0; 32];
        peer[..4].copy_from_slice(&n.to_be_bytes());
        let Act::AddMember(mut member) = member(1, &format!("m{n}")) else { unreachable!() };
        member.peer = PeerId::from_bytes(peer);
        do_act(&mut one, Act::AddMember(member));
    }
    let mut other = founded(1, Params::default());
    let pages = pull_all(&mut other, &one, moment(NOW));
    assert!(pages >= 2, "{pages}");
    assert_eq!(one.constitution.head(), other.constitution.head());
    let first = one.answer(&SyncState::default()).unwrap();
    assert!(
        pqvpn_wire::network::encode_response(&one.id, &pqvpn_wire::network::NetResponse::Bundle(Box::new(first)))
            .is_ok()
    );
}

#[test]
fn signers_that_only_one_side_knows_reach_the_other() {
    let params = Params { quorum: 2, ..Params::default() };
    let mut one = founded(0, params);
    do_act(&mut one, member(1, "bob"));
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    let proposal = one.act(who(0), NOW, Act::AddAdmin { key: who(2).public().clone() }).unwrap();
    let mut other = founded(1, params);
    pull_all(&mut other, &one, moment(NOW));
    let mut signed = Statement::clone(&other.constitution.get(&proposal).unwrap());
    signed.sign(who(1)).unwrap();
    other.author(signed).unwrap();
    assert_eq!(one.state().tips, other.state().tips);
    assert_ne!(one.state().head, other.state().head);
    let lacks = one.lacks(moment(NOW).mono, &other.own, &other.state());
    assert!(lacks.signers && !lacks.statements);
    pull_all(&mut one, &other, moment(NOW));
    assert_eq!(one.state().head, other.state().head);
    assert!(one.constitution.proposals().is_empty());
}

#[test]
fn who_names_parents_that_nobody_has_keeps_no_signature_away() {
    let params = Params { quorum: 2, ..Params::default() };
    let mut one = founded(0, params);
    for (n, name) in [(1, "bob"), (2, "carol"), (3, "mallory")] {
        do_act(&mut one, member(n, name));
    }
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    do_act(&mut one, Act::AddAdmin { key: who(2).public().clone() });
    let mut other = founded(1, params);
    pull_all(&mut other, &one, moment(NOW));
    let carol = who(2).peer_id();
    let proposal = one.act(who(0), NOW, Act::Revoke { peer: carol, reason: String::new() }).unwrap();
    pull_all(&mut other, &one, moment(NOW));
    other.co_sign(who(1), &proposal).unwrap();
    // More than one message can ask for: what is asked for besides must have its place.
    let statements = (0..16).map(|number: u8| {
        let mut draft = one.constitution.draft(NOW, member(4, "dave"));
        draft.parents = (0..16).map(|parent| StatementId::from_bytes([number * 16 + parent; 32])).collect();
        let mut statement = Statement::draft(draft).unwrap();
        statement.sign(who(3)).unwrap();
        Arc::new(statement)
    });
    let statements = statements.collect();
    one.absorb(NOW, Some(who(3).peer_id()), Bundle { statements, ..Bundle::default() });
    assert_eq!(one.missing.len(), MAX_IDS);
    let lacks = one.lacks(moment(NOW).mono, &other.own, &other.state());
    assert!(lacks.signers && lacks.statements, "{lacks:?}");
    pull_all(&mut one, &other, moment(NOW));
    assert_eq!(one.state().head, other.state().head);
    assert!(one.constitution.view().revoked.contains_key(&carol));
}

// ---- who is believed ----------------------------------------------------------------------------------------------

#[test]
fn statements_of_another_network_change_nothing() {
    let mut ours = home();
    let mut foreign = founded(0, Params { approval: true, ..Params::default() });
    do_act(&mut foreign, member(1, "mallory"));
    let before = ours.constitution.head();
    let statements = foreign.constitution.after(&[], usize::MAX).statements;
    assert_eq!(statements.len(), 2);
    let absorbed = ours.absorb(NOW, None, Bundle { statements, ..Bundle::default() });
    assert!(!absorbed.news);
    assert_eq!(ours.constitution.head(), before);
    assert!(ours.counters.foreign_statements + ours.counters.bad_statements >= 2, "{:?}", ours.counters);
    assert!(ours.counters.foreign_statements >= 1);
}

#[test]
fn a_record_counts_only_if_its_owner_signed_it_for_this_network_and_it_is_the_newest() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    let good = record(1, &ours, 10, "1.1.1.1:1");
    let mut bytes = good.encode();
    *bytes.last_mut().unwrap() ^= 1;
    let forged = Arc::new(MemberRecord::decode(&bytes).unwrap());
    let elsewhere = record_at(1, NetworkId::from_bytes([8; 32]), 11, "1.1.1.1:1", NOW);
    let stranger = record(2, &ours, 10, "1.1.1.1:1");
    let future = record_at(1, ours.id, 12, "1.1.1.1:1", NOW + MAX_SKEW_MS + 1);
    for bad in [forged, elsewhere, stranger, future] {
        assert!(!ours.absorb(NOW, None, records(vec![bad])).news);
    }
    assert_eq!((ours.counters.bad_records, ours.records.len()), (4, 0));
    assert!(ours.absorb(NOW, None, records(vec![Arc::clone(&good)])).news);
    assert!(!ours.absorb(NOW, None, records(vec![Arc::clone(&good)])).news, "known");
    let older = record(1, &ours, 9, "2.2.2.2:2");
    assert!(!ours.absorb(NOW, None, records(vec![older])).news);
    assert_eq!(ours.counters.old_records, 1);
    let newer = record(1, &ours, 11, "4.4.4.4:4");
    assert!(ours.absorb(NOW, None, records(vec![newer])).news);
    assert_eq!(ours.news.bundle.records.len(), 1, "what waits to be told is the newest alone");
    let good = record(1, &ours, 12, "1.1.1.1:1");
    assert!(ours.absorb(NOW, None, records(vec![Arc::clone(&good)])).news);
    let twin = record(1, &ours, 12, "3.3.3.3:3");
    assert!(!ours.absorb(NOW, None, records(vec![twin])).news);
    assert_eq!(ours.counters.twin_records, 1);
    assert_eq!(ours.records[&who(1).peer_id()], good);
    do_act(&mut ours, Act::Revoke { peer: who(1).peer_id(), reason: String::new() });
    ours.prune(NOW);
    let newer = record(1, &ours, 20, "1.1.1.1:1");
    assert!(!ours.absorb(NOW, None, records(vec![newer])).news, "revoked");
    assert!(ours.records.is_empty());
}

#[test]
fn what_is_no_statement_costs_no_copy_of_the_members() {
    let mut ours = home();
    assert!(ours.view_before(&records(vec![record(1, &ours, 10, "1.1.1.1:1")])).is_none());
    assert!(ours.view_before(&Bundle::default()).is_none());
    do_act(&mut ours, member(1, "bob"));
    let statements = ours.constitution.after(&[], usize::MAX).statements;
    assert!(ours.view_before(&Bundle { statements: statements.clone(), ..Bundle::default() }).is_some());
    let mut theirs = home();
    let absorbed = theirs.absorb(NOW, None, Bundle { statements, ..records(vec![record(1, &ours, 10, "1.1.1.1:1")]) });
    assert!(absorbed.news && !absorbed.events.is_empty(), "what statements change is told");
}

#[test]
fn invites_and_waiting_joins_count_only_from_admins_of_now() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    let (id, mallory) = (ours.id, who(1));
    let own_invite = Invite {
        network: id,
        serial: SECRET.serial(),
        point: SECRET.key().point(),
        issuer: mallory.peer_id(),
        tags: Vec::new(),
        level_cap: 4,
        not_after_ms: NOW + HOUR,
        max_uses: 100,
        ephemeral_s: None,
        member_expires_s: None,
        preapproved: true,
    };
    let invites = vec![SignedInvite::sign(own_invite, mallory).unwrap()];
    assert!(!ours.absorb(NOW, None, Bundle { invites, ..Bundle::default() }).news);
    let asked = (SECRET.serial(), who(2).public().clone(), "eve".to_owned());
    let vouched = PendingJoin::vouch(mallory, &id, ([1; 16], NOW), asked.clone(), false).unwrap();
    let bundle = |pending| Bundle { pending: vec![pending], ..Bundle::default() };
    assert!(!ours.absorb(NOW, None, bundle(vouched)).news);
    assert_eq!((ours.counters.bad_invites, ours.counters.bad_pending), (1, 1));
    let vouched = PendingJoin::vouch(who(0), &id, ([1; 16], NOW), asked.clone(), false).unwrap();
    assert!(ours.absorb(NOW, None, bundle(vouched.clone())).news);
    let denied = PendingJoin::vouch(who(0), &id, ([1; 16], NOW), asked, true).unwrap();
    assert!(ours.absorb(NOW, None, bundle(denied)).news);
    assert!(!ours.absorb(NOW, None, bundle(vouched)).news, "a no is not taken back by an older question");
    assert!(ours.pending.values().all(|pending| pending.denied));
}

#[test]
fn waiting_rooms_are_bounded() {
    let mut ours = home();
    for n in 0..MAX_INVITES as u64 + 10 {
        let secret = InviteSecret::from_bytes([(n / 256) as u8, n as u8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        invite(&mut ours, &secret, |invite| invite.not_after_ms = NOW + HOUR + n);
    }
    assert_eq!((ours.invites.len(), ours.counters.invites_full), (MAX_INVITES, 10));
    assert!(
        ours.invites.values().all(|invite| invite.invite().not_after_ms >= NOW + HOUR + 10),
        "the first to end went"
    );
    let mut allowance = Allowance::default();
    let now = Instant::now();
    let taken = (0..100).filter(|_| allowance.take(now, 8, Duration::from_secs(1))).count();
    assert_eq!(taken, 8);
    assert!(allowance.take(now + Duration::from_secs(1), 8, Duration::from_secs(1)));
    assert!(!allowance.take(now + Duration::from_secs(1), 8, Duration::from_secs(1)));
}

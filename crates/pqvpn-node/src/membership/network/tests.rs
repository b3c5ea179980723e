// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network without any IO: who is believed, who may join, how two that differ become equal.

pub(in crate::membership) mod attacks;
mod covers;
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
use pqvpn_wire::network::{
    Genesis, Invite, InviteSecret, JoinRefusal, JoinRequest, MemberDraft, NewMember, Params, StatementBody, SyncState,
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
    network.keep_invite(SignedInvite::sign(invite, who(0)).unwrap());
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
    let twin = record(1, &ours, 10, "3.3.3.3:3");
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

// ---- who may join -------------------------------------------------------------------------------------------------

#[test]
fn a_join_is_bound_to_its_link_its_verifier_its_joiner_and_its_secret() {
    let mut ours = home();
    invite(&mut ours, &SECRET, |_| ());
    let good = request(&ours, 1, "bob", NOW);
    assert!(
        matches!(judge(&ours, NOW, 1, &good), Judged::Add(member) if member.name == "bob" && member.level_cap == 2)
    );
    let bad = Judged::Refused(JoinRefusal::BadProof);
    let other_link = JoinFacts { now_ms: NOW, key: who(1).public(), exporter: &[6; 32] };
    assert_eq!(ours.judge_join(other_link, &good), bad, "another exporter");
    assert_eq!(judge(&ours, NOW, 2, &good), bad, "handed on by another peer");
    let elsewhere = request_with(&ours, 1, "bob", NOW, &who(3).peer_id(), &EXPORTER, &SECRET);
    assert_eq!(judge(&ours, NOW, 1, &elsewhere), bad, "made for another verifier");
    let guessed = InviteSecret::from_bytes([10; 16]);
    let guess = request_with(&ours, 1, "bob", NOW, &ours.own, &EXPORTER, &guessed);
    assert_eq!(judge(&ours, NOW, 1, &guess), bad, "without the secret");
    let mut renamed = good.clone();
    renamed.name = "root".to_owned();
    assert_eq!(judge(&ours, NOW, 1, &renamed), bad, "the name is signed");
    let context =
        JoinContext::new(ours.id.as_bytes(), SECRET.serial().as_bytes(), &ours.own, &who(1).peer_id(), &EXPORTER);
    let proof = (SECRET.serial(), &SECRET.key());
    let lent = JoinRequest::make(who(2), proof, &context, "bob".to_owned(), NOW, &[3; 32]).unwrap();
    assert_eq!(judge(&ours, NOW, 1, &lent), bad, "signed by a key that is not the link's");
    let mut swapped = good;
    swapped.key = who(2).public().clone();
    assert_eq!(judge(&ours, NOW, 1, &swapped), bad, "another key");
}

#[test]
fn whoever_has_no_invite_learns_nothing() {
    let ours = home();
    let asks = request(&ours, 1, "bob", NOW);
    assert_eq!(judge(&ours, NOW, 1, &asks), Judged::Unknown);
}

#[test]
fn each_reason_to_refuse_a_join_has_its_own_answer() {
    let refused = |refusal| Judged::Refused(refusal);
    let mut ours = home();
    invite(&mut ours, &SECRET, |_| ());
    let asks = request(&ours, 1, "bob", NOW);
    let late = NOW + HOUR;
    let at_end = request(&ours, 1, "bob", late);
    assert_eq!(judge(&ours, late, 1, &at_end), refused(JoinRefusal::Expired { now_ms: late }));
    let hour_off = request(&ours, 1, "bob", NOW - HOUR);
    assert_eq!(judge(&ours, NOW, 1, &hour_off), refused(JoinRefusal::ClockSkew { now_ms: NOW }));
    let ahead = request(&ours, 1, "bob", NOW + HOUR);
    assert_eq!(judge(&ours, NOW, 1, &ahead), refused(JoinRefusal::ClockSkew { now_ms: NOW }));
    let taken = request(&ours, 1, "alice", NOW);
    let suggestion = "alice-2".to_owned();
    assert_eq!(judge(&ours, NOW, 1, &taken), refused(JoinRefusal::NameTaken { suggestion }));
    // Used up, but who used it is told that it is in.
    let Judged::Add(added) = judge(&ours, NOW, 1, &asks) else { panic!("good") };
    do_act(&mut ours, Act::AddMember(*added));
    assert_eq!(judge(&ours, NOW, 1, &asks), Judged::Member);
    let second = request(&ours, 2, "carol", NOW);
    assert_eq!(judge(&ours, NOW, 2, &second), refused(JoinRefusal::UsedUp));
    do_act(&mut ours, Act::Revoke { peer: who(1).peer_id(), reason: String::new() });
    assert_eq!(judge(&ours, NOW, 1, &asks), refused(JoinRefusal::Revoked));
    do_act(&mut ours, Act::CancelInvite { serial: SECRET.serial() });
    assert_eq!(judge(&ours, NOW, 2, &second), refused(JoinRefusal::Cancelled));
}

#[test]
fn who_may_not_sign_names_those_who_may_and_approval_waits() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    invite(&mut ours, &SECRET, |_| ());
    let mut bobs = founded(1, Params::default());
    pull_all(&mut bobs, &ours, moment(NOW));
    let asks = request(&bobs, 2, "carol", NOW);
    assert_eq!(judge(&bobs, NOW, 2, &asks), Judged::Elsewhere);
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    pull_all(&mut bobs, &ours, moment(NOW));
    let doors = bobs.doors(&["9.9.9.9:9".parse().unwrap()]);
    assert_eq!(doors.iter().map(|door| door.peer).collect::<Vec<_>>(), [who(0).peer_id()], "not itself");

    let mut club = founded(0, Params { approval: true, ..Params::default() });
    invite(&mut club, &SECRET, |_| ());
    let asks = request(&club, 1, "bob", NOW);
    assert_eq!(judge(&club, NOW, 1, &asks), Judged::Wait);
    let pending = club.queue_join(who(0), NOW, &asks).unwrap();
    assert_eq!(club.queue_join(who(0), NOW + 1, &asks).unwrap().ticket, pending.ticket, "one request, one place");
    let act = club.approval(NOW + 2 * HOUR, &who(1).peer_id()).unwrap();
    do_act(&mut club, act);
    club.prune(NOW);
    assert!(club.pending.is_empty());
    assert!(club.is_member(NOW, &who(1).peer_id()), "also when the invite ended while it waited");

    let mut club = founded(0, Params { approval: true, ..Params::default() });
    invite(&mut club, &SECRET, |_| ());
    let asks = request(&club, 1, "bob", NOW);
    club.queue_join(who(0), NOW, &asks).unwrap();
    club.deny(who(0), &who(1).peer_id()).unwrap();
    assert_eq!(judge(&club, NOW, 1, &asks), Judged::Refused(JoinRefusal::Denied));
}

#[test]
fn of_two_admins_who_use_one_invite_at_once_one_learns_that_it_was_second() {
    let mut one = home();
    do_act(&mut one, member(1, "bob"));
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    invite(&mut one, &SECRET, |_| ());
    let mut other = founded(1, Params::default());
    pull_all(&mut other, &one, moment(NOW));
    let (first, second) = (request(&one, 2, "carol", NOW), request(&other, 3, "dave", NOW));
    let Judged::Add(carol) = judge(&one, NOW, 2, &first) else { panic!("good") };
    let Judged::Add(dave) = judge(&other, NOW, 3, &second) else { panic!("good") };
    one.act(who(0), NOW, Act::AddMember(*carol)).unwrap();
    other.act(who(1), NOW, Act::AddMember(*dave)).unwrap();
    pull_all(&mut one, &other, moment(NOW));
    pull_all(&mut other, &one, moment(NOW));
    let members =
        |network: &Network| [2, 3].map(|n| network.constitution.view().members.contains_key(&who(n).peer_id()));
    assert_eq!(members(&one), members(&other));
    assert_eq!(members(&one).iter().filter(|is_in| **is_in).count(), 1, "one use, one member");
}

// ---- our own record and what is wrong -------------------------------------------------------------------------------

#[test]
fn our_record_is_renewed_in_time_when_it_changes_and_not_for_nothing() {
    let here: Vec<std::net::SocketAddr> = vec!["1.2.3.4:5".parse().unwrap()];
    let draft = record_at(0, NetworkId::OPEN, 1, "1.2.3.4:5", NOW).draft().clone();
    assert_eq!(renewal_due(None, NOW, &here, None), NOW, "none yet");
    assert_eq!(renewal_due(Some(&draft), NOW, &here, None), NOW + 6 * HOUR);
    assert_eq!(renewal_due(Some(&draft), NOW, &[], None), NOW + 2000, "moved");
    assert_eq!(renewal_due(Some(&draft), NOW - HOUR, &here, None), NOW - HOUR, "the clock was set back");
    assert_eq!(renewal_due(Some(&draft), NOW, &here, Some(60)), NOW + 20_000, "before it is forgotten");
    let left = MemberDraft { left: true, ..draft };
    assert_eq!(renewal_due(Some(&left), NOW, &here, None), NOW, "back again");
    let mut ours = home();
    ours.renew(who(0), NOW, &here, false);
    let first = ours.records[&ours.own].seq();
    ours.renew(who(0), NOW - HOUR, &here, false);
    assert!(ours.records[&ours.own].seq() > first, "numbers only grow, whatever the clock does");
}

#[test]
fn a_second_user_of_our_identity_is_told_of_and_not_fought() {
    let mut ours = home();
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    let seq = ours.records[&ours.own].seq();
    let has = |network: &Network, code: &str| network.health(moment(NOW)).iter().any(|item| item.code == code);
    // An earlier life of this node, whose store was lost: no twin, but its numbers are not used again.
    let earlier = record_at(0, ours.id, seq + 5, "5.5.5.5:5", NOW - HOUR);
    ours.absorb(NOW, None, records(vec![earlier]));
    assert!(!has(&ours, "identity-twice"));
    assert_eq!(ours.own_record_due(NOW, &[]), NOW, "said anew at once");
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    assert!(ours.records[&ours.own].seq() > seq + 5);
    // A record newer than this life that we did not make.
    let twin = record_at(0, ours.id, seq + 50, "6.6.6.6:6", NOW + 1000);
    assert!(ours.absorb(NOW + 1000, None, records(vec![twin])).news);
    assert!(has(&ours, "identity-twice"));
    // It may not know of us: it is answered once, and then neither corrects the other's addresses any more.
    let here = ["1.2.3.4:5".parse().unwrap()];
    let due = ours.own_record_due(NOW + 1000, &here);
    assert_eq!(due, NOW + 3000);
    ours.renew(who(0), due, &here, false);
    let again = record_at(0, ours.id, ours.head.seq + 1, "6.6.6.6:6", due + 1000);
    assert!(ours.absorb(due + 1000, None, records(vec![again])).news);
    let next = ours.own_record_due(due + 1000, &here);
    assert!(next > due + HOUR, "not contradicted: {}", next - due);
    assert!(!ours.health(moment(NOW + 48 * HOUR)).iter().any(|item| item.code == "identity-twice"), "long ago");
    assert_eq!(ours.next_change_ms(due + 1000), Some(due + 1000 + TWIN_MS), "and told no more in time");
}

#[test]
fn what_runs_out_is_said_in_time() {
    let mut ours = founded(1, Params::default());
    let mut alices = home();
    let Act::AddMember(mut bob) = member(1, "bob") else { unreachable!() };
    bob.expires_ms = Some(NOW + 40 * 24 * HOUR);
    do_act(&mut alices, Act::AddMember(bob));
    pull_all(&mut ours, &alices, moment(NOW));
    let level = |days: u64| {
        let items = ours.health(moment(NOW + days * 24 * HOUR));
        items.iter().find(|item| item.code == "membership-expires").map(|item| item.level)
    };
    use crate::snapshot::HealthLevel::{Error, Info, Warn};
    assert_eq!([0, 9, 10, 32, 33, 39].map(level), [None, None, Some(Info), Some(Info), Some(Warn), Some(Error)]);
    // Each warning begins in time, though nothing else happens.
    let day = |days: u64| NOW + days * 24 * HOUR;
    let mut wakes = vec![NOW];
    while let Some(next) = ours.next_change_ms(*wakes.last().unwrap()) {
        wakes.push(next);
    }
    assert!([10, 33, 39, 40].map(day).iter().all(|begin| wakes.contains(begin)), "{wakes:?}");
    let after = moment(day(40));
    assert!(!ours.am_member(after.unix_ms));
    assert!(ours.health(after).iter().any(|item| item.code == "network-expired"));
}

#[test]
fn an_admin_is_told_of_memberships_and_invites_that_end() {
    let mut ours = home();
    for (n, name, days) in [(1, "bob", 3), (2, "carol", 20), (3, "dave", 60)] {
        let Act::AddMember(mut new) = member(n, name) else { unreachable!() };
        new.expires_ms = Some(NOW + days * 24 * HOUR);
        do_act(&mut ours, Act::AddMember(new));
    }
    let text = |network: &Network, code: &str, at: u64| {
        network.health(moment(at)).into_iter().find(|item| item.code == code).map(|item| item.text)
    };
    let said = text(&ours, "members-expire", NOW).unwrap();
    assert!(said.contains("bob (in 3 days), carol (in 20 days)") && !said.contains("dave"), "{said}");
    let mut bobs = founded(1, Params::default());
    pull_all(&mut bobs, &ours, moment(NOW));
    assert_eq!(text(&bobs, "members-expire", NOW), None, "who is no admin can do nothing about it");
    invite(&mut ours, &SECRET, |invite| {
        (invite.max_uses, invite.not_after_ms) = (1, NOW + 24 * HOUR);
    });
    assert_eq!(text(&ours, "invites-expire", NOW), None, "one machine, one person");
    invite(&mut ours, &InviteSecret::from_bytes([3; 16]), |invite| {
        (invite.max_uses, invite.not_after_ms) = (10, NOW + 30 * 24 * HOUR + 1);
    });
    assert_eq!(text(&ours, "invites-expire", NOW), None);
    let begins = ours.next_change_ms(NOW).unwrap();
    assert_eq!(begins, NOW + 1);
    assert!(text(&ours, "invites-expire", begins).unwrap().contains("(in 30 days)"));
    ours.made.insert(InviteSecret::from_bytes([3; 16]).serial(), NOW);
    assert_eq!(text(&ours, "invites-expire", begins), None, "made just now");
    assert!(text(&ours, "invites-expire", NOW + 16 * 24 * HOUR).is_some());
}

#[test]
fn what_nobody_has_confirmed_for_a_day_is_said_over_restarts_too() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    let has = |network: &Network, at: u64| network.health(moment(at)).iter().any(|item| item.code == "head-old");
    ours.note_synced(moment(NOW).mono);
    assert!(!has(&ours, NOW + 24 * HOUR) && has(&ours, NOW + 25 * HOUR));
    assert_eq!(ours.next_change_ms(NOW), Some(NOW + 24 * HOUR + 1), "and said in time");
    (ours.dirty, ours.next_change) = (false, None);
    ours.note_synced(moment(NOW + 25 * HOUR).mono);
    assert!(ours.dirty && !has(&ours, NOW + 25 * HOUR), "and no longer than it is true");
    // After a restart the newest record tells when somebody was heard last; the first seconds are for hearing anew.
    let record = record_at(1, ours.id, 1, "1.1.1.1:1", NOW);
    ours.absorb(NOW, None, records(vec![record]));
    let later = NOW + 40 * HOUR;
    (ours.synced, ours.confirmed, ours.started, ours.started_ms) = (None, false, moment(later).mono, later);
    assert!(!has(&ours, later) && has(&ours, later + 6000));
    // Alone there is nobody to be heard.
    assert!(!has(&home(), NOW + 1000 * HOUR));
}

#[test]
fn a_quorum_that_may_be_lost_is_said() {
    let text = |network: &Network, at: u64| {
        network.health(moment(at)).into_iter().find(|item| item.code == "quorum-lost").map(|item| item.text)
    };
    let mut ours = founded(0, Params { quorum: 2, ..Params::default() });
    assert!(text(&ours, NOW).unwrap().contains("one admin, and 2 are meant"));
    do_act(&mut ours, member(1, "bob"));
    do_act(&mut ours, Act::AddAdmin { key: who(1).public().clone() });
    ours.absorb(NOW, None, records(vec![record_at(1, ours.id, 1, "1.1.1.1:1", NOW)]));
    assert_eq!(text(&ours, NOW + 7 * 24 * HOUR), None);
    let said = text(&ours, NOW + 8 * 24 * HOUR).unwrap();
    assert!(said.contains("2 of 2 admins must sign together, and 1 of them has not been heard"), "{said}");
    assert!(said.contains("pqvpn net create"), "and what is left to do");
    assert_eq!(text(&home(), NOW + 8 * 24 * HOUR), None, "one is enough by itself");
}

#[test]
fn a_clock_that_is_off_is_said() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    do_act(&mut ours, member(2, "carol"));
    let mut theirs = ours.state();
    theirs.sent_ms = NOW + HOUR;
    ours.hear(moment(NOW), who(1).peer_id(), &theirs);
    ours.hear(moment(NOW), who(2).peer_id(), &theirs);
    let item = ours.health(moment(NOW)).into_iter().find(|item| item.code == "clock-off").unwrap();
    assert!(item.text.contains("60 min behind"), "{}", item.text);
    // Half of the others are not most of them; and of two clocks nobody knows which is right.
    let right = SyncState { sent_ms: NOW + 1000, ..theirs.clone() };
    ours.hear(moment(NOW), who(2).peer_id(), &right);
    assert!(!ours.health(moment(NOW)).iter().any(|item| item.code == "clock-off"));
    ours.heard.remove(&who(2).peer_id());
    let item = ours.health(moment(NOW)).into_iter().find(|item| item.code == "clock-off").unwrap();
    assert!(item.text.contains("60 min apart"), "{}", item.text);
    theirs.sent_ms = NOW + 1000;
    ours.hear(moment(NOW), who(1).peer_id(), &theirs);
    ours.hear(moment(NOW), who(2).peer_id(), &theirs);
    assert!(!ours.health(moment(NOW)).iter().any(|item| item.code == "clock-off"));
}

#[test]
fn sessions_wait_for_a_word_of_another_or_for_the_grace() {
    let mut ours = home();
    assert!(ours.is_ready(moment(NOW)), "alone");
    do_act(&mut ours, member(1, "bob"));
    assert!(!ours.is_ready(moment(NOW)));
    assert!(ours.is_ready(moment(NOW + 5000)));
    ours.hear(
        moment(NOW),
        who(1).peer_id(),
        &SyncState { tips: vec![StatementId::from_bytes([1; 32])], ..ours.state() },
    );
    assert!(!ours.is_ready(moment(NOW)), "it knows more");
    ours.hear(moment(NOW), who(1).peer_id(), &ours.state());
    assert!(ours.is_ready(moment(NOW)));
}

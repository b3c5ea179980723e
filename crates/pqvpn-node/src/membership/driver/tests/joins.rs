// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own joins: what a door can do to what is held, and what becomes of one that waits.

use pqvpn_crypto::proofs::schnorr::JoinContext;
use pqvpn_trust::{CompositeVerifier, Inserted};
use pqvpn_wire::network::{Code, Door, Invite, InviteSecret, JoinRequest, Params, SignedInvite};

use super::{
    super::super::{
        event::Rotating, join::Member, network::constitution, port::load_from, rotation::RotationError,
        store::WaitingJoin,
    },
    *,
};

/// A code for a network.
fn code(network: NetworkId) -> String {
    code_with(network, 5)
}

fn code_with(network: NetworkId, secret: u8) -> String {
    let code = Code {
        network,
        network_name: "home".into(),
        secret: InviteSecret::from_bytes([secret; 16]),
        not_after_s: 2_000_000_000,
        doors: vec![Door { peer: identity(1).peer_id(), addresses: vec!["192.0.2.1:1".parse().unwrap()] }],
    };
    code.to_string()
}

/// What whoever lets us in sends: all that `held` holds but the last `left_out`.
fn let_in_by(held: &Network, left_out: usize) -> Member {
    let mut statements = held.constitution.after(&[], usize::MAX).statements;
    statements.truncate(statements.len() - left_out);
    let statements = statements.iter().map(|statement| Statement::clone(statement));
    let constitution = constitution(&held.id, statements, &CompositeVerifier).unwrap();
    let link = Arc::clone(&link(identity(1).peer_id(), clock::now()).connection);
    Member { constitution, records: Vec::new(), invites: Vec::new(), covers: Vec::new(), link, name: String::new() }
}

#[tokio::test]
async fn who_lets_us_in_again_has_us_forget_nothing() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let says = |driver: &mut Driver, act: Act| {
        let held = driver.networks.get_mut(&id).unwrap();
        let mut statement = Statement::draft(held.constitution.draft(Moment::now().unix_ms, act)).unwrap();
        statement.sign(&identity(1)).unwrap();
        held.author(statement).unwrap();
    };
    let revoke = |n| Act::Revoke { peer: identity(n).peer_id(), reason: String::new() };
    says(&mut driver, revoke(3));
    let (carol, at) = (identity(4).peer_id(), "192.0.2.4:4".parse().unwrap());
    driver.networks.get_mut(&id).unwrap().reached_at(1, carol, at);
    let door = let_in_by(&driver.networks[&id], 1);
    assert_eq!(driver.enter(door).unwrap().members, 3);
    let held = &driver.networks[&id];
    assert!(held.constitution.view().revoked.contains_key(&identity(3).peer_id()), "it is a member again");
    assert!(held.seen.contains_key(&carol));
    // Nor that it was put out itself.
    says(&mut driver, revoke(2));
    let door = let_in_by(&driver.networks[&id], 1);
    assert!(matches!(driver.enter(door), Err(NetworkError::Revoked { .. })));
    assert_eq!(driver.networks[&id].constitution.len(), 6);
}

/// `act` on what `held` holds, as founder 1 would say it, under a signature that holds or not.
pub(super) fn said(held: &Network, act: Act, good: bool) -> Statement {
    let mut statement = Statement::draft(held.constitution.draft(Moment::now().unix_ms, act)).unwrap();
    if good {
        statement.sign(&identity(1)).unwrap();
    } else {
        let wrong = CompositeSignature::from_bytes(&[7; SIGNATURE_LEN]).unwrap();
        statement.add_signature(identity(1).peer_id(), wrong);
    }
    statement
}

#[tokio::test]
async fn what_was_never_checked_does_not_come_in_with_what_was() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let evil = || Act::AddAdmin { key: identity(9).public().clone() };
    let new = |n| member(identity(n).peer_id(), None);
    // What the door leaves out is held here, so what waits for it at the joiner finds it.
    let held = driver.networks.get_mut(&id).unwrap();
    let withheld = said(held, new(5), true);
    held.author(withheld).unwrap();
    let mut door = let_in_by(held, 1);
    let forged = said(held, evil(), false);
    assert!(matches!(door.constitution.insert(forged, &CompositeVerifier), Ok(Inserted::Waiting { .. })));
    driver.enter(door).unwrap();
    let is_forged = |driver: &Driver| driver.networks[&id].constitution.view().is_admin(&identity(9).peer_id());
    assert!(!is_forged(&driver) && driver.networks[&id].constitution.len() == 5);
    // The other way round: it waits here, and the door has what it waits for.
    let mut ahead = network(&identity(1));
    let all = driver.networks[&id].constitution.after(&[], usize::MAX).statements;
    ahead.absorb(Moment::now().unix_ms, None, Bundle { statements: all, ..Bundle::default() });
    ahead.author(said(&ahead, new(6), true)).unwrap();
    let forged = vec![Arc::new(said(&ahead, evil(), false))];
    let held = driver.networks.get_mut(&id).unwrap();
    held.absorb(Moment::now().unix_ms, None, Bundle { statements: forged, ..Bundle::default() });
    assert_eq!(held.constitution.waiting(), 1);
    driver.enter(let_in_by(&ahead, 0)).unwrap();
    assert!(!is_forged(&driver) && driver.networks[&id].constitution.len() == 6);
    driver.save().await;
    let kept = driver.store.load().unwrap();
    assert!(kept[&id].statements.len() == 6, "nor is it on disk");
}

#[tokio::test]
async fn what_became_of_a_join_that_waited_is_said_without_any_network() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let home = driver.networks.remove(&id).unwrap();
    let codes = |driver: &mut Driver| {
        driver.tell_views(Moment::now());
        driver.shared.health.load().iter().map(|item| item.code).collect::<Vec<_>>()
    };
    let waiting = Some(WaitingJoin { code: code(id), name: "desk".into() });
    let head = Head { waiting, ..home.head.clone() };
    driver.resume_join(id, head.clone());
    driver.touch_members();
    assert_eq!(codes(&mut driver), ["join-waiting"]);
    driver.on_joined(id, JoinDone::Failed(NetworkError::Denied { network: "home".into() }));
    assert_eq!(codes(&mut driver), ["join-failed"]);
    driver.resume_join(id, head);
    driver.on_joined(id, JoinDone::Member(Box::new(let_in_by(&home, 0))));
    assert!(codes(&mut driver).is_empty(), "it is in");
}

/// This node is an admin who is asked before anybody is let in; the code that it gives out.
pub(super) fn club(driver: &mut Driver, id: NetworkId) -> InviteSecret {
    let held = driver.networks.get_mut(&id).unwrap();
    let params = held.constitution.view().params;
    let approval = Act::SetParams(Params { approval: true, ..params });
    for act in [Act::AddAdmin { key: identity(2).public().clone() }, approval] {
        let statement = said(held, act, true);
        held.author(statement).unwrap();
    }
    let secret = InviteSecret::from_bytes([5; 16]);
    let invite = Invite {
        network: id,
        serial: secret.serial(),
        point: secret.key().point(),
        issuer: held.own,
        tags: Vec::new(),
        level_cap: 2,
        not_after_ms: Moment::now().unix_ms + 3_600_000,
        max_uses: 1,
        ephemeral_s: None,
        member_expires_s: None,
        preapproved: false,
    };
    assert!(held.keep_invite(Moment::now().unix_ms, SignedInvite::sign(invite, &identity(2)).unwrap()));
    secret
}

/// Membership of identity `n` that ended a second ago, as founder 1 has said it before.
pub(super) fn ended(held: &mut Network, n: u8) {
    let Act::AddMember(mut new) = member(identity(n).peer_id(), None) else { unreachable!() };
    new.expires_ms = Some(Moment::now().unix_ms - 1000);
    let statement = said(held, Act::AddMember(new), true);
    held.author(statement).unwrap();
}

#[tokio::test]
async fn whose_membership_has_ended_is_in_when_an_admin_says_so_and_not_before() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let secret = club(&mut driver, id);
    let (joiner, own) = (identity(5), driver.shared.own);
    ended(driver.networks.get_mut(&id).unwrap(), 5);
    let at = driver.links.insert(link(joiner.peer_id(), clock::now())).unwrap();
    let ask = |driver: &mut Driver| {
        let (serial, key, exporter) = (secret.serial(), secret.key(), [4; 32]);
        let context = JoinContext::new(id.as_bytes(), serial.as_bytes(), &own, &joiner.peer_id(), &exporter);
        let now = Moment::now();
        let name = "again".to_owned();
        let request = JoinRequest::make(&joiner, (serial, &key), &context, name, now.unix_ms, &[3; 32]).unwrap();
        let (answer, answered) = oneshot::channel();
        let from = (joiner.peer_id(), "192.0.2.5:5".parse().unwrap());
        driver.on_join(now, at, from, id, (joiner.public(), &exporter), request, answer);
        answered
    };
    assert!(matches!(ask(&mut driver).try_recv(), Ok(NetResponse::Pending { .. })));
    let mut waits = ask(&mut driver);
    driver.answer_held(id);
    assert!(waits.try_recv().is_err(), "nobody has decided");
    let held = driver.networks.get_mut(&id).unwrap();
    let act = held.approval(Moment::now().unix_ms, &joiner.peer_id()).unwrap();
    held.act(&identity(2), Moment::now().unix_ms, act).unwrap();
    driver.answer_held(id);
    assert!(matches!(waits.try_recv(), Ok(NetResponse::Joined(_))));
}

#[tokio::test]
async fn who_is_let_in_by_a_membership_that_has_ended_is_not_in() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    ended(driver.networks.get_mut(&id).unwrap(), 2);
    let door = let_in_by(&driver.networks[&id], 0);
    let (reply, answer) = oneshot::channel();
    driver.say_standing("join-failed", "an admin said no".to_owned());
    let code = code(id);
    driver.join(&code, None, Duration::from_secs(9), reply);
    driver.on_joined(id, JoinDone::Member(Box::new(door)));
    driver.flush().await;
    assert!(matches!(answer.await.unwrap(), Err(NetworkError::MembershipEnded { .. })));
    assert!(driver.own_health().iter().any(|item| item.code == "join-failed"), "as if it were in");
}

#[tokio::test]
async fn a_join_that_waits_leaves_what_is_held_of_the_network_as_it_is() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let held = driver.networks.get_mut(&id).unwrap();
    ended(held, 2);
    (held.head.name, held.head.seq) = ("home-2".to_owned(), 7);
    held.keep_all();
    held.keep_head();
    let kept = |driver: &Driver| {
        let kept = driver.store.load().unwrap().remove(&id).unwrap();
        let head = kept.head.unwrap();
        assert_eq!((head.name.as_str(), head.seq, kept.statements.len()), ("home-2", 7, 5));
        head.waiting
    };
    let wait = |driver: &mut Driver| {
        let (reply, answer) = oneshot::channel();
        driver.join(&code(id), Some("desk".to_owned()), Duration::from_secs(9), reply);
        driver.on_joined(id, JoinDone::Waiting);
        answer
    };
    let answer = wait(&mut driver);
    driver.flush().await;
    assert_eq!(answer.await.unwrap().unwrap().network, "home-2");
    assert!(kept(&driver).is_some());
    // Started again it has both, and goes on waiting.
    let loaded = load_from(driver.store.clone(), driver.shared.own).unwrap();
    assert_eq!((loaded.networks.len(), loaded.waiting.len()), (1, 1));
    driver.on_joined(id, JoinDone::Failed(NetworkError::Denied { network: "home".into() }));
    driver.flush().await;
    assert!(kept(&driver).is_none() && driver.networks[&id].head.waiting.is_none(), "asked for no more");
    // Who leaves the network does not come back by a join that waits.
    let _answer = wait(&mut driver);
    driver.forget(id);
    driver.flush().await;
    assert!(driver.joining.is_empty() && driver.store.load().unwrap().is_empty());
}

#[tokio::test]
async fn a_join_that_comes_to_nothing_leaves_the_one_that_waits() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    ended(driver.networks.get_mut(&id).unwrap(), 2);
    let ask = |driver: &mut Driver, secret| {
        let (reply, answer) = oneshot::channel();
        driver.join(&code_with(id, secret), Some("desk".to_owned()), Duration::from_secs(9), reply);
        answer
    };
    let fails = |driver: &mut Driver| {
        driver.on_joined(id, JoinDone::Failed(NetworkError::Denied { network: "home".into() }));
    };
    let waits = |driver: &Driver| driver.networks[&id].head.waiting.as_ref().map(|waiting| waiting.code.clone());
    let _waits = ask(&mut driver, 5);
    driver.on_joined(id, JoinDone::Waiting);
    let mut second = ask(&mut driver, 6);
    fails(&mut driver);
    assert!(matches!(second.try_recv(), Ok(Err(NetworkError::Denied { .. }))));
    assert!(driver.next_ask().is_some_and(|at| at <= clock::now()), "it asks with the first again");
    assert_eq!(waits(&driver), Some(code(id)));
    // When that one fails too, nothing waits, on disk neither.
    driver.ask_again(clock::now());
    fails(&mut driver);
    assert!(driver.joining.is_empty() && waits(&driver).is_none());
    // One that waits itself takes the place for good.
    let _waits = ask(&mut driver, 5);
    driver.on_joined(id, JoinDone::Waiting);
    let _waits = ask(&mut driver, 6);
    driver.on_joined(id, JoinDone::Waiting);
    assert_eq!(waits(&driver), Some(code_with(id, 6)));
    fails(&mut driver);
    assert!(driver.joining.is_empty() && waits(&driver).is_none());
    // Nor does a network come back that was left meanwhile.
    let _waits = ask(&mut driver, 5);
    driver.on_joined(id, JoinDone::Waiting);
    let _second = ask(&mut driver, 6);
    driver.forget(id);
    fails(&mut driver);
    assert!(driver.joining.is_empty());
}

#[tokio::test]
async fn a_network_that_is_held_and_asked_for_counts_once() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    ended(driver.networks.get_mut(&id).unwrap(), 2);
    let ask = |driver: &mut Driver, network: NetworkId| {
        let (reply, mut answer) = oneshot::channel();
        driver.join(&code(network), Some("desk".to_owned()), Duration::from_secs(9), reply);
        answer.try_recv().ok().and_then(Result::err)
    };
    let full = Some(NetworkError::TooManyNetworks(63));
    for n in 1..62 {
        assert_eq!(ask(&mut driver, NetworkId::from_bytes([n; 32])), None);
    }
    assert_eq!(ask(&mut driver, id), None);
    assert_eq!(ask(&mut driver, NetworkId::from_bytes([62; 32])), None, "the last place");
    assert_eq!(ask(&mut driver, NetworkId::from_bytes([63; 32])), full);
    driver.joining.remove(&id);
    assert_eq!(ask(&mut driver, id), None, "it has its place");
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_joined_over_nor_left_with_the_key_before() {
    let Rig { mut driver, _state, .. } = rig();
    let other = NetworkId::from_bytes([9; 32]);
    driver.unread.insert(other, "its head".to_owned());
    let (reply, mut answer) = oneshot::channel();
    driver.join(&code(other), None, Duration::from_secs(5), reply);
    assert_eq!(answer.try_recv().ok().and_then(Result::err), Some(NetworkError::Unread("its head".to_owned())));
    assert!(driver.joining.is_empty() && driver.unsaved.is_empty());
    let (reply, mut answer) = oneshot::channel();
    driver.rotate(Rotating { next: Arc::new(identity(6)), file: [1; 32], reply }).await;
    assert!(matches!(answer.try_recv(), Ok(Err(RotationError::Unread(_)))));
    assert!(!driver.retired && driver.store.rotations().unwrap().kept.is_empty());
}

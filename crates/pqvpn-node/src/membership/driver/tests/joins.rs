// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own joins: what a door can do to what is held, and what becomes of one that waits.

use pqvpn_trust::{CompositeVerifier, Inserted};

use super::{
    super::super::{join::Member, network::constitution},
    *,
};

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
fn said(held: &Network, act: Act, good: bool) -> Statement {
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
    let code = Code {
        network: id,
        network_name: "home".into(),
        secret: InviteSecret::from_bytes([5; 16]),
        not_after_s: 2_000_000_000,
        doors: vec![Door { peer: identity(1).peer_id(), addresses: vec!["192.0.2.1:1".parse().unwrap()] }],
    };
    let waiting = Some(WaitingJoin { code: code.to_string(), name: "desk".into() });
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an admin asks of its node.

use pqvpn_wire::network::{Invite, InviteSecret, Params, SignedInvite};

use super::{
    super::super::report::InviteOptions,
    joins::{club, ended, said},
    *,
};

#[tokio::test]
async fn nobody_is_given_a_code_that_is_not_kept() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    club(&mut driver, id);
    let held = driver.networks.get_mut(&id).unwrap();
    held.hint(identity(1).peer_id(), vec![SocketAddr::from(([192, 0, 2, 1], 7))]);
    let (now, open) = (Moment::now().unix_ms, held.invites.values().next().unwrap().invite().clone());
    for n in 0..256_u64 {
        let mut bytes = [6; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let (secret, not_after_ms) = (InviteSecret::from_bytes(bytes), now + 7_200_000);
        let invite = Invite { serial: secret.serial(), not_after_ms, ..open.clone() };
        assert!(held.keep_invite(now, SignedInvite::sign(invite, &identity(2)).unwrap()));
    }
    let ask = |driver: &mut Driver, seconds| {
        let (reply, answer) = oneshot::channel();
        let options = InviteOptions { expires: Duration::from_secs(seconds), ..InviteOptions::default() };
        driver.on_order(Order::Command(NetworkCommand::InviteCreate(NetRef(None), options, reply)));
        answer
    };
    let mut refused = ask(&mut driver, 60);
    assert!(matches!(refused.try_recv(), Ok(Err(NetworkError::TooManyInvites { most: 256, .. }))));
    assert_eq!(driver.networks[&id].made.len(), 0);
    // One that lasts longer takes the place of what ends first.
    let mut made = ask(&mut driver, 86_400);
    driver.flush().await;
    assert!(!matches!(made.try_recv(), Ok(Err(_))) && driver.networks[&id].made.len() == 1);
}

/// What leaving, or giving up this node's say, is refused with.
fn gives_up(driver: &mut Driver, only_its_say: bool) -> Option<NetworkError> {
    if only_its_say {
        let (reply, mut removed) = oneshot::channel();
        let own = driver.shared.own.to_string();
        driver.on_order(Order::Command(NetworkCommand::AdminRemove(NetRef(None), own, reply)));
        return removed.try_recv().ok().and_then(Result::err);
    }
    let (reply, mut left) = oneshot::channel();
    driver.leave(Moment::now(), &NetRef(None), reply);
    left.try_recv().ok().and_then(Result::err)
}

fn last() -> Option<NetworkError> {
    Some(NetworkError::LastAdmin { network: "home".to_owned() })
}

/// Founder 1 says it, and others sign it.
fn all_say(held: &mut Network, act: Act, others: &[u8]) {
    let mut statement = said(held, act, true);
    others.iter().for_each(|n| statement.sign(&identity(*n)).unwrap());
    held.author(statement).unwrap();
}

#[tokio::test]
async fn the_last_admin_that_is_still_there_stays() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    club(&mut driver, id);
    let held = driver.networks.get_mut(&id).unwrap();
    let goodbye = said(held, Act::Leave { key: identity(1).public().clone() }, true);
    held.author(goodbye).unwrap();
    assert_eq!(held.constitution.view().admins.len(), 2, "who leaves can still sign");
    assert_eq!((gives_up(&mut driver, false), gives_up(&mut driver, true)), (last(), last()));
    // Nor is one there whose membership has ended.
    let held = driver.networks.get_mut(&id).unwrap();
    ended(held, 3);
    let third = said(held, Act::AddAdmin { key: identity(3).public().clone() }, true);
    held.author(third).unwrap();
    assert_eq!((gives_up(&mut driver, false), gives_up(&mut driver, true)), (last(), last()));
    let held = driver.networks.get_mut(&id).unwrap();
    let fourth = said(held, Act::AddAdmin { key: identity(4).public().clone() }, true);
    held.author(fourth).unwrap();
    assert_eq!((gives_up(&mut driver, true), gives_up(&mut driver, false)), (None, None), "another is there");
}

#[tokio::test]
async fn of_two_that_sign_together_nobody_leaves_the_other_alone_and_who_is_alone_may_go() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    club(&mut driver, id);
    let held = driver.networks.get_mut(&id).unwrap();
    let params = Params { quorum: 2, ..held.constitution.view().params };
    all_say(held, Act::SetParams(params), &[]);
    assert_eq!(held.constitution.view().quorum(), 2);
    assert_eq!(gives_up(&mut driver, false), last(), "the founder could do nothing by itself");
    // With a third there are two without it.
    let held = driver.networks.get_mut(&id).unwrap();
    all_say(held, Act::AddAdmin { key: identity(3).public().clone() }, &[2]);
    assert!(!held.is_too_few_without_me(Moment::now().unix_ms, false));
    assert!(!held.is_too_few_without_me(Moment::now().unix_ms, true));
    all_say(held, Act::RemoveAdmin { peer: identity(3).peer_id() }, &[2]);
    // The founder has gone all the same: this node could not make another admin, nor put that one out.
    all_say(held, Act::Leave { key: identity(1).public().clone() }, &[]);
    assert_eq!((held.constitution.view().admins.len(), held.others(Moment::now().unix_ms).len()), (2, 2));
    assert_eq!(gives_up(&mut driver, true), last(), "its say would be the last that is there");
    assert_eq!(gives_up(&mut driver, false), None);
}

#[tokio::test]
async fn who_is_alone_in_a_network_gives_up_what_it_likes() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    club(&mut driver, id);
    let held = driver.networks.get_mut(&id).unwrap();
    for n in [1, 3, 4] {
        let goodbye = Act::Leave { key: identity(n).public().clone() };
        let mut statement = Statement::draft(held.constitution.draft(Moment::now().unix_ms, goodbye)).unwrap();
        statement.sign(&identity(n)).unwrap();
        held.author(statement).unwrap();
    }
    assert!(held.others(Moment::now().unix_ms).is_empty());
    assert_eq!(gives_up(&mut driver, true), None);
}

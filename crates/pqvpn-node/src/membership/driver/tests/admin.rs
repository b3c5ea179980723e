// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an admin asks of its node.

use pqvpn_wire::network::{Invite, InviteSecret, SignedInvite};

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

#[tokio::test]
async fn the_last_admin_that_is_still_there_stays() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    club(&mut driver, id);
    let ask = |driver: &mut Driver, remove: bool| {
        let (reply, mut removed) = oneshot::channel();
        if remove {
            let own = driver.shared.own.to_string();
            driver.on_order(Order::Command(NetworkCommand::AdminRemove(NetRef(None), own, reply)));
            return removed.try_recv().ok().and_then(Result::err);
        }
        let (reply, mut left) = oneshot::channel();
        driver.leave(Moment::now(), &NetRef(None), reply);
        left.try_recv().ok().and_then(Result::err)
    };
    let last = Some(NetworkError::LastAdmin { network: "home".to_owned() });
    let held = driver.networks.get_mut(&id).unwrap();
    let goodbye = said(held, Act::Leave { key: identity(1).public().clone() }, true);
    held.author(goodbye).unwrap();
    assert_eq!(held.constitution.view().admins.len(), 2, "who leaves can still sign");
    assert_eq!((ask(&mut driver, false), ask(&mut driver, true)), (last.clone(), last.clone()));
    // Nor is one there whose membership has ended.
    let held = driver.networks.get_mut(&id).unwrap();
    ended(held, 3);
    let third = said(held, Act::AddAdmin { key: identity(3).public().clone() }, true);
    held.author(third).unwrap();
    assert_eq!((ask(&mut driver, false), ask(&mut driver, true)), (last.clone(), last));
    let held = driver.networks.get_mut(&id).unwrap();
    let fourth = said(held, Act::AddAdmin { key: identity(4).public().clone() }, true);
    held.author(fourth).unwrap();
    assert_eq!((ask(&mut driver, true), ask(&mut driver, false)), (None, None), "another is there");
}

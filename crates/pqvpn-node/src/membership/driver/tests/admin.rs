// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an admin asks of its node.

use pqvpn_wire::network::{Invite, InviteSecret, SignedInvite};

use super::{
    super::super::report::InviteOptions,
    joins::club,
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

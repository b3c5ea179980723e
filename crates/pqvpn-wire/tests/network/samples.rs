// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid values of every kind, the same in every run but for the hedged signatures.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed, SEED_LEN},
    peer_id::PeerId,
    proofs::schnorr::JoinContext,
};
use pqvpn_wire::network::{
    Act, Beat, Bundle, Channel, Code, Cover, CoverSecret, Door, Genesis, Invite, InviteSecret, InviteUse, JoinRefusal,
    JoinRequest, MemberDraft, MemberRecord, NetRequest, NetResponse, NetworkId, NewMember, Params, PendingJoin,
    RelayOpened, RelayPair, RelayRefusal, Serial, SignedInvite, Statement, StatementBody, StatementId, SyncState,
};

/// The moment all samples are made at, ms since 1970.
pub(crate) const NOW_MS: u64 = 1_795_000_000_000;
/// The network of all samples but the genesis.
pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([0x4e; 32]);

/// An identity made from one byte.
pub(crate) fn identity(byte: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[byte; SEED_LEN])).unwrap()
}

/// The founder and only admin of all samples.
pub(crate) fn admin() -> &'static Identity {
    static ADMIN: OnceLock<Identity> = OnceLock::new();
    ADMIN.get_or_init(|| identity(1))
}

/// A member.
pub(crate) fn member() -> &'static Identity {
    static MEMBER: OnceLock<Identity> = OnceLock::new();
    MEMBER.get_or_init(|| identity(2))
}

pub(crate) fn v4(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)), 51820)
}

pub(crate) fn v6(last: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, last)), 51820)
}

pub(crate) fn genesis() -> Genesis {
    Genesis {
        name: "home".to_owned(),
        founder: admin().public().clone(),
        founder_name: "laptop".to_owned(),
        secret: [7; 32],
        params: Params::default(),
        disable: Some([8; 32]),
    }
}

pub(crate) fn new_member() -> NewMember {
    NewMember {
        peer: member().peer_id(),
        name: "phone".to_owned(),
        tags: vec!["build".to_owned(), "office".to_owned()],
        level_cap: 2,
        expires_ms: Some(NOW_MS + 1),
        ephemeral_s: Some(600),
        invite: Some(InviteUse { serial: secret().serial(), max_uses: 3 }),
    }
}

/// Every act that is not the genesis.
pub(crate) fn later_acts() -> Vec<Act> {
    vec![
        Act::AddAdmin { key: member().public().clone() },
        Act::RemoveAdmin { peer: member().peer_id() },
        Act::AddMember(new_member()),
        Act::AddMember(NewMember { tags: vec![], expires_ms: None, ephemeral_s: None, invite: None, ..new_member() }),
        Act::Revoke { peer: member().peer_id(), reason: "laptop stolen".to_owned() },
        Act::CancelInvite { serial: secret().serial() },
        Act::SetParams(Params { quorum: 2, approval: true, ..Params::default() }),
        Act::SetPolicy { hash: [9; 32], schema: 1 },
        Act::Checkpoint { seal: [10; 32] },
        Act::rotate(&NETWORK, admin().public().clone(), member()).unwrap(),
        Act::Leave { key: member().public().clone() },
        Act::Disable { secret: [11; 32] },
    ]
}

/// A body with this act where it may stand.
pub(crate) fn body(act: Act) -> StatementBody {
    if matches!(act, Act::Genesis(_)) {
        let network = NetworkId::from_bytes([0; 32]);
        return StatementBody { network, seq: 0, parents: vec![], at_ms: NOW_MS, act };
    }
    let parents = vec![StatementId::from_bytes([1; 32]), StatementId::from_bytes([2; 32])];
    StatementBody { network: NETWORK, seq: 5, parents, at_ms: NOW_MS, act }
}

/// A signed statement with this act.
pub(crate) fn statement(act: Act) -> Statement {
    let mut statement = Statement::draft(body(act)).unwrap();
    statement.sign(admin()).unwrap();
    statement
}

/// Every act, signed by the admin; the last one by two.
pub(crate) fn statements() -> Vec<Statement> {
    let mut all = vec![statement(Act::Genesis(Box::new(genesis())))];
    all.extend(later_acts().into_iter().map(statement));
    let mut two = statement(Act::RemoveAdmin { peer: member().peer_id() });
    two.sign(member()).unwrap();
    all.push(two);
    all
}

pub(crate) fn member_draft() -> MemberDraft {
    MemberDraft {
        network: NETWORK,
        seq: 4,
        issued_ms: NOW_MS,
        not_after_ms: NOW_MS + 86_400_000,
        endpoints: vec![v4(1), v6(1)],
        head: [3; 32],
        left: false,
    }
}

pub(crate) fn member_record() -> MemberRecord {
    MemberRecord::sign(member_draft(), member()).unwrap()
}

pub(crate) fn secret() -> InviteSecret {
    InviteSecret::from_bytes([0x5a; 16])
}

pub(crate) fn invite() -> Invite {
    Invite {
        network: NETWORK,
        serial: secret().serial(),
        point: secret().key().point(),
        issuer: admin().peer_id(),
        tags: vec!["guest".to_owned()],
        level_cap: 2,
        not_after_ms: NOW_MS + 3_600_000,
        max_uses: 5,
        ephemeral_s: Some(3600),
        member_expires_s: None,
        preapproved: true,
    }
}

pub(crate) fn signed_invite() -> SignedInvite {
    SignedInvite::sign(invite(), admin()).unwrap()
}

pub(crate) fn door(byte: u8) -> Door {
    Door { peer: PeerId::from_bytes([byte; 32]), addresses: vec![v4(byte), v6(u16::from(byte))] }
}

pub(crate) fn code() -> Code {
    Code {
        network: NETWORK,
        network_name: "home".to_owned(),
        secret: secret(),
        not_after_s: 1_795_003_600,
        doors: vec![Door { peer: admin().peer_id(), addresses: vec![v4(1)] }],
    }
}

pub(crate) fn context() -> JoinContext {
    JoinContext::new(
        NETWORK.as_bytes(),
        secret().serial().as_bytes(),
        &admin().peer_id(),
        &member().peer_id(),
        &[0x33; 32],
    )
}

pub(crate) fn join_request() -> JoinRequest {
    let secret = secret();
    JoinRequest::make(member(), (secret.serial(), &secret.key()), &context(), "phone".to_owned(), NOW_MS, &[4; 32])
        .unwrap()
}

pub(crate) fn pending() -> PendingJoin {
    let joiner = (secret().serial(), member().public().clone(), "phone".to_owned());
    PendingJoin::vouch(admin(), &NETWORK, ([6; 16], NOW_MS), joiner, false).unwrap()
}

pub(crate) fn sync_state() -> SyncState {
    SyncState {
        head: [1; 32],
        tips: vec![StatementId::from_bytes([2; 32])],
        records: [3; 32],
        invites: [4; 32],
        held: Some(vec![(PeerId::from_bytes([1; 32]), 7), (PeerId::from_bytes([2; 32]), u64::MAX)]),
        want: vec![StatementId::from_bytes([9; 32])],
        cursor: Some(12),
        sent_ms: NOW_MS,
        observed: Some(v6(9)),
        alive: vec![0, 255, 3],
    }
}

pub(crate) fn bundle() -> Bundle {
    Bundle {
        statements: vec![Arc::new(statement(Act::Genesis(Box::new(genesis()))))],
        records: vec![Arc::new(member_record())],
        invites: vec![signed_invite()],
        pending: vec![pending()],
        more: true,
        covers: vec![Arc::new(cover())],
    }
}

pub(crate) fn requests() -> Vec<NetRequest> {
    vec![
        NetRequest::Join(Box::new(join_request())),
        NetRequest::Sync(sync_state()),
        NetRequest::Sync(SyncState::default()),
        NetRequest::Pull { ids: vec![StatementId::from_bytes([1; 32])] },
        NetRequest::Push(Box::new(bundle())),
        NetRequest::Ping,
        NetRequest::Beat(beat()),
        NetRequest::Beat(Beat::default()),
        NetRequest::Introduce { line: bundle().statements },
        NetRequest::RelayOpen(RelayPair { peer: PeerId::from_bytes([8; 32]), channel: channel() }),
        NetRequest::RelayOffer(RelayPair { peer: PeerId::from_bytes([8; 32]), channel: channel() }),
    ]
}

pub(crate) fn refusals() -> Vec<JoinRefusal> {
    vec![
        JoinRefusal::UnknownInvite,
        JoinRefusal::Expired { now_ms: NOW_MS },
        JoinRefusal::UsedUp,
        JoinRefusal::Cancelled,
        JoinRefusal::BadProof,
        JoinRefusal::BadName,
        JoinRefusal::NameTaken { suggestion: "phone-2".to_owned() },
        JoinRefusal::ClockSkew { now_ms: NOW_MS },
        JoinRefusal::Revoked,
        JoinRefusal::Denied,
        JoinRefusal::Full,
        JoinRefusal::Disabled,
        JoinRefusal::Busy,
    ]
}

pub(crate) fn responses() -> Vec<NetResponse> {
    let mut all = vec![
        NetResponse::Joined(Box::new(bundle())),
        NetResponse::Pending { ticket: [5; 16] },
        NetResponse::Elsewhere { admins: vec![door(1), Door { peer: PeerId::from_bytes([2; 32]), addresses: vec![] }] },
        NetResponse::State(sync_state()),
        NetResponse::Bundle(Box::default()),
        NetResponse::Done,
        NetResponse::NotAMember,
        NetResponse::UnknownNetwork,
        NetResponse::Beat(beat()),
        NetResponse::PutOut(Box::new(bundle())),
        NetResponse::RelayOpened(RelayOpened { channel: channel(), rate: 1 << 33 }),
        NetResponse::RelayRefused(RelayRefusal::NotLinked),
    ];
    all.extend(refusals().into_iter().map(NetResponse::Refused));
    all
}

fn channel() -> Channel {
    Channel::new(0x00ab_cdef_0123_4567).unwrap()
}

pub(crate) fn cover() -> Cover {
    let after = vec![StatementId::from_bytes([2; 32]), StatementId::from_bytes([1; 32])];
    Cover::sign(NETWORK, (3, NOW_MS), after, CoverSecret::from_bytes([8; 32]), admin()).unwrap()
}

fn beat() -> Beat {
    let observed = Some(SocketAddr::from(([198, 51, 100, 1], 51820)));
    Beat { digest: [6; 16], observed, alive: vec![0, 7, 255] }
}

/// A serial from one byte.
pub(crate) fn serial(byte: u8) -> Serial {
    Serial::from_bytes([byte; 16])
}

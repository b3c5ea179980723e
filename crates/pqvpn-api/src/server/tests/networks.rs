// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resources of networks, invites, members and the lock.

use pqvpn_node::membership::{
    ActReport, ApproveReport, CreateNetwork, GossipReport, InviteOptions, InviteReport, InviteState, JoinReport,
    LockReport, MemberReport, NetRef, NetworkCommand, NetworkError, NetworkReport, NetworkState, PendingReport,
    ProposalReport, RevokeReport, StatementReport,
};
use pqvpn_wire::dht::NetworkId;
use serde_json::json;

use super::*;

const NAS: PeerId = PeerId::from_bytes([9; 32]);
const SECRET_CODE: &str = "pqvpn1-secret";

fn network() -> NetworkReport {
    NetworkReport {
        id: NetworkId::from_bytes([0x7e; 32]),
        name: "home".into(),
        own_name: "laptop".into(),
        addresses: vec!["fd00::1".parse().unwrap(), "10.77.0.1".parse().unwrap()],
        prefix_v6: "fd00::/48".parse().unwrap(),
        pool: "10.77.0.0/16".parse().unwrap(),
        members: 7,
        online: 5,
        admin: true,
        state: NetworkState::Up,
        waiting: 1,
        head: "ab".repeat(32),
        disable_secret: None,
        health: vec![snapshot::HealthItem {
            level: snapshot::HealthLevel::Warn,
            code: "address-moved",
            text: "10.77.0.9 is nas's".into(),
        }],
        gossip: GossipReport {
            links: 3,
            tx_bytes: 10,
            rx_bytes: 11,
            synced: Some(Duration::from_millis(1_540)),
            counters: vec![("forged-statement", 2)],
        },
    }
}

fn invite(state: InviteState) -> InviteReport {
    InviteReport {
        network: "home".into(),
        code: None,
        serial: "1a".repeat(16),
        issuer: NAS,
        not_after_ms: 5,
        max_uses: 2,
        uses: 1,
        tags: vec!["guest".into()],
        ephemeral: Some(Duration::from_secs(60)),
        preapproved: true,
        level_cap: 3,
        state,
    }
}

fn pending() -> PendingReport {
    PendingReport {
        network: "home".into(),
        peer: NAS,
        name: "nas".into(),
        serial: "1a".repeat(16),
        since_ms: 4,
        tags: Vec::new(),
    }
}

fn member() -> MemberReport {
    MemberReport {
        network: "home".into(),
        peer: NAS,
        name: "nas".into(),
        addresses: vec!["fd00::2".parse().unwrap()],
        endpoints: vec!["203.0.113.5:41641".parse().unwrap()],
        online: true,
        own: false,
        admin: false,
        tags: vec!["guest".into()],
        level_cap: 3,
        ephemeral: false,
        added_ms: 1,
        expires_ms: None,
        seen_ms: Some(2),
        record_until_ms: Some(3),
        head: Some("ab".repeat(32)),
    }
}

fn act(what: &str, in_force: bool) -> ActReport {
    let what = what.to_owned();
    ActReport { network: "home".into(), id: "cd".repeat(32), what, in_force, have: 1, need: 2, pushed_to: 4 }
}

fn proposal(contests: bool) -> ProposalReport {
    let (what, signers) = ("add admin vps".into(), vec!["laptop".into()]);
    ProposalReport { id: "cd".repeat(32), what, have: 1, need: 2, signers, contests }
}

fn lock() -> LockReport {
    LockReport {
        network: "home".into(),
        id: NetworkId::from_bytes([0x7e; 32]),
        admins: vec![(NAS, "nas".into())],
        quorum: 2,
        statements: 9,
        head: "ab".repeat(32),
        head_age: None,
        proposals: vec![proposal(false)],
        disk_bytes: 4096,
        admin: true,
        can_disable: true,
        disabled: false,
    }
}

/// Answers as a node would that is in `home` alone, where `nas` is a member.
fn play(command: Command) {
    let Command::Network(command) = command else { panic!("{command:?}") };
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not expected here fails the test")]
    match command {
        NetworkCommand::NetList(reply) => drop(reply.send(vec![network()])),
        NetworkCommand::NetCreate(new, reply) => drop(reply.send(created(&new))),
        NetworkCommand::NetLeave(NetRef(None), reply) => {
            let error = NetworkError::LastAdmin { network: "home".into() };
            drop(reply.send(Err(error)));
        }
        NetworkCommand::NetEnable(NetRef(Some(_)), on, reply) => {
            let state = if on { NetworkState::Syncing } else { NetworkState::Down };
            drop(reply.send(Ok(NetworkReport { state, ..network() })));
        }
        NetworkCommand::InviteCreate(_, options, reply) => drop(reply.send(invited(&options))),
        NetworkCommand::InviteList(_, reply) => {
            drop(reply.send(Ok(vec![invite(InviteState::Open), invite(InviteState::UsedUp)])));
        }
        NetworkCommand::InviteCancel(_, serial, reply) => {
            assert_eq!(serial, "1a1a");
            drop(reply.send(Ok(act("cancel invite", true))));
        }
        NetworkCommand::Join(code, name, wait, reply) => drop(reply.send(joined(&code, name, wait))),
        NetworkCommand::JoinRequests(_, reply) => drop(reply.send(Ok(vec![pending()]))),
        NetworkCommand::Approve(_, who, reply) => {
            let name = who;
            drop(reply.send(Ok(ApproveReport { network: "home".into(), peer: NAS, name, told: false })));
        }
        NetworkCommand::Deny(_, _, reply) => drop(reply.send(Ok(pending()))),
        NetworkCommand::Members(_, reply) => drop(reply.send(Ok(vec![member()]))),
        NetworkCommand::Revoke(_, who, reason, reply) => drop(reply.send(revoked(&who, &reason))),
        NetworkCommand::LockStatus(_, reply) => drop(reply.send(Ok(lock()))),
        NetworkCommand::LockLog(_, limit, reply) => {
            let statement = StatementReport {
                id: "cd".repeat(32),
                seq: limit as u64,
                at_ms: 6,
                act: "add-member",
                what: "add nas".into(),
                signers: vec!["laptop".into()],
            };
            drop(reply.send(Ok(vec![statement])));
        }
        NetworkCommand::LockSign(_, id, reply) => drop(reply.send(Ok(act(&id, true)))),
        NetworkCommand::AdminAdd(_, who, reply) | NetworkCommand::AdminRemove(_, who, reply) => {
            drop(reply.send(Ok(act(&who, false))));
        }
        NetworkCommand::LockDisable(_, _, reply) => {
            drop(reply.send(Err(NetworkError::WrongDisableSecret { network: "home".into() })));
        }
        other => panic!("{other:?}"),
    }
}

fn created(new: &CreateNetwork) -> Result<NetworkReport, NetworkError> {
    if new.name != "home" {
        return Err(NetworkError::BadName(new.name.clone()));
    }
    let pool = new.pool.unwrap_or_else(|| network().pool);
    Ok(NetworkReport { pool, disable_secret: Some("5e".repeat(32)), ..network() })
}

fn invited(options: &InviteOptions) -> Result<InviteReport, NetworkError> {
    let usual = invite(InviteState::Open);
    Ok(InviteReport {
        code: Some(SECRET_CODE.into()),
        not_after_ms: options.expires.as_secs(),
        max_uses: options.uses,
        tags: options.tags.clone(),
        ephemeral: options.ephemeral,
        preapproved: options.preapproved,
        level_cap: options.level_cap,
        ..usual
    })
}

fn joined(code: &str, name: Option<String>, wait: Duration) -> Result<JoinReport, NetworkError> {
    assert!(wait <= Duration::from_secs(3600));
    let network = "home".to_owned();
    match code {
        SECRET_CODE => Ok(JoinReport {
            id: NetworkId::from_bytes([0x7e; 32]),
            network,
            name: name.unwrap_or_else(|| "laptop".into()),
            addresses: Vec::new(),
            members: 0,
            waiting_for_approval: true,
        }),
        "expired" => Err(NetworkError::InviteExpired { network, ago_s: 7_300 }),
        "typo" => Err(NetworkError::CodeChecksum { suggestion: Some(SECRET_CODE.into()) }),
        _ => Err(NetworkError::NotACode),
    }
}

fn revoked(who: &str, reason: &str) -> Result<RevokeReport, NetworkError> {
    let network = "home".to_owned();
    if who != "nas" {
        return Err(NetworkError::UnknownMember { network, who: who.into() });
    }
    assert_eq!(reason, "lost");
    Ok(RevokeReport {
        network,
        peer: NAS,
        name: who.into(),
        pushed_to: 4,
        online: 5,
        was_admin: true,
        act: act("revoke", true),
    })
}

#[tokio::test]
async fn networks_are_listed_and_made() {
    let daemon = Daemon::start(play);
    let (code, list) = daemon.get("/v1/networks").await;
    assert_eq!((code, &list["schema"]), (200, &1.into()));
    let home = &list["networks"][0];
    assert_eq!((&home["name"], &home["state"], &home["own_name"]), (&"home".into(), &"up".into(), &"laptop".into()));
    assert_eq!((&home["id"], &home["pool"]), (&"7e".repeat(32).into(), &"10.77.0.0/16".into()));
    assert_eq!((&home["members"], &home["online"], &home["waiting"]), (&7.into(), &5.into(), &1.into()));
    assert_eq!(
        (&home["gossip"]["synced_s"], &home["gossip"]["counters"]),
        (&1.5.into(), &json!({"forged-statement": 2}))
    );
    assert_eq!(home["health"][0]["code"], "address-moved");

    let (code, made) = daemon.post("/v1/networks", r#"{"name":"home","pool":"10.9.0.0/16"}"#).await;
    assert_eq!((code, &made["network"]["pool"]), (200, &"10.9.0.0/16".into()));
    assert_eq!(made["disable_secret"], "5e".repeat(32));
    let (code, error) = daemon.post("/v1/networks", r#"{"name":"home","pool":"10.9/16"}"#).await;
    assert_eq!((code, &error["code"]), (400, &"bad-request".into()));
    let (code, error) = daemon.post("/v1/networks", r#"{"name":"Home!"}"#).await;
    assert_eq!((code, &error["code"]), (400, &"bad-request".into()));
    assert!(error["why"].as_str().unwrap().contains("Home!"), "{error}");
}

#[tokio::test]
async fn networks_are_switched_and_left() {
    let daemon = Daemon::start(play);
    let (_, down) = daemon.post("/v1/networks/down", r#"{"network":"home"}"#).await;
    assert_eq!(down["network"]["state"], "down");
    assert!(down.get("disable_secret").is_none());
    let (_, up) = daemon.post("/v1/networks/up", r#"{"network":"home"}"#).await;
    assert_eq!(up["network"]["state"], "syncing");
    let (code, error) = daemon.post("/v1/networks/leave", "{}").await;
    assert_eq!((code, &error["code"]), (403, &"not-allowed".into()));
}

#[tokio::test]
async fn an_invite_has_its_code_once_and_defaults_of_a_day_and_one_use() {
    let daemon = Daemon::start(play);
    let (code, made) = daemon.post("/v1/invites", "{}").await;
    assert_eq!((code, &made["code"], &made["schema"]), (200, &SECRET_CODE.into(), &1.into()));
    assert_eq!((&made["not_after_ms"], &made["max_uses"], &made["level_cap"]), (&86_400.into(), &1.into(), &3.into()));
    let asked = r#"{"expires_s":60,"uses":9,"tags":["a"],"ephemeral_s":30,"preapproved":true,"level_cap":1}"#;
    let (_, made) = daemon.post("/v1/invites", asked).await;
    assert_eq!((&made["not_after_ms"], &made["max_uses"], &made["level_cap"]), (&60.into(), &9.into(), &1.into()));
    assert_eq!((&made["tags"], &made["ephemeral_s"], &made["preapproved"]), (&json!(["a"]), &30.into(), &true.into()));
    let (_, list) = daemon.post("/v1/invites/list", "{}").await;
    assert!(list["invites"].as_array().unwrap().iter().all(|invite| invite.get("code").is_none()), "{list}");
    assert_eq!(list["invites"][1]["state"], "used up");
    let (_, act) = daemon.post("/v1/invites/cancel", r#"{"serial":"1a1a"}"#).await;
    assert_eq!((&act["in_force"], &act["pushed_to"]), (&true.into(), &4.into()));
}

#[tokio::test]
async fn a_code_that_fails_says_why_in_one_stable_word() {
    let daemon = Daemon::start(play);
    let join =
        async |code: &str| daemon.post("/v1/join", &format!(r#"{{"code":"{code}","timeout_ms":99999999}}"#)).await;
    let (code, joined) = join(SECRET_CODE).await;
    assert_eq!((code, &joined["waiting_for_approval"], &joined["name"]), (200, &true.into(), &"laptop".into()));
    let (code, error) = join("expired").await;
    assert_eq!((code, &error["code"]), (403, &"invite-expired".into()));
    assert!(error["why"].as_str().unwrap().contains("2 h ago"), "{error}");
    let (code, error) = join("typo").await;
    assert_eq!((code, &error["code"]), (400, &"bad-code".into()));
    assert!(error["why"].as_str().unwrap().contains(SECRET_CODE), "{error}");
    let (code, error) = join("hello").await;
    assert_eq!((code, &error["code"]), (400, &"bad-code".into()));
}

#[test]
fn a_code_and_a_secret_do_not_show_in_debug_output() {
    let join = model::JoinRequest { code: SECRET_CODE.into(), name: None, timeout_ms: 1 };
    let disable = model::DisableRequest { network: None, secret: SECRET_CODE.into() };
    let invite = model::Invite::from(invited(&InviteOptions::default()).unwrap());
    assert!(!format!("{join:?} {disable:?} {invite:?}").contains(SECRET_CODE));
}

#[tokio::test]
async fn who_waits_is_let_in_or_turned_away() {
    let daemon = Daemon::start(play);
    let (_, list) = daemon.post("/v1/requests", "{}").await;
    assert_eq!((&list["requests"][0]["name"], &list["requests"][0]["since_ms"]), (&"nas".into(), &4.into()));
    let (_, approved) = daemon.post("/v1/requests/approve", r#"{"who":"nas"}"#).await;
    assert_eq!((&approved["name"], &approved["told"]), (&"nas".into(), &false.into()));
    let (_, denied) = daemon.post("/v1/requests/deny", r#"{"who":"nas","network":"home"}"#).await;
    assert_eq!((&denied["schema"], &denied["peer_id"]), (&1.into(), &NAS.to_string().into()));
}

#[tokio::test]
async fn members_are_listed_and_revoked() {
    let daemon = Daemon::start(play);
    let (_, list) = daemon.post("/v1/members", "{}").await;
    let nas = &list["members"][0];
    assert_eq!((&nas["peer_id"], &nas["online"], &nas["own"]), (&NAS.to_string().into(), &true.into(), &false.into()));
    assert_eq!((&nas["expires_ms"], &nas["endpoints"]), (&Value::Null, &json!(["203.0.113.5:41641"])));
    let (_, revoked) = daemon.post("/v1/members/revoke", r#"{"who":"nas","reason":"lost"}"#).await;
    assert_eq!(
        (&revoked["pushed_to"], &revoked["online"], &revoked["was_admin"]),
        (&4.into(), &5.into(), &true.into())
    );
    let (code, error) = daemon.post("/v1/members/revoke", r#"{"who":"nobody"}"#).await;
    assert_eq!((code, &error["code"]), (404, &"unknown-member".into()));
}

#[tokio::test]
async fn the_lock_shows_what_waits_and_takes_signatures() {
    let daemon = Daemon::start(play);
    let (_, lock) = daemon.post("/v1/lock/status", "{}").await;
    assert_eq!((&lock["quorum"], &lock["admins"][0]["name"]), (&2.into(), &"nas".into()));
    assert_eq!((&lock["proposals"][0]["have"], &lock["head_age_s"]), (&1.into(), &Value::Null));
    let (_, log) = daemon.post("/v1/lock/log", "{}").await;
    assert_eq!((&log["statements"][0]["seq"], &log["statements"][0]["act"]), (&20.into(), &"add-member".into()));
    let (_, signed) = daemon.post("/v1/lock/sign", r#"{"statement":"cdcd"}"#).await;
    assert_eq!((&signed["what"], &signed["in_force"]), (&"cdcd".into(), &true.into()));
    for verb in ["add", "remove"] {
        let (_, act) = daemon.post(&format!("/v1/lock/{verb}"), r#"{"who":"vps"}"#).await;
        assert_eq!((&act["in_force"], &act["have"], &act["need"]), (&false.into(), &1.into(), &2.into()), "{verb}");
    }
    let (code, error) = daemon.post("/v1/lock/disable", r#"{"secret":"5e"}"#).await;
    assert_eq!((code, &error["code"]), (403, &"not-allowed".into()));
}

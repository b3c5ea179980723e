// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node that the tests play: what it says to each command, always the same.

use std::{sync::Mutex, time::Duration};

use pqvpn_api::model;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::{
    config::DnsMode,
    membership::{
        ActReport, ApproveReport, GossipReport, InviteOptions, InviteReport, InviteState, JoinReport, LockReport,
        MemberReport, NetRef, NetworkCommand, NetworkError, NetworkReport, NetworkState, PendingReport, ProposalReport,
        RevokeReport, StatementReport,
    },
    names::{DnsCounts, DnsHost, DnsReport, DnsServer},
    snapshot::{HealthItem, HealthLevel},
};
use pqvpn_wire::{
    dht::NetworkId,
    network::{Code, Door, InviteSecret},
};

pub(super) const NAS: PeerId = PeerId::from_bytes([9; 32]);
const HOME: NetworkId = NetworkId::from_bytes([0x7e; 32]);

pub(super) fn identity() -> model::Identity {
    let peer_id = PeerId::from_bytes([7; 32]).to_string();
    let name = "laptop".to_owned();
    model::Identity { schema: 1, peer_id, name, addresses: Vec::new(), fingerprint: "ab".into(), state_dir: None }
}

/// A code that checks out; what it leads to is told by the last byte of its secret.
pub(super) fn code(kind: u8) -> String {
    let mut secret = [5; 16];
    secret[15] = kind;
    let door = Door { peer: NAS, addresses: vec!["203.0.113.5:41641".parse().unwrap()] };
    Code {
        network: HOME,
        network_name: "home".into(),
        secret: InviteSecret::from_bytes(secret),
        not_after_s: 2_000_000_000,
        doors: vec![door],
    }
    .to_string()
}

pub(super) const OPEN: u8 = 0;
pub(super) const QUEUE: u8 = 1;
pub(super) const EXPIRED: u8 = 2;
pub(super) const TAKEN: u8 = 3;
pub(super) const SILENT: u8 = 4;
/// This node is a member, and knows it.
pub(super) const MEMBER: u8 = 5;
/// This node is a member, and knows it no longer.
pub(super) const KNOWN: u8 = 6;

pub(super) fn play(command: NetworkCommand, seen: &Mutex<Vec<String>>) {
    let see = |order: String| seen.lock().unwrap().push(order);
    match command {
        NetworkCommand::NetList(reply) => {
            let mut networks = vec![network(NetworkState::Up)];
            if seen.lock().unwrap().iter().any(|order| order.contains("name: \"work\"")) {
                networks.push(NetworkReport { name: "work".into(), ..network(NetworkState::Up) });
            }
            drop(reply.send(networks));
        }
        NetworkCommand::NetCreate(new, reply) => {
            see(format!("{new:?}"));
            let secret = Some("5e".repeat(32));
            drop(reply.send(Ok(NetworkReport { name: new.name, disable_secret: secret, ..network(NetworkState::Up) })));
        }
        NetworkCommand::NetLeave(NetRef(name), reply) if name.as_deref() == Some("work") => {
            drop(reply.send(Err(NetworkError::UnknownNetwork("work".into()))));
        }
        NetworkCommand::NetLeave(_, reply) => drop(reply.send(Ok(network(NetworkState::Down)))),
        NetworkCommand::NetEnable(_, on, reply) => {
            drop(reply.send(Ok(network(if on { NetworkState::Up } else { NetworkState::Down }))));
        }
        NetworkCommand::InviteCreate(NetRef(name), options, reply) => {
            see(format!("{name:?} {options:?}"));
            drop(reply.send(Ok(invite(&options))));
        }
        NetworkCommand::InviteList(_, reply) => drop(reply.send(Ok(vec![invite(&InviteOptions::default())]))),
        NetworkCommand::InviteCancel(_, serial, reply) => drop(reply.send(Ok(act(&format!("cancel {serial}"), true)))),
        NetworkCommand::Join(text, name, wait, reply) => {
            see(format!("join {name:?} {wait:?}"));
            drop(reply.send(join(&text, name, wait)));
        }
        NetworkCommand::JoinRequests(_, reply) => drop(reply.send(Ok(vec![pending()]))),
        NetworkCommand::Approve(NetRef(None), who, reply) if who == "nobody" => {
            drop(reply.send(Err(NetworkError::WhichNetwork("home, work".into()))));
        }
        NetworkCommand::Approve(_, name, reply) => {
            drop(reply.send(Ok(ApproveReport { network: "home".into(), peer: NAS, name, told: true })));
        }
        NetworkCommand::Deny(_, _, reply) => drop(reply.send(Ok(pending()))),
        NetworkCommand::Members(_, reply) => drop(reply.send(Ok(vec![member(true), member(false)]))),
        NetworkCommand::Revoke(_, who, reason, reply) => {
            see(format!("revoke {who} {reason}"));
            drop(reply.send(revoke(who)));
        }
        NetworkCommand::LockStatus(_, reply) => drop(reply.send(Ok(lock()))),
        NetworkCommand::LockLog(_, _, reply) => drop(reply.send(Ok(vec![statement()]))),
        NetworkCommand::LockSign(_, id, reply) => drop(reply.send(Ok(act(&format!("sign {id}"), true)))),
        NetworkCommand::LockContest(_, ids, who, reply) => {
            see(format!("contest {ids:?} {who:?}"));
            let (have, need) = if ids == ["lost"] { (2, 2) } else { (1, 2) };
            drop(reply.send(Ok(ActReport { have, need, ..act("nas may sign no more", false) })));
        }
        NetworkCommand::AdminAdd(_, who, reply) => drop(reply.send(Ok(act(&format!("add {who}"), false)))),
        NetworkCommand::AdminRemove(_, _, reply) => {
            let error = NetworkError::QuorumLost { network: "home".into(), have: 1, need: 2 };
            drop(reply.send(Err(error)));
        }
        NetworkCommand::LockDisable(_, secret, reply) => {
            assert_eq!(secret, "5e5e");
            drop(reply.send(Ok(act("disable", true))));
        }
        other => panic!("{other:?}"),
    }
}

fn network(state: NetworkState) -> NetworkReport {
    NetworkReport {
        id: HOME,
        name: "home".into(),
        own_name: "laptop".into(),
        addresses: vec!["fd00::1".parse().unwrap(), "10.77.0.1".parse().unwrap()],
        prefix_v6: "fd00::/48".parse().unwrap(),
        pool: "10.77.0.0/16".parse().unwrap(),
        members: 7,
        online: 5,
        admin: true,
        state,
        waiting: 1,
        head: "ab".repeat(32),
        disable_secret: None,
        health: vec![HealthItem { level: HealthLevel::Warn, code: "x", text: "the name is told once".into() }],
        gossip: GossipReport::default(),
    }
}

fn invite(options: &InviteOptions) -> InviteReport {
    InviteReport {
        network: "home".into(),
        code: Some(code(OPEN)),
        serial: "1a".repeat(16),
        issuer: NAS,
        not_after_ms: 1_795_308_600_000,
        max_uses: options.uses,
        uses: 0,
        tags: options.tags.clone(),
        ephemeral: options.ephemeral,
        preapproved: options.preapproved,
        level_cap: options.level_cap,
        state: InviteState::Open,
    }
}

fn join(text: &str, name: Option<String>, wait: Duration) -> Result<JoinReport, NetworkError> {
    let network = "home".to_owned();
    let kind = text.parse::<Code>().unwrap().secret.expose()[15];
    let waiting = kind == QUEUE;
    match kind {
        EXPIRED => return Err(NetworkError::InviteExpired { network, ago_s: 90_000 }),
        TAKEN => return Err(NetworkError::NameTaken { network, name: "nas".into(), suggestion: "nas-2".into() }),
        MEMBER => return Err(NetworkError::AlreadyMember(network, "laptop".into())),
        SILENT => return Err(NetworkError::NobodyAnswers { network, waited: wait, why: "no route".into() }),
        _ => {}
    }
    Ok(JoinReport {
        id: HOME,
        network,
        name: if kind == KNOWN { "laptop".into() } else { name.unwrap_or_else(|| "nas".into()) },
        addresses: if waiting { Vec::new() } else { vec!["10.77.9.2".parse().unwrap()] },
        members: if waiting { 0 } else { 3 },
        waiting_for_approval: waiting,
    })
}

fn pending() -> PendingReport {
    let name = "n\x1b[2Jas".to_owned();
    PendingReport { network: "home".into(), peer: NAS, name, serial: "1a".repeat(16), since_ms: 4, tags: Vec::new() }
}

fn member(own: bool) -> MemberReport {
    MemberReport {
        network: "home".into(),
        peer: if own { PeerId::from_bytes([7; 32]) } else { NAS },
        name: if own { "laptop".into() } else { "nas".into() },
        addresses: if own {
            vec!["fd00::1".parse().unwrap(), "10.77.9.1".parse().unwrap()]
        } else {
            vec!["fd00::2".parse().unwrap(), "10.77.9.2".parse().unwrap()]
        },
        endpoints: vec!["203.0.113.5:41641".parse().unwrap()],
        online: true,
        own,
        admin: own,
        tags: vec!["guest".into()],
        level_cap: 3,
        ephemeral: !own,
        added_ms: 1,
        expires_ms: None,
        seen_ms: Some(2),
        record_until_ms: Some(3),
        head: None,
    }
}

fn revoke(who: String) -> Result<RevokeReport, NetworkError> {
    let network = "home".to_owned();
    if who == "nobody" {
        return Err(NetworkError::UnknownMember { network, who });
    }
    if who == "peer" {
        let act = act("peer is revoked", false);
        return Ok(RevokeReport { network, peer: NAS, name: who, pushed_to: 4, online: 5, was_admin: true, act });
    }
    if who == "boss" {
        return Err(NetworkError::NotAdmin { network, admins: "boss".into() });
    }
    Ok(RevokeReport {
        network,
        peer: NAS,
        name: who,
        pushed_to: 4,
        online: 5,
        was_admin: false,
        act: act("revoke", true),
    })
}

fn proposal(contests: bool) -> ProposalReport {
    let (what, signers) = ("add admin vps".into(), vec!["laptop".into()]);
    ProposalReport { id: "cd".repeat(32), what, have: 1, need: 2, signers, contests }
}

fn lock() -> LockReport {
    LockReport {
        network: "home".into(),
        id: HOME,
        admins: vec![(NAS, "nas".into()), (PeerId::from_bytes([7; 32]), "laptop".into())],
        quorum: 2,
        statements: 9,
        head: "ab".repeat(32),
        head_age: None,
        proposals: vec![proposal(false), ProposalReport { id: "ef".repeat(32), ..proposal(true) }],
        disk_bytes: 4096,
        admin: true,
        can_disable: true,
        disabled: false,
    }
}

fn statement() -> StatementReport {
    StatementReport {
        id: "cd".repeat(32),
        seq: 3,
        at_ms: 1_795_308_600_000,
        act: "add-member",
        what: "add nas".into(),
        signers: vec!["laptop".into()],
    }
}

pub(super) fn dns() -> DnsReport {
    let addresses = vec!["fd00::2".parse().unwrap(), "10.77.9.2".parse().unwrap()];
    DnsReport {
        mode: DnsMode::Auto,
        host: DnsHost::Untouched,
        servers: vec![DnsServer { address: "fd00::1".parse().unwrap(), error: Some("port 53 is in use".into()) }],
        names: vec![("nas.home.pqvpn".into(), addresses)],
        ambiguous: vec!["work".into()],
        queries: DnsCounts::default(),
        trouble: None,
    }
}

fn act(what: &str, in_force: bool) -> ActReport {
    let what = what.to_owned();
    ActReport { network: "home".into(), id: "cd".repeat(32), what, in_force, have: 1, need: 2, pushed_to: 4 }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps the reports of networks to the JSON model.

use pqvpn_node::{membership::report, names};

use super::{
    Act, Admin, Approved, Denied, Dns, DnsName, DnsQueries, DnsServer, Gossip, Health, Invite, InviteCreated, Joined,
    Lock, Member, NetworkAnswer, NetworkInfo, Pending, Proposal, Revoked, Statement,
    from_node::{network_id, rounded},
};
use crate::SCHEMA;

fn seconds(age: std::time::Duration) -> f64 {
    rounded(age.as_secs_f64(), 10.0)
}

impl From<report::NetworkReport> for NetworkInfo {
    fn from(network: report::NetworkReport) -> Self {
        Self {
            name: network.name,
            id: network_id(&network.id),
            state: network.state.as_str().to_owned(),
            own_name: network.own_name,
            addresses: network.addresses,
            prefix_v6: network.prefix_v6.to_string(),
            pool: network.pool.to_string(),
            members: network.members,
            online: network.online,
            admin: network.admin,
            waiting: network.waiting,
            head: network.head,
            health: network.health.into_iter().map(Health::from).collect(),
            gossip: network.gossip.into(),
        }
    }
}

impl From<report::NetworkReport> for NetworkAnswer {
    fn from(mut network: report::NetworkReport) -> Self {
        Self { schema: SCHEMA, disable_secret: network.disable_secret.take(), network: network.into() }
    }
}

impl From<report::GossipReport> for Gossip {
    fn from(gossip: report::GossipReport) -> Self {
        Self {
            links: gossip.links,
            tx_bytes: gossip.tx_bytes,
            rx_bytes: gossip.rx_bytes,
            synced_s: gossip.synced.map(seconds),
            counters: gossip.counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}

impl From<report::InviteReport> for Invite {
    fn from(invite: report::InviteReport) -> Self {
        Self {
            network: invite.network,
            code: invite.code,
            serial: invite.serial,
            issuer: invite.issuer.to_string(),
            not_after_ms: invite.not_after_ms,
            max_uses: invite.max_uses,
            uses: invite.uses,
            tags: invite.tags,
            ephemeral_s: invite.ephemeral.map(|span| span.as_secs()),
            preapproved: invite.preapproved,
            level_cap: invite.level_cap,
            state: invite.state.as_str().to_owned(),
        }
    }
}

impl From<report::InviteReport> for InviteCreated {
    fn from(invite: report::InviteReport) -> Self {
        Self { schema: SCHEMA, invite: invite.into() }
    }
}

impl From<report::JoinReport> for Joined {
    fn from(joined: report::JoinReport) -> Self {
        Self {
            schema: SCHEMA,
            network: joined.network,
            id: network_id(&joined.id),
            name: joined.name,
            addresses: joined.addresses,
            members: joined.members,
            waiting_for_approval: joined.waiting_for_approval,
        }
    }
}

impl From<report::PendingReport> for Pending {
    fn from(pending: report::PendingReport) -> Self {
        Self {
            network: pending.network,
            peer_id: pending.peer.to_string(),
            name: pending.name,
            serial: pending.serial,
            since_ms: pending.since_ms,
            tags: pending.tags,
        }
    }
}

impl From<report::PendingReport> for Denied {
    fn from(pending: report::PendingReport) -> Self {
        Self { schema: SCHEMA, request: pending.into() }
    }
}

impl From<report::ApproveReport> for Approved {
    fn from(approved: report::ApproveReport) -> Self {
        Self {
            schema: SCHEMA,
            network: approved.network,
            peer_id: approved.peer.to_string(),
            name: approved.name,
            told: approved.told,
        }
    }
}

impl From<report::MemberReport> for Member {
    fn from(member: report::MemberReport) -> Self {
        Self {
            network: member.network,
            peer_id: member.peer.to_string(),
            name: member.name,
            addresses: member.addresses,
            endpoints: member.endpoints,
            online: member.online,
            own: member.own,
            admin: member.admin,
            tags: member.tags,
            level_cap: member.level_cap,
            ephemeral: member.ephemeral,
            added_ms: member.added_ms,
            expires_ms: member.expires_ms,
            seen_ms: member.seen_ms,
            record_until_ms: member.record_until_ms,
            head: member.head,
        }
    }
}

impl From<report::RevokeReport> for Revoked {
    fn from(revoked: report::RevokeReport) -> Self {
        Self {
            schema: SCHEMA,
            network: revoked.network,
            peer_id: revoked.peer.to_string(),
            name: revoked.name,
            pushed_to: revoked.pushed_to,
            online: revoked.online,
            was_admin: revoked.was_admin,
            id: revoked.act.id,
            in_force: revoked.act.in_force,
            have: revoked.act.have,
            need: revoked.act.need,
        }
    }
}

impl From<report::LockReport> for Lock {
    fn from(lock: report::LockReport) -> Self {
        let admin = |(peer, name): (pqvpn_crypto::peer_id::PeerId, String)| Admin { peer_id: peer.to_string(), name };
        Self {
            schema: SCHEMA,
            network: lock.network,
            id: network_id(&lock.id),
            admins: lock.admins.into_iter().map(admin).collect(),
            quorum: lock.quorum,
            statements: lock.statements,
            head: lock.head,
            head_age_s: lock.head_age.map(seconds),
            proposals: lock.proposals.into_iter().map(Proposal::from).collect(),
            disk_bytes: lock.disk_bytes,
            admin: lock.admin,
            can_disable: lock.can_disable,
            disabled: lock.disabled,
        }
    }
}

impl From<report::ProposalReport> for Proposal {
    fn from(proposal: report::ProposalReport) -> Self {
        let report::ProposalReport { id, what, have, need, signers, contests } = proposal;
        Self { id, what, have, need, signers, contests }
    }
}

impl From<report::StatementReport> for Statement {
    fn from(statement: report::StatementReport) -> Self {
        let report::StatementReport { id, seq, at_ms, act, what, signers } = statement;
        Self { id, seq, at_ms, act: act.to_owned(), what, signers }
    }
}

impl From<report::ActReport> for Act {
    fn from(act: report::ActReport) -> Self {
        let report::ActReport { network, id, what, in_force, have, need, pushed_to } = act;
        Self { schema: SCHEMA, network, id, what, in_force, have, need, pushed_to }
    }
}

impl From<names::DnsReport> for Dns {
    fn from(dns: names::DnsReport) -> Self {
        let (host, at) = match dns.host {
            names::DnsHost::Nothing => ("nobody", None),
            names::DnsHost::Untouched => ("untouched", None),
            names::DnsHost::Resolved { interface } => ("systemd-resolved", Some(interface)),
            names::DnsHost::ResolvConf { path } => ("resolv-conf", Some(path.display().to_string())),
            _ => ("other", None),
        };
        let server = |server: names::DnsServer| DnsServer { address: server.address, error: server.error };
        let counts = dns.queries;
        Self {
            schema: SCHEMA,
            zone: names::ZONE.to_owned(),
            mode: dns.mode.name().to_owned(),
            host: host.to_owned(),
            at,
            servers: dns.servers.into_iter().map(server).collect(),
            names: dns.names.into_iter().map(|(name, addresses)| DnsName { name, addresses }).collect(),
            ambiguous: dns.ambiguous,
            queries: DnsQueries {
                answered: counts.answered,
                negative: counts.negative,
                refused: counts.refused,
                dropped: counts.dropped,
            },
            trouble: dns.trouble,
        }
    }
}

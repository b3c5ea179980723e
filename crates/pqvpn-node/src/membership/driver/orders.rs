// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people ask of the networks, and the answers.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER_PERMISSIVE;
use pqvpn_wire::network::{Act, Code, Invite, InviteSecret, NetworkId, SignedInvite, misleads};

use super::{
    super::{
        command::{NetworkCommand, Reply},
        error::NetworkError,
        event::Order,
        network::{MAX_INVITES, Moment, Network, find_member, hex, is_prefix},
        report::{
            ActReport, ApproveReport, GossipReport, InviteOptions, InviteReport, NetRef, NetworkReport, RevokeReport,
        },
    },
    Driver,
};
use crate::{clock, entropy, names::bare};

/// How long somebody waits for others to have heard what was just decided.
pub(super) const HEARD: Duration = Duration::from_secs(2);
/// Longest life of an invite.
const MAX_INVITE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest silence after which an ephemeral member vanishes.
const MIN_EPHEMERAL: Duration = Duration::from_secs(10);
/// Most uses of one invite.
const MAX_USES: u32 = 65_535;
/// Statements of a log in one answer.
const MAX_LOG: usize = 10_000;
type Waiter<T> = Box<dyn FnOnce(&mut Driver, usize) -> Result<T, NetworkError> + Send>;

impl Driver {
    pub(super) fn on_order(&mut self, order: Order) {
        match order {
            Order::Incoming(incoming) => self.on_incoming(*incoming),
            Order::Command(command) => self.on_command(command),
            Order::Relay(peer, reply) => self.find_relay(peer, reply),
            Order::Links(reply) => drop(reply.send(self.member_links(clock::now()))),
            Order::Willing(willing) => self.relaying.set_willing(willing),
            Order::Relaying(reply) => drop(reply.send(self.relay_report())),
            Order::Hold(ways) => self.relaying.hold(clock::now(), &ways.into_iter().collect()),
            Order::NetworkChanged => self.on_network_change(),
            Order::Pause => self.pause(),
            Order::Resume(downs) => self.resume(downs),
            Order::Twin => {
                let now_ms = clock::unix_millis();
                self.networks.values_mut().for_each(|network| network.note_twin(now_ms));
            }
            Order::HadSession(peer, remotes) => self.had_session(Moment::now(), peer, remotes),
            // The run loop has taken these already.
            Order::Stop(done) => drop(done),
            Order::Rotate(rotating) => drop(rotating),
            #[cfg(test)]
            Order::Panic => panic!("as ordered"),
        }
    }

    fn on_command(&mut self, command: NetworkCommand) {
        let now = Moment::now();
        let command = match self.refusal() {
            None => command,
            Some(why) => match command.refuse(&why) {
                Some(asks) => asks,
                None => return,
            },
        };
        match command {
            NetworkCommand::NetCreate(create, reply) => self.begin_create(create, reply),
            NetworkCommand::NetList(reply) => drop(reply.send(self.list(now))),
            NetworkCommand::NetLeave(which, reply) => self.leave(now, &which, reply),
            NetworkCommand::NetEnable(which, enabled, reply) => {
                let report = self.enable(now, &which, enabled);
                self.answer_later(reply, report);
            }
            NetworkCommand::InviteCreate(which, options, reply) => self.invite(now, &which, options, reply),
            NetworkCommand::InviteList(which, reply) => {
                drop(reply.send(self.find(&which).map(|network| {
                    network.invites.values().map(|invite| network.invite_report(now.unix_ms, invite)).collect()
                })));
            }
            NetworkCommand::InviteCancel(which, serial, reply) => self.decide(now, &which, reply, |network| {
                Ok(Act::CancelInvite { serial: network.find_invite(now.unix_ms, &serial)? })
            }),
            NetworkCommand::Join(code, name, limit, reply) => self.join(&code, name, limit, reply),
            NetworkCommand::JoinRequests(which, reply) => {
                drop(reply.send(self.find(&which).map(Network::pending_reports)));
            }
            NetworkCommand::Approve(which, who, reply) => {
                let (which, who) = self.meant(which, &who);
                self.approve(now, &which, who, reply);
            }
            NetworkCommand::Deny(which, who, reply) => {
                let (which, who) = self.meant(which, &who);
                let report = self.deny(&which, who);
                self.answer_later(reply, report);
            }
            NetworkCommand::Members(which, reply) => {
                drop(reply.send(self.find(&which).map(|network| network.member_reports(now))));
            }
            NetworkCommand::Revoke(which, who, reason, reply) => {
                let (which, who) = self.meant(which, &who);
                self.revoke(now, &which, who, reason, reply);
            }
            NetworkCommand::LockStatus(which, reply) => {
                drop(reply.send(self.find(&which).map(|network| network.lock_report(now))));
            }
            NetworkCommand::LockLog(which, limit, reply) => {
                drop(reply.send(self.find(&which).map(|network| network.log_reports(limit.min(MAX_LOG)))));
            }
            NetworkCommand::LockSign(which, id, reply) => self.sign(&which, &id, reply),
            NetworkCommand::LockContest(which, ids, who, reply) => {
                let (which, who) = match who.as_deref() {
                    Some(who) => {
                        let (which, who) = self.meant(which, who);
                        (which, Some(who))
                    }
                    None => (which, None),
                };
                self.contest(now, &which, &ids, who, reply);
            }
            NetworkCommand::AdminAdd(which, who, reply) => {
                let (which, who) = self.meant(which, &who);
                self.decide(now, &which, reply, |network| {
                    let found = find_member(network, who)?;
                    let unknown = || NetworkError::NotAllowed {
                        network: network.head.name.clone(),
                        why: format!("the key of {} has not been heard yet; wait until it has been online", found.name),
                    };
                    let record = network.records.get(&found.peer).ok_or_else(unknown)?;
                    Ok(Act::AddAdmin { key: record.key().clone() })
                })
            }
            NetworkCommand::AdminRemove(which, who, reply) => {
                let (which, who) = self.meant(which, &who);
                self.decide(now, &which, reply, |network| Ok(Act::RemoveAdmin { peer: network.find_admin(who)? }));
            }
            NetworkCommand::LockDisable(which, secret, reply) => self.decide(now, &which, reply, |network| {
                let bytes = HEXLOWER_PERMISSIVE.decode(secret.trim().as_bytes()).ok();
                let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                let wrong = || NetworkError::WrongDisableSecret { network: network.head.name.clone() };
                Ok(Act::Disable { secret: secret.ok_or_else(wrong)? })
            }),
        }
    }

    // ---- which network --------------------------------------------------------------------------------------------

    fn find(&self, which: &NetRef) -> Result<&Network, NetworkError> {
        let id = self.find_id(which)?;
        self.networks.get(&id).ok_or(NetworkError::NoNetwork)
    }

    /// Whom a text means, and in which network, where none is named and the text does it: `name.network`.
    pub(super) fn meant<'w>(&self, which: NetRef, who: &'w str) -> (NetRef, &'w str) {
        let who = bare(who);
        let named = who.rsplit_once('.').filter(|_| which.0.is_none() && who.parse::<IpAddr>().is_err());
        let known = |(_, name): (&str, &str)| self.networks.values().any(|network| network.head.name == name);
        match named.filter(|named| known(*named)) {
            Some((who, network)) => (NetRef(Some(network.to_owned())), who),
            None => (which, who),
        }
    }

    pub(super) fn find_id(&self, which: &NetRef) -> Result<NetworkId, NetworkError> {
        let names = |networks: &[&Network]| {
            networks.iter().map(|network| network.head.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let all: Vec<&Network> = self.networks.values().collect();
        let Some(text) = which.0.as_deref() else {
            return match all.as_slice() {
                [] => Err(NetworkError::NoNetwork),
                [only] => Ok(only.id),
                several => Err(NetworkError::WhichNetwork(names(several))),
            };
        };
        if let Some(named) = all.iter().find(|network| network.head.name == text) {
            return Ok(named.id);
        }
        let fits = |network: &&Network| is_prefix(text, &hex(network.id.as_bytes()));
        let fitting: Vec<&Network> = all.into_iter().filter(fits).collect();
        match fitting.as_slice() {
            [] => Err(NetworkError::UnknownNetwork(text.to_owned())),
            [only] => Ok(only.id),
            several => Err(NetworkError::AmbiguousNetwork(text.to_owned(), names(several))),
        }
    }

    pub(super) fn report(&self, now: Moment, network: &Network) -> NetworkReport {
        let links = self.links.one_each();
        let (tx_bytes, rx_bytes) = self.shared.counts.of_network(&network.id);
        let own_links = links.keys().filter(|peer| network.is_member(now.unix_ms, peer)).count();
        let counters = network.counters.named().into_iter().chain(self.shared.counts.named()).collect();
        let synced = network.head_age(now.mono);
        network.report(now, GossipReport { links: own_links, tx_bytes, rx_bytes, synced, counters })
    }

    fn list(&self, now: Moment) -> Vec<NetworkReport> {
        let joined = self.networks.values().map(|network| self.report(now, network));
        joined.chain(self.waiting_reports()).collect()
    }

    // ---- invites and who waits ------------------------------------------------------------------------------------

    fn invite(&mut self, now: Moment, which: &NetRef, options: InviteOptions, reply: Reply<InviteReport>) {
        match self.make_invite(now, which, options) {
            Ok((id, report)) => self.push_and_wait(id, HEARD, move |_, _heard| drop(reply.send(Ok(report)))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn make_invite(
        &mut self,
        now: Moment,
        which: &NetRef,
        options: InviteOptions,
    ) -> Result<(NetworkId, InviteReport), NetworkError> {
        let id = self.find_id(which)?;
        // An interface may have come or gone a moment ago.
        self.find_endpoints();
        let (identity, endpoints) = (Arc::clone(&self.shared.identity), self.endpoints.clone());
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
        let name = network.head.name.clone();
        if network.constitution.view().disabled {
            return Err(NetworkError::Disabled { network: name });
        }
        if !network.am_admin() {
            return Err(NetworkError::NotAdmin { network: name, admins: network.admin_names() });
        }
        check_options(&options)?;
        let doors = network.doors(&endpoints);
        if doors.is_empty() {
            let why = format!(
                "this node listens at {}, and this machine has no address there that others could reach",
                listen.join(" and ")
            );
            return Err(NetworkError::NoAddress { network: name, why });
        }
        let secret = InviteSecret::from_bytes(entropy::bytes());
        let life_ms = u64::try_from(options.expires.as_millis()).unwrap_or(u64::MAX);
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let invite = Invite {
            network: id,
            serial: secret.serial(),
            point: secret.key().point(),
            issuer: self.shared.own,
            tags: options.tags,
            level_cap: options.level_cap,
            not_after_ms: now.unix_ms.saturating_add(life_ms),
            max_uses: options.uses,
            ephemeral_s: options.ephemeral.map(seconds),
            member_expires_s: options.member_expires.map(seconds),
            preapproved: options.preapproved,
        };
        let not_after_s = u32::try_from(invite.not_after_ms / 1000).unwrap_or(u32::MAX);
        let signed =
            SignedInvite::sign(invite, &identity).map_err(|error| NetworkError::BadOption(error.to_string()))?;
        let mut network_name = network.constitution.view().name.clone();
        network_name.truncate(pqvpn_wire::network::code::MAX_CODE_NAME_LEN);
        let code = Code { network: id, network_name, secret, not_after_s, doors };
        let mut report = network.invite_report(now.unix_ms, &signed);
        report.code = Some(code.to_string());
        let serial = signed.serial();
        if !network.keep_invite(now.unix_ms, signed) {
            return Err(NetworkError::TooManyInvites { network: name, most: MAX_INVITES });
        }
        network.made.insert(serial, now.unix_ms);
        Ok((id, report))
    }

    fn approve(&mut self, now: Moment, which: &NetRef, who: &str, reply: Reply<ApproveReport>) {
        let identity = Arc::clone(&self.shared.identity);
        let approved = self.find_id(which).and_then(|id| {
            let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
            let peer = network.find_pending(who)?;
            let act = network.approval(now.unix_ms, &peer)?;
            network.act(&identity, now.unix_ms, act)?;
            Ok((id, peer))
        });
        let (id, peer) = match approved {
            Ok(approved) => approved,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let told = self.is_held(&id, &peer);
        if let Some(network) = self.networks.get_mut(&id) {
            network.prune(now.unix_ms);
        }
        self.push_and_wait(id, HEARD, move |driver, _heard| {
            let network = driver.networks.get(&id).ok_or(NetworkError::NoNetwork);
            drop(reply.send(network.map(|network| {
                ApproveReport {
                    network: network.head.name.clone(),
                    peer,
                    name: network
                        .constitution
                        .view()
                        .members
                        .get(&peer)
                        .map_or_else(|| peer.short(), |member| member.name.clone()),
                    told,
                }
            })));
        });
    }

    fn deny(&mut self, which: &NetRef, who: &str) -> Result<super::super::report::PendingReport, NetworkError> {
        let id = self.find_id(which)?;
        let identity = Arc::clone(&self.shared.identity);
        let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
        if !network.am_admin() {
            let (network, admins) = (network.head.name.clone(), network.admin_names());
            return Err(NetworkError::NotAdmin { network, admins });
        }
        let peer = network.find_pending(who)?;
        let gone = || NetworkError::NobodyWaits { network: network.head.name.clone(), who: who.to_owned() };
        let report = network.pending_report(&peer).ok_or_else(gone)?;
        network.deny(&identity, &peer)?;
        Ok(report)
    }

    // ---- what admins decide ---------------------------------------------------------------------------------------

    fn revoke(&mut self, now: Moment, which: &NetRef, who: &str, reason: String, reply: Reply<RevokeReport>) {
        let identity = Arc::clone(&self.shared.identity);
        if let Some(bad) = reason.chars().find(|c| misleads(*c)) {
            let why = format!("a reason is plain text; it has the character {}", bad.escape_unicode());
            return drop(reply.send(Err(NetworkError::BadOption(why))));
        }
        let revoked = self.find_id(which).and_then(|id| {
            let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
            let found = find_member(network, who)?;
            let was_admin = network.constitution.view().is_admin(&found.peer);
            let statement = network.revoke(&identity, now.unix_ms, found.peer, reason)?;
            network.cover(&identity, now, true);
            network.prune(now.unix_ms);
            Ok((id, found, was_admin, statement))
        });
        let (id, found, was_admin, statement) = match revoked {
            Ok(revoked) => revoked,
            Err(error) => return drop(reply.send(Err(error))),
        };
        // Our own sessions with the peer end before anybody else's.
        self.tell_views(now);
        let peer = found.peer;
        self.push_and_wait(id, HEARD, move |driver, pushed_to| {
            let report = driver.networks.get(&id).ok_or(NetworkError::NoNetwork).and_then(|network| {
                let act = network.act_report(&statement, pushed_to);
                // Nobody is told that a member is out who is not.
                if act.in_force && network.constitution.view().members.contains_key(&peer) {
                    let (network, who) = (&network.head.name, &found.name);
                    let why = format!("its revocation is signed, and {who} is a member of {network} all the same");
                    return Err(NetworkError::Internal(why));
                }
                Ok(RevokeReport {
                    network: network.head.name.clone(),
                    peer,
                    name: found.name,
                    pushed_to,
                    online: driver.report(Moment::now(), network).online.saturating_sub(1),
                    was_admin,
                    act,
                })
            });
            drop(reply.send(report));
        });
    }

    /// Makes an act, signs it as far as this node may, tells everybody, and reports.
    fn decide(
        &mut self,
        now: Moment,
        which: &NetRef,
        reply: Reply<ActReport>,
        act: impl FnOnce(&Network) -> Result<Act, NetworkError>,
    ) {
        let identity = Arc::clone(&self.shared.identity);
        let decided = self.find_id(which).and_then(|id| {
            let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
            let act = act(network)?;
            Ok((id, network.act(&identity, now.unix_ms, act)?))
        });
        match decided {
            Ok((id, statement)) => self.tell_act(now, id, statement, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn tell_act(
        &mut self,
        now: Moment,
        id: NetworkId,
        statement: pqvpn_wire::network::StatementId,
        reply: Reply<ActReport>,
    ) {
        let identity = Arc::clone(&self.shared.identity);
        if let Some(network) = self.networks.get_mut(&id) {
            network.cover(&identity, now, true);
            network.prune(now.unix_ms);
        }
        let finish: Waiter<ActReport> = Box::new(move |driver, pushed_to| {
            let network = driver.networks.get(&id).ok_or(NetworkError::NoNetwork)?;
            Ok(network.act_report(&statement, pushed_to))
        });
        self.push_and_wait(id, HEARD, move |driver, heard| drop(reply.send(finish(driver, heard))));
    }

    fn sign(&mut self, which: &NetRef, text: &str, reply: Reply<ActReport>) {
        let identity = Arc::clone(&self.shared.identity);
        let signed = self.find_id(which).and_then(|id| {
            let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
            let found = network.find_proposal(text);
            // Whose say a coup took away can still sign what stands beside it.
            if !network.am_admin() && !found.as_ref().is_ok_and(|(_, contests)| *contests) {
                let (network, admins) = (network.head.name.clone(), network.admin_names());
                return Err(NetworkError::NotAdmin { network, admins });
            }
            let (statement, _) = found?;
            network.co_sign(&identity, &statement)?;
            Ok((id, statement))
        });
        match signed {
            Ok((id, statement)) => self.tell_act(Moment::now(), id, statement, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn contest(
        &mut self,
        now: Moment,
        which: &NetRef,
        statements: &[String],
        who: Option<&str>,
        reply: Reply<ActReport>,
    ) {
        let identity = Arc::clone(&self.shared.identity);
        let contested = self.find_id(which).and_then(|id| {
            let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
            Ok((id, network.contest(&identity, now.unix_ms, statements, who)?))
        });
        match contested {
            Ok((id, statement)) => self.tell_act(now, id, statement, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The end of the next thing that ends by itself here.
    pub(super) fn expire(&mut self, now: Instant) {
        self.expire_campaigns(now);
        self.expire_held(now);
    }
}

fn check_options(options: &InviteOptions) -> Result<(), NetworkError> {
    let bad = |why: &str| Err(NetworkError::BadOption(why.to_owned()));
    if options.expires.is_zero() || options.expires > MAX_INVITE_LIFE {
        return bad("an invite lasts 1 second to 365 days");
    }
    if !(1..=MAX_USES).contains(&options.uses) {
        return bad("an invite can be used 1 to 65535 times");
    }
    if options.level_cap > pqvpn_wire::network::MAX_LEVEL {
        return bad("trust levels are 0 to 4");
    }
    if options.ephemeral.is_some_and(|silence| silence < MIN_EPHEMERAL) {
        return bad("an ephemeral member vanishes after 10 seconds of silence or more");
    }
    if options.member_expires.is_some_and(|life| life.as_secs() == 0) {
        return bad("a membership lasts 1 second or more");
    }
    Ok(())
}

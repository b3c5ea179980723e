// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joining from the joiner's side: knock at the doors of a code until one lets us in, then fetch the constitution.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pqvpn_crypto::{
    peer_id::PeerId,
    proofs::schnorr::{EXPORTER_LABEL, JoinContext},
};
use pqvpn_trust::{CompositeVerifier, Constitution, Inserted};
use pqvpn_wire::network::{
    Bundle, Code, Cover, Door, JoinRefusal, JoinRequest, MemberRecord, NetRequest, NetResponse, NetworkId, Serial,
    SignedInvite, Statement, StatementId, SyncState,
};
use tokio::time::{sleep, timeout};

use super::{
    driver::dial,
    error::NetworkError,
    network::{MAX_INVITES, Onward, constitution, refusal_error},
    rpc::Shared,
};
use crate::{clock, entropy, link::Connection};

/// Doors asked in one join: those of the code and those they name.
const MAX_DOORS_ASKED: usize = 16;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an answer may take that waits for an admin's word.
const LONG_ANSWER: Duration = Duration::from_secs(38);
/// Pause between two rounds over all doors that found nobody.
const KNOCK_AGAIN: Duration = Duration::from_millis(500);
/// How long one page of the constitution may take.
const PAGE: Duration = Duration::from_secs(20);
/// Pages of a constitution: far more than it can have.
const MAX_PAGES: usize = 4096;

/// What to join, and how.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) code: Code,
    pub(super) name: String,
    /// The name was chosen by the person: another one is not taken by itself.
    pub(super) chosen: bool,
    /// An admin is being waited for already.
    pub(super) waiting: bool,
    pub(super) deadline: Instant,
}

/// We are in.
pub(super) struct Member {
    pub(super) constitution: Constitution,
    pub(super) records: Vec<Arc<MemberRecord>>,
    pub(super) invites: Vec<SignedInvite>,
    pub(super) covers: Vec<Arc<Cover>>,
    pub(super) link: Arc<dyn Connection>,
    pub(super) name: String,
}

/// What a join came to.
pub(super) enum JoinDone {
    Member(Box<Member>),
    /// An admin has to say so first.
    Waiting,
    Failed(NetworkError),
}

/// Knocks at all doors, again and again where nobody answers; ends by the wish's deadline.
pub(super) async fn join(shared: Arc<Shared>, wish: Wish) -> JoinDone {
    let left = wish.deadline.saturating_duration_since(clock::now());
    let (network, started) = (wish.code.network_name.clone(), clock::now());
    let mut why = "no answer in time".to_owned();
    let knocking = async {
        loop {
            match Knocking::new(&shared, wish.clone()).run().await {
                Ok(done) => return done,
                Err(Knock::Refused(error)) => return JoinDone::Failed(error),
                // It may be starting just now.
                Err(Knock::Silent(silence)) => why = silence,
            }
            sleep(KNOCK_AGAIN).await;
        }
    };
    match timeout(left, knocking).await {
        Ok(done) => done,
        Err(_elapsed) => JoinDone::Failed(NetworkError::NobodyAnswers { network, waited: started.elapsed(), why }),
    }
}

/// Why a door did not open.
enum Knock {
    /// It said no, and so would every other.
    Refused(NetworkError),
    /// Another may know more.
    Silent(String),
}

struct Knocking<'a> {
    shared: &'a Shared,
    wish: Wish,
    asked: BTreeSet<PeerId>,
}

impl<'a> Knocking<'a> {
    fn new(shared: &'a Shared, wish: Wish) -> Self {
        Self { shared, wish, asked: BTreeSet::new() }
    }

    /// Dials all doors at once and asks them one by one as they answer: two that let us in at once would spend two uses.
    async fn run(mut self) -> Result<JoinDone, Knock> {
        let mut dials = FuturesUnordered::new();
        let mut worst = Knock::Silent("none of the nodes in the code can be reached".to_owned());
        let (endpoint, shared) = (Arc::clone(&self.shared.endpoint), self.shared);
        let knock = |door: Door| {
            let endpoint = Arc::clone(&endpoint);
            // Where it announces itself on this local network, after what the code says: that may be old.
            let nearby = shared.nearby.load().addresses(&door.peer).to_vec();
            let mut addresses = door.addresses;
            addresses.extend(nearby.into_iter().filter(|at| !addresses.contains(at)).collect::<Vec<_>>());
            async move { (door.peer, dial(&endpoint, door.peer, None, addresses).await) }
        };
        for door in self.new_doors(self.wish.code.doors.clone()) {
            dials.push(knock(door));
        }
        while let Some((peer, dialed)) = dials.next().await {
            let outcome = match dialed {
                Ok(link) => self.ask(peer, link).await,
                Err(why) => Err(Knock::Silent(format!("{}: {why}", peer.short()))),
            };
            match outcome {
                Ok(Asked::Done(done)) => return Ok(done),
                Ok(Asked::Elsewhere(doors)) => {
                    for door in self.new_doors(doors) {
                        dials.push(knock(door));
                    }
                    if dials.is_empty() {
                        worst = Knock::Silent("no admin can be reached".to_owned());
                    }
                }
                // Whoever refuses for good speaks for the network; but one that does not know us may only be behind.
                Err(Knock::Refused(error @ (NetworkError::UnknownInvite { .. } | NetworkError::Busy { .. }))) => {
                    worst = Knock::Refused(error);
                }
                Err(refused @ Knock::Refused(_)) => return Err(refused),
                Err(silent @ Knock::Silent(_)) => {
                    if matches!(worst, Knock::Silent(_)) {
                        worst = silent;
                    }
                }
            }
        }
        Err(worst)
    }

    fn new_doors(&mut self, doors: Vec<Door>) -> Vec<Door> {
        let own = self.shared.own;
        let mut new = Vec::new();
        for door in doors {
            if self.asked.len() < MAX_DOORS_ASKED && door.peer != own && self.asked.insert(door.peer) {
                new.push(door);
            }
        }
        new
    }

    async fn ask(&mut self, peer: PeerId, link: Arc<dyn Connection>) -> Result<Asked, Knock> {
        let mut renamed = false;
        loop {
            let request = self.request(peer, &*link)?;
            let limit = if self.wish.waiting { LONG_ANSWER } else { ANSWER };
            let network = self.wish.code.network;
            let answer = self.shared.call(&*link, &network, &NetRequest::Join(Box::new(request)), limit).await;
            let answer = answer.map_err(|error| Knock::Silent(format!("{}: {error}", peer.short())))?;
            return match answer {
                NetResponse::Joined(bundle) => self.enter(link, *bundle).await.map(Asked::Done),
                NetResponse::Pending { .. } => Ok(Asked::Done(JoinDone::Waiting)),
                NetResponse::Elsewhere { admins } => Ok(Asked::Elsewhere(admins)),
                NetResponse::Refused(JoinRefusal::NameTaken { suggestion }) if !self.wish.chosen && !renamed => {
                    self.wish.name = suggestion;
                    renamed = true;
                    continue;
                }
                NetResponse::Refused(refusal) => Err(Knock::Refused(self.refusal(refusal))),
                NetResponse::UnknownNetwork | NetResponse::NotAMember => {
                    Err(Knock::Refused(NetworkError::UnknownInvite { network: self.wish.code.network_name.clone() }))
                }
                NetResponse::State(_) | NetResponse::Bundle(_) | NetResponse::Done | _ => {
                    Err(Knock::Silent(format!("{} answers something else", peer.short())))
                }
            };
        }
    }

    fn request(&self, peer: PeerId, link: &dyn Connection) -> Result<JoinRequest, Knock> {
        let internal = |error: &dyn std::fmt::Display| Knock::Refused(NetworkError::Internal(error.to_string()));
        let mut exporter = [0; 32];
        link.export(EXPORTER_LABEL, b"", &mut exporter).map_err(|error| internal(&error))?;
        let code = &self.wish.code;
        let serial = code.serial();
        let context = JoinContext::new(code.network.as_bytes(), serial.as_bytes(), &peer, &self.shared.own, &exporter);
        let (name, seed) = (self.wish.name.clone(), entropy::bytes());
        let secret = code.secret.key();
        let identity = &self.shared.identity;
        JoinRequest::make(identity, (serial, &secret), &context, name, clock::unix_millis(), &seed)
            .map_err(|error| internal(&error))
    }

    fn refusal(&self, refusal: JoinRefusal) -> NetworkError {
        let code = &self.wish.code;
        let not_after_ms = u64::from(code.not_after_s) * 1000;
        refusal_error(refusal, code.network_name.clone(), &self.wish.name, clock::unix_millis(), not_after_ms)
    }

    /// Fetches the whole constitution. It proves itself: its genesis is what the code names, and all else is signed.
    async fn enter(&self, link: Arc<dyn Connection>, first: Bundle) -> Result<JoinDone, Knock> {
        let network = self.wish.code.network;
        let foreign = |why: String| Knock::Refused(NetworkError::ForeignNetwork(why));
        let Bundle { statements, records, invites, covers, mut more, .. } = first;
        let building = crate::blocking::run(move || Copied::begin(&network, statements));
        let copied = building.await.map_err(|error| foreign(error.to_string()))?;
        let mut copied = copied.map_err(foreign)?;
        let mut gathered = Gathered::default();
        gathered.take(&copied.built, records, invites, covers);
        for _ in 0..MAX_PAGES {
            if !more {
                break;
            }
            let state = copied.lack(&gathered);
            let answer = self.shared.call(&*link, &network, &NetRequest::Sync(state), PAGE).await;
            let page = match answer {
                Ok(NetResponse::Bundle(page)) => *page,
                Ok(_) => return Err(Knock::Silent("the constitution was not sent to its end".to_owned())),
                Err(error) => return Err(Knock::Silent(error.to_string())),
            };
            more = page.more;
            let statements = page.statements;
            let adding = crate::blocking::run(move || {
                let progress = copied.add(statements);
                (copied, progress)
            });
            let progress;
            (copied, progress) = adding.await.map_err(|error| foreign(error.to_string()))?;
            let news = gathered.take(&copied.built, page.records, page.invites, page.covers);
            // Whoever sends nothing new for ever is not listened to for ever.
            if !news && !progress {
                break;
            }
        }
        let built = copied.built;
        let Some(own) = built.view().members.get(&self.shared.own) else {
            // It was added, and somebody else's use of the same invite counts before ours.
            let network = self.wish.code.network_name.clone();
            return Err(Knock::Refused(NetworkError::InviteUsedUp { network }));
        };
        if own.expired(clock::unix_millis()) {
            // An admin may have said more since than this one has heard.
            return Err(Knock::Silent(format!("{} knows a membership that has ended", link.peer().short())));
        }
        let name = self.wish.name.clone();
        let Gathered { records, invites, covers, .. } = gathered;
        let (records, invites) = (records.into_values().collect(), invites.into_values().collect());
        Ok(JoinDone::Member(Box::new(Member { constitution: built, records, invites, covers, link, name })))
    }
}

/// The constitution, as far as a door has sent it.
pub(super) struct Copied {
    pub(super) built: Constitution,
    onward: Onward,
}

impl Copied {
    /// # Errors
    /// They do not begin with the genesis of this network.
    pub(super) fn begin(network: &NetworkId, first: Vec<Arc<Statement>>) -> Result<Self, String> {
        let sent = ids(&first);
        let built = constitution(network, first.into_iter().map(Arc::unwrap_or_clone), &CompositeVerifier)?;
        let mut onward = Onward::default();
        onward.note(&built, &sent, true);
        Ok(Self { built, onward })
    }

    /// Takes the statements of a page; says whether the next may bring more.
    pub(super) fn add(&mut self, statements: Vec<Arc<Statement>>) -> bool {
        let (before, sent) = (self.built.len(), ids(&statements));
        for inserted in self.built.insert_all(statements.into_iter().map(Arc::unwrap_or_clone), &CompositeVerifier) {
            if let Ok(Inserted::Waiting { .. }) | Err(_) = inserted {
                tracing::debug!("a statement of the network we join is not taken in");
            }
        }
        let news = self.built.len() > before;
        self.onward.note(&self.built, &sent, news)
    }

    /// Asks for what comes next.
    pub(super) fn lack(&self, gathered: &Gathered) -> SyncState {
        let held = gathered.records.iter().map(|(peer, record)| (*peer, record.seq())).collect();
        SyncState {
            head: self.built.head(),
            tips: self.onward.tips(&self.built, |most| self.built.tips_within(most)),
            // No digest of ours is equal to theirs: everything is wanted.
            invites: [1; 32],
            held: Some(held),
            cursor: Some(gathered.sent),
            ..SyncState::default()
        }
    }
}

fn ids(statements: &[Arc<Statement>]) -> Vec<StatementId> {
    statements.iter().map(|statement| statement.id()).collect()
}

/// What a door has sent besides statements. It is a member's word for what others signed, so no more is kept than a network
/// can have: a record of each member, and as many invites as members keep.
#[derive(Default)]
pub(super) struct Gathered {
    records: BTreeMap<PeerId, Arc<MemberRecord>>,
    invites: BTreeMap<Serial, SignedInvite>,
    covers: Vec<Arc<Cover>>,
    /// Invites it has sent, for the next page.
    sent: u64,
}

impl Gathered {
    /// Takes a page; says whether there was anything new.
    fn take(
        &mut self,
        built: &Constitution,
        records: Vec<Arc<MemberRecord>>,
        invites: Vec<SignedInvite>,
        covers: Vec<Arc<Cover>>,
    ) -> bool {
        let mut news = false;
        for record in records.into_iter().filter(|record| built.view().members.contains_key(&record.peer())) {
            if self.records.get(&record.peer()).is_none_or(|held| held.seq() < record.seq()) {
                self.records.insert(record.peer(), record);
                news = true;
            }
        }
        self.sent = self.sent.saturating_add(invites.len() as u64);
        for invite in invites {
            if self.invites.len() < MAX_INVITES {
                news |= self.invites.insert(invite.serial(), invite).is_none();
            }
        }
        self.covers = if covers.is_empty() { std::mem::take(&mut self.covers) } else { covers };
        news
    }
}

enum Asked {
    Done(JoinDone),
    Elsewhere(Vec<Door>),
}

#[cfg(test)]
mod tests {
    use pqvpn_crypto::identity::Identity;
    use pqvpn_packet::addr::ipv4_candidate;
    use pqvpn_wire::network::{Act, Genesis, Invite, InviteSecret, MemberDraft, Params, StatementBody};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn founded(by: &Identity) -> Constitution {
        let genesis = Genesis {
            name: "home".to_owned(),
            founder: by.public().clone(),
            founder_name: "alice".to_owned(),
            secret: [7; 32],
            params: Params::default(),
            disable: None,
        };
        let network = NetworkId::from_bytes([0; 32]);
        let act = Act::Genesis(Box::new(genesis));
        let body = StatementBody { network, seq: 0, parents: Vec::new(), at_ms: NOW, act };
        let mut statement = Statement::draft(body).unwrap();
        statement.sign(by).unwrap();
        Constitution::found(statement, &CompositeVerifier, ipv4_candidate).unwrap()
    }

    fn record(of: &Identity, network: NetworkId, seq: u64) -> Arc<MemberRecord> {
        let (issued_ms, not_after_ms) = (NOW, NOW + 1000);
        let draft =
            MemberDraft { network, seq, issued_ms, not_after_ms, endpoints: Vec::new(), head: [0; 32], left: false };
        Arc::new(MemberRecord::sign(draft, of).unwrap())
    }

    fn invite(by: &Identity, network: NetworkId, number: u16) -> SignedInvite {
        let mut secret = [0; 16];
        secret[..2].copy_from_slice(&number.to_be_bytes());
        let secret = InviteSecret::from_bytes(secret);
        let invite = Invite {
            network,
            serial: secret.serial(),
            point: [1; 32],
            issuer: by.peer_id(),
            tags: Vec::new(),
            level_cap: 3,
            not_after_ms: NOW,
            max_uses: 1,
            ephemeral_s: None,
            member_expires_s: None,
            preapproved: false,
        };
        SignedInvite::sign(invite, by).unwrap()
    }

    #[test]
    fn a_door_cannot_make_a_joiner_keep_more_than_a_network_has() {
        let (alice, nobody) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let built = founded(&alice);
        let id = built.id();
        let mut gathered = Gathered::default();
        assert!(gathered.take(&built, vec![record(&alice, id, 2)], Vec::new(), Vec::new()));
        let again = vec![record(&alice, id, 2), record(&alice, id, 1), record(&nobody, id, 9)];
        assert!(!gathered.take(&built, again, Vec::new(), Vec::new()), "old, and of nobody");
        assert!(gathered.take(&built, vec![record(&alice, id, 3)], Vec::new(), Vec::new()));
        assert_eq!(gathered.records.values().map(|record| record.seq()).collect::<Vec<_>>(), [3]);
        let invites: Vec<SignedInvite> = (0..300).map(|number| invite(&alice, id, number)).collect();
        assert!(gathered.take(&built, Vec::new(), invites.clone(), Vec::new()));
        assert_eq!((gathered.invites.len(), gathered.sent), (MAX_INVITES, 300));
        assert!(!gathered.take(&built, Vec::new(), invites, Vec::new()), "nothing new");
    }
}

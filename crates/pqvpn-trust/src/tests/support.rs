// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys without key pairs and signatures that say themselves whether they hold.

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use ipnet::Ipv4Net;
use pqvpn_crypto::identity::{CompositeSignature, Identity, PublicIdentity, SIGNATURE_LEN};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Genesis, InviteUse, NetworkId, NewMember, Params, Serial, Statement, StatementBody};

use crate::verify::StatementVerifier;
use crate::{Constitution, Inserted, Refusal};

/// Keys there are; the first is the founder's.
pub(crate) const KEYS: usize = 24;

/// A made-up key: real bytes with the last one changed.
pub(crate) fn key(number: usize) -> &'static PublicIdentity {
    static ALL: OnceLock<Vec<PublicIdentity>> = OnceLock::new();
    &ALL.get_or_init(|| {
        let seed = pqvpn_crypto::identity::IdentitySeed::from_bytes(&[7; 64]);
        let spki = Identity::from_seed(&seed).unwrap().public().to_spki();
        (0..KEYS)
            .map(|number| {
                let mut spki = spki.clone();
                *spki.last_mut().unwrap() ^= number as u8;
                PublicIdentity::from_spki(&spki).unwrap()
            })
            .collect()
    })[number]
}

pub(crate) fn peer(number: usize) -> PeerId {
    key(number).peer_id()
}

/// A signature that holds or not.
pub(crate) fn signature(good: bool) -> CompositeSignature {
    static BOTH: OnceLock<[CompositeSignature; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| [0, 1].map(|byte| CompositeSignature::from_bytes(&[byte; SIGNATURE_LEN]).unwrap()));
    both[usize::from(good)].clone()
}

pub(crate) fn is_good(signature: &CompositeSignature) -> bool {
    signature.as_bytes()[0] == 1
}

/// Believes what signatures say of themselves.
pub(crate) struct Fake;

impl StatementVerifier for Fake {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        key.peer_id() == *signer && statement.signature(signer).is_some_and(is_good)
    }

    fn rotation(&self, statement: &Statement) -> bool {
        let Act::Rotate { proof, .. } = &statement.body().act else { return true };
        is_good(proof)
    }
}

/// Few candidates in few addresses, so that members collide.
pub(crate) fn crowded(pool: Ipv4Net, peer: &[u8; 32], i: u32) -> Ipv4Addr {
    let mask = !u32::from(pool.netmask());
    let host = (u32::from(peer[0]) + i * u32::from(peer[1] | 1)) & mask;
    let host = if host == 0 || host == mask { 1 } else { host };
    Ipv4Addr::from(u32::from(pool.network()) | host)
}

pub(crate) fn params(quorum: u8, pool: &str) -> Params {
    Params { quorum, ipv4_pool: pool.parse().unwrap(), ..Params::default() }
}

pub(crate) fn genesis(quorum: u8, pool: &str) -> Statement {
    let genesis = Genesis {
        name: "home".into(),
        founder: key(0).clone(),
        founder_name: "a".into(),
        secret: [9; 32],
        params: params(quorum, pool),
        disable: Some(sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix([5; 32])).into()),
    };
    let body = StatementBody {
        network: NetworkId::from_bytes([0; 32]),
        seq: 0,
        parents: Vec::new(),
        at_ms: 0,
        act: Act::Genesis(Box::new(genesis)),
    };
    signed(body, &[(0, true)])
}

pub(crate) fn signed(body: StatementBody, signers: &[(usize, bool)]) -> Statement {
    let mut statement = Statement::draft(body).unwrap();
    for (signer, good) in signers {
        statement.add_signature(peer(*signer), signature(*good));
    }
    statement
}

pub(crate) fn new_member(number: usize, name: &str) -> NewMember {
    NewMember {
        peer: peer(number),
        name: name.into(),
        tags: Vec::new(),
        level_cap: 2,
        expires_ms: None,
        ephemeral_s: None,
        invite: None,
    }
}

pub(crate) fn add(number: usize, name: &str) -> Act {
    Act::AddMember(new_member(number, name))
}

pub(crate) fn add_by_invite(number: usize, name: &str, serial: u8, max_uses: u32) -> Act {
    let invite = Some(InviteUse { serial: Serial::from_bytes([serial; 16]), max_uses });
    Act::AddMember(NewMember { invite, ..new_member(number, name) })
}

pub(crate) fn add_admin(number: usize) -> Act {
    Act::AddAdmin { key: key(number).clone() }
}

pub(crate) fn remove_admin(number: usize) -> Act {
    Act::RemoveAdmin { peer: peer(number) }
}

pub(crate) fn revoke(number: usize) -> Act {
    Act::Revoke { peer: peer(number), reason: "lost".into() }
}

pub(crate) fn rotate(old: usize, new: usize) -> Act {
    Act::Rotate { old: key(old).clone(), key: key(new).clone(), proof: signature(true) }
}

pub(crate) fn leave(number: usize) -> Act {
    Act::Leave { key: key(number).clone() }
}

/// A constitution and how to speak to it.
pub(crate) struct World {
    pub(crate) constitution: Constitution,
    pub(crate) now: u64,
}

impl World {
    pub(crate) fn new(quorum: u8) -> Self {
        let constitution = Constitution::found(genesis(quorum, "10.100.0.0/24"), &Fake, crowded).unwrap();
        Self { constitution, now: 1000 }
    }

    /// Drafts on all tips.
    pub(crate) fn draft(&self, signers: &[usize], act: Act) -> Statement {
        let signers: Vec<_> = signers.iter().map(|signer| (*signer, true)).collect();
        signed(self.constitution.draft(self.now, act), &signers)
    }

    /// A checkpoint of everything held.
    pub(crate) fn checkpoint(&self, signers: &[usize]) -> Statement {
        let signers: Vec<_> = signers.iter().map(|signer| (*signer, true)).collect();
        signed(self.constitution.draft_checkpoint(self.now), &signers)
    }

    /// Drafts on chosen parents.
    pub(crate) fn fork(&self, parents: &[&Statement], signers: &[usize], act: Act) -> Statement {
        let signers: Vec<_> = signers.iter().map(|signer| (*signer, true)).collect();
        let body = StatementBody {
            network: self.constitution.id(),
            seq: parents.iter().map(|parent| parent.body().seq).max().unwrap() + 1,
            parents: parents.iter().map(|parent| parent.id()).collect(),
            at_ms: self.now,
            act,
        };
        signed(body, &signers)
    }

    pub(crate) fn insert(&mut self, statement: &Statement) -> Result<Inserted, Refusal> {
        self.constitution.insert(statement.clone(), &Fake)
    }

    /// Drafts on all tips and inserts.
    pub(crate) fn say(&mut self, signers: &[usize], act: Act) -> Statement {
        let statement = self.draft(signers, act);
        self.insert(&statement).unwrap();
        statement
    }

    pub(crate) fn is_void(&self, statement: &Statement) -> bool {
        self.constitution.view().void.contains(&statement.id())
    }

    pub(crate) fn member(&self, number: usize) -> Option<&crate::Member> {
        self.constitution.view().members.get(&peer(number))
    }

    pub(crate) fn is_admin(&self, number: usize) -> bool {
        self.constitution.view().is_admin(&peer(number))
    }
}

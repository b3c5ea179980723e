// SPDX-License-Identifier: MIT OR Apache-2.0
//! The composite identity of a node: one Ed25519 and one ML-DSA-87 key that always sign and verify together.
//!
//! Layout as in the LAMPS composite-signature drafts (ML-DSA first, the same prefix); the pair ML-DSA-87 with Ed25519
//! is not standardised, so the object identifier is private (link.md 2.2).

use std::fmt;

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use sha2::{Digest, Sha256, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::peer_id::PeerId;
use crate::reset::ResetKey;

/// Length of an ML-DSA-87 public key in bytes (FIPS 204 table 2).
pub const MLDSA_PUBLIC_LEN: usize = 2592;
/// Length of an Ed25519 public key in bytes.
pub const ED25519_PUBLIC_LEN: usize = 32;
/// Length of an ML-DSA-87 signature in bytes (FIPS 204 table 2).
pub const MLDSA_SIGNATURE_LEN: usize = 4627;
/// Length of an Ed25519 signature in bytes.
pub const ED25519_SIGNATURE_LEN: usize = 64;
/// Length of a composite signature: ML-DSA-87 half, then Ed25519 half.
pub const SIGNATURE_LEN: usize = MLDSA_SIGNATURE_LEN + ED25519_SIGNATURE_LEN;
/// Length of the two seeds of an identity: Ed25519 seed, then ML-DSA ξ.
pub const SEED_LEN: usize = 64;

/// Separates the key of notes from everything else that is made from the seeds.
const NOTES_SALT: &[u8] = b"pqvpn notes v1";

/// Fixed first bytes of the DER SubjectPublicKeyInfo; the two keys follow.
///
/// SEQUENCE { SEQUENCE { OID 2.25.325206397957020961598956648189556425398 }, BIT STRING (0 unused bits) }. The arc 2.25
/// takes any UUID without registration (ITU-T X.667).
const SPKI_PREFIX: [u8; 33] = [
    0x30, 0x82, 0x0a, 0x5d, // SEQUENCE, 2653 bytes
    0x30, 0x16, 0x06, 0x14, // AlgorithmIdentifier: the OID alone, no parameters
    0x69, 0x83, 0xe9, 0xa8, 0xbc, 0xd5, 0xf3, 0xdd, 0xe2, 0xa5, //
    0xdb, 0x8a, 0xe5, 0xd6, 0xb9, 0x88, 0xfe, 0x80, 0x85, 0x36, //
    0x03, 0x82, 0x0a, 0x41, 0x00, // BIT STRING, 2625 bytes, 0 unused bits
];

/// Length of the encoded public identity in bytes.
pub const SPKI_LEN: usize = SPKI_PREFIX.len() + MLDSA_PUBLIC_LEN + ED25519_PUBLIC_LEN;

/// draft-ietf-lamps-pq-composite-sigs: neither half verifies as a stand-alone signature over the bare message.
const SIGNATURE_PREFIX: &[u8] = b"CompositeAlgorithmSignatures2025";

/// What a composite signature is made for; part of the signed bytes.
///
/// Each label ends in a NUL byte that occurs nowhere else in it, so no label is a prefix of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureLabel {
    /// TLS 1.3 CertificateVerify of either side; RFC 8446 §4.4.3 tells the sides apart inside the message.
    TlsHandshake,
    /// Statements about other keys: rotation, backup checks, and what later issues sign outside a handshake.
    Statement,
    /// One request or response of the DHT, bound to its sender, receiver and network.
    DhtMessage,
    /// A record of the DHT.
    DhtRecord,
    /// The fact that one identity follows another; both sign it.
    DhtRotation,
    /// The fact that an identity is no longer to be trusted; it signs that itself.
    DhtRevocation,
    /// A list of bootstrap nodes.
    BootstrapList,
    /// A statement of a network's constitution.
    NetworkStatement,
    /// An invite into a network.
    NetworkInvite,
    /// The wish to join a network, bound to the link it is uttered on.
    NetworkJoin,
    /// A join an admin has looked at and that waits for another's word.
    NetworkPending,
    /// What a member says of itself inside its network.
    MemberRecord,
    /// The new key's consent to follow an old one inside a network.
    NetworkRotation,
    /// Covers: secrets that an admin gives the members of a network.
    NetworkCover,
}

impl SignatureLabel {
    /// Every label.
    pub const ALL: [Self; 14] = [
        Self::TlsHandshake,
        Self::Statement,
        Self::DhtMessage,
        Self::DhtRecord,
        Self::DhtRotation,
        Self::DhtRevocation,
        Self::BootstrapList,
        Self::NetworkStatement,
        Self::NetworkInvite,
        Self::NetworkJoin,
        Self::NetworkPending,
        Self::MemberRecord,
        Self::NetworkRotation,
        Self::NetworkCover,
    ];

    /// Returns the bytes that enter the signed message.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::TlsHandshake => b"COMPSIG-MLDSA87-Ed25519 pqvpn tls13 v1\0",
            Self::Statement => b"COMPSIG-MLDSA87-Ed25519 pqvpn statement v1\0",
            Self::DhtMessage => b"COMPSIG-MLDSA87-Ed25519 pqvpn dht message v1\0",
            Self::DhtRecord => b"COMPSIG-MLDSA87-Ed25519 pqvpn dht record v1\0",
            Self::DhtRotation => b"COMPSIG-MLDSA87-Ed25519 pqvpn dht rotation v1\0",
            Self::DhtRevocation => b"COMPSIG-MLDSA87-Ed25519 pqvpn dht revocation v1\0",
            Self::BootstrapList => b"COMPSIG-MLDSA87-Ed25519 pqvpn bootstrap list v1\0",
            Self::NetworkStatement => b"COMPSIG-MLDSA87-Ed25519 pqvpn network statement v1\0",
            Self::NetworkInvite => b"COMPSIG-MLDSA87-Ed25519 pqvpn network invite v1\0",
            Self::NetworkJoin => b"COMPSIG-MLDSA87-Ed25519 pqvpn network join v1\0",
            Self::NetworkPending => b"COMPSIG-MLDSA87-Ed25519 pqvpn network pending v1\0",
            Self::MemberRecord => b"COMPSIG-MLDSA87-Ed25519 pqvpn member record v1\0",
            Self::NetworkRotation => b"COMPSIG-MLDSA87-Ed25519 pqvpn network rotation v1\0",
            Self::NetworkCover => b"COMPSIG-MLDSA87-Ed25519 pqvpn network cover v1\0",
        }
    }
}

/// The cryptographic library refused to work: no entropy, or an internal failure. Never the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The random generator failed.
    #[error("the random generator failed")]
    Entropy,
    /// A key pair could not be made from its seed.
    #[error("the key pair could not be made from its seed")]
    KeyPair,
    /// A signature could not be made.
    #[error("signing failed")]
    Sign,
}

/// Why a composite signature was refused; both halves were looked at in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Only the ML-DSA-87 half is there.
    #[error("the Ed25519 half of the signature is missing")]
    MissingEd25519Half,
    /// Only the Ed25519 half is there.
    #[error("the ML-DSA-87 half of the signature is missing")]
    MissingMlDsaHalf,
    /// Neither one nor two halves long.
    #[error("the signature has an impossible length")]
    Length,
    /// The Ed25519 half does not verify.
    #[error("the Ed25519 half of the signature is wrong")]
    BadEd25519Half,
    /// The ML-DSA-87 half does not verify.
    #[error("the ML-DSA-87 half of the signature is wrong")]
    BadMlDsaHalf,
    /// Neither half verifies.
    #[error("both halves of the signature are wrong")]
    BadBothHalves,
}

/// Bytes that are not the one encoding of a public identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PQVPN public key")]
pub struct SpkiError;

/// The two 32-byte seeds a node's keys come from: Ed25519 seed || ML-DSA-87 ξ.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct IdentitySeed([u8; SEED_LEN]);

impl IdentitySeed {
    /// Takes seeds from a keystore; the caller wipes its own copy.
    pub fn from_bytes(bytes: &[u8; SEED_LEN]) -> Self {
        Self(*bytes)
    }

    /// Draws two new seeds from the library's generator.
    ///
    /// # Errors
    /// [`IdentityError::Entropy`] if the generator fails.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = Self([0; SEED_LEN]);
        aws_lc_rs::rand::fill(&mut seed.0).map_err(|_| IdentityError::Entropy)?;
        Ok(seed)
    }

    /// Gives the secret bytes to a keystore.
    pub fn expose(&self) -> &[u8; SEED_LEN] {
        &self.0
    }

    fn ed25519(&self) -> &[u8] {
        &self.0[..32]
    }

    fn mldsa(&self) -> &[u8] {
        &self.0[32..]
    }
}

impl fmt::Debug for IdentitySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentitySeed(redacted)")
    }
}

/// Both private keys of this node, and its public identity.
///
/// The private keys live inside the cryptographic library, which wipes them when they are dropped.
pub struct Identity {
    ed25519: Ed25519KeyPair,
    mldsa: PqdsaKeyPair,
    public: PublicIdentity,
    reset: ResetKey,
    notes: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Expands both seeds (FIPS 204 algorithm 6, RFC 8032 §5.1.5); the same seeds give the same identity.
    ///
    /// # Errors
    /// [`IdentityError::KeyPair`] if the library refuses; no seed is known to cause it.
    pub fn from_seed(seed: &IdentitySeed) -> Result<Self, IdentityError> {
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(seed.ed25519()).map_err(|_| IdentityError::KeyPair)?;
        let mldsa = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed.mldsa()).map_err(|_| IdentityError::KeyPair)?;
        let public = PublicIdentity::from_key_bytes(mldsa.public_key().as_ref(), ed25519.public_key().as_ref())
            .ok_or(IdentityError::KeyPair)?;
        let reset = ResetKey::of(seed).ok_or(IdentityError::KeyPair)?;
        let mut notes = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha512>::new(Some(NOTES_SALT), seed.expose());
        hkdf.expand(b"hashes", notes.as_mut()).map_err(|_| IdentityError::KeyPair)?;
        Ok(Self { ed25519, mldsa, public, reset, notes })
    }

    /// Makes an identity whose seeds are forgotten at once, for `--ephemeral` nodes and tests.
    ///
    /// # Errors
    /// [`IdentityError`] if the generator or the library fails.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::from_seed(&IdentitySeed::generate()?)
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Returns this node's PeerID.
    pub fn peer_id(&self) -> PeerId {
        self.public.peer_id()
    }

    /// Returns what this node's endpoints make stateless resets with.
    pub const fn reset_key(&self) -> &ResetKey {
        &self.reset
    }

    /// Returns the key of hashes that this node writes down for itself: whoever finds them cannot try out what they are of.
    pub fn notes_key(&self) -> &[u8; 32] {
        &self.notes
    }

    /// Signs PREFIX || label || message with both keys; the ML-DSA half is hedged (FIPS 204 §3.4).
    ///
    /// # Errors
    /// [`IdentityError::Sign`] if the library fails, for want of entropy above all.
    pub fn sign(&self, label: SignatureLabel, message: &[u8]) -> Result<CompositeSignature, IdentityError> {
        let signed = signed_bytes(label, message);
        let mut bytes = vec![0; SIGNATURE_LEN];
        let (mldsa, ed25519) = bytes.split_at_mut(MLDSA_SIGNATURE_LEN);
        let written = self.mldsa.sign(&signed, mldsa).map_err(|_| IdentityError::Sign)?;
        if written != MLDSA_SIGNATURE_LEN {
            return Err(IdentityError::Sign);
        }
        let half = self.ed25519.try_sign(&signed).map_err(|_| IdentityError::Sign)?;
        ed25519.copy_from_slice(half.as_ref());
        Ok(CompositeSignature(bytes))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id().short())
    }
}

/// Draws the library's first random byte: seeding its generator takes 30-60 ms, better at start than in a handshake.
///
/// # Errors
/// [`IdentityError::Entropy`] if the generator fails.
pub fn warm_up() -> Result<(), IdentityError> {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).map_err(|_| IdentityError::Entropy)
}

/// Both public keys of a node; every pair of lengths is legal, only signatures can be wrong.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicIdentity {
    mldsa: Box<[u8; MLDSA_PUBLIC_LEN]>,
    ed25519: [u8; ED25519_PUBLIC_LEN],
    peer_id: PeerId,
}

impl PublicIdentity {
    /// Reads the one encoding that [`PublicIdentity::to_spki`] writes.
    ///
    /// # Errors
    /// [`SpkiError`] if a single byte of the frame differs: there is no DER parser to confuse.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SpkiError> {
        if spki.len() != SPKI_LEN {
            return Err(SpkiError);
        }
        let keys = spki.strip_prefix(SPKI_PREFIX.as_slice()).ok_or(SpkiError)?;
        let (mldsa, ed25519) = keys.split_at(MLDSA_PUBLIC_LEN);
        Self::from_key_bytes(mldsa, ed25519).ok_or(SpkiError)
    }

    /// Writes the SubjectPublicKeyInfo, [`SPKI_LEN`] bytes.
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), self.mldsa.as_slice(), self.ed25519.as_slice()].concat()
    }

    /// Returns the PeerID, the hash of both keys.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Returns the raw ML-DSA-87 public key.
    pub fn mldsa(&self) -> &[u8; MLDSA_PUBLIC_LEN] {
        &self.mldsa
    }

    /// Returns the raw Ed25519 public key.
    pub fn ed25519(&self) -> &[u8; ED25519_PUBLIC_LEN] {
        &self.ed25519
    }

    /// Returns SHA-256 of the encoded key in hex, to compare a whole key file by eye.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.to_spki()))
    }

    /// Verifies both halves of a signature; the second is checked whatever became of the first.
    ///
    /// # Errors
    /// [`SignatureError`] names the half that failed.
    pub fn verify(
        &self,
        label: SignatureLabel,
        message: &[u8],
        signature: &CompositeSignature,
    ) -> Result<(), SignatureError> {
        let signed = signed_bytes(label, message);
        let (mldsa, ed25519) = signature.0.split_at(MLDSA_SIGNATURE_LEN);
        let mldsa_ok = UnparsedPublicKey::new(&ML_DSA_87, self.mldsa.as_slice()).verify(&signed, mldsa).is_ok();
        let ed25519_ok = UnparsedPublicKey::new(&ED25519, self.ed25519.as_slice()).verify(&signed, ed25519).is_ok();
        match (mldsa_ok, ed25519_ok) {
            (true, true) => Ok(()),
            (true, false) => Err(SignatureError::BadEd25519Half),
            (false, true) => Err(SignatureError::BadMlDsaHalf),
            (false, false) => Err(SignatureError::BadBothHalves),
        }
    }

    fn from_key_bytes(mldsa: &[u8], ed25519: &[u8]) -> Option<Self> {
        let mldsa: Box<[u8; MLDSA_PUBLIC_LEN]> = mldsa.to_vec().try_into().ok()?;
        let ed25519 = ed25519.try_into().ok()?;
        let peer_id = PeerId::from_keys(&mldsa, &ed25519);
        Some(Self { mldsa, ed25519, peer_id })
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({})", self.peer_id.short())
    }
}

/// ML-DSA-87 signature (4627 bytes) || Ed25519 signature (64 bytes).
#[derive(Clone, PartialEq, Eq)]
pub struct CompositeSignature(Vec<u8>);

impl CompositeSignature {
    /// Takes signature bytes from the wire; only the length is checked here.
    ///
    /// # Errors
    /// [`SignatureError`] says which half is missing, or that the length is neither.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SignatureError> {
        match bytes.len() {
            SIGNATURE_LEN => Ok(Self(bytes.to_vec())),
            MLDSA_SIGNATURE_LEN => Err(SignatureError::MissingEd25519Half),
            ED25519_SIGNATURE_LEN => Err(SignatureError::MissingMlDsaHalf),
            _ => Err(SignatureError::Length),
        }
    }

    /// Returns the [`SIGNATURE_LEN`] bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for CompositeSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompositeSignature(..)")
    }
}

fn signed_bytes(label: SignatureLabel, message: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, label.as_bytes(), message].concat()
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes: no panic, and nothing is taken that was not made with the keys. Shared with the fuzz targets.

use std::{sync::OnceLock, time::Instant};

use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentitySeed, PublicIdentity, SEED_LEN, SignatureLabel},
    keystore::{CreatedAt, KdfParams, Keystore},
    peer_id::PeerId,
    ratchet::machine::{Ratchet, RatchetOutput},
    schedule::{Exporter, Role, SessionSecrets, Transcript},
    tls::kx::{SHARE_LEN, X25519MlKem1024},
};
use rustls::crypto::SupportedKxGroup as _;
use sha2::{Digest as _, Sha256};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 6] = [
    ("keystore", keystore),
    ("public_key", public_key),
    ("signature", signature),
    ("peer_id", peer_id),
    ("key_share", key_share),
    ("ratchet", ratchet),
];

/// What the samples are signed over.
pub const MESSAGE: &[u8] = b"a list";

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

/// The signer of the samples.
pub fn signer() -> &'static Identity {
    static SIGNER: OnceLock<Identity> = OnceLock::new();
    SIGNER.get_or_init(|| Identity::from_seed(&IdentitySeed::from_bytes(&[1; SEED_LEN])).expect("any seed will do"))
}

/// A key file as it is, and one whose checksum fits.
fn keystore(data: &[u8]) {
    open(data);
    open(&[data, Sha256::digest(data).as_slice()].concat());
}

fn open(file: &[u8]) {
    let encrypted = Keystore::is_encrypted(file);
    // Without a passphrase: Argon2id at the costs that a file may ask takes longer than any target should.
    if let Ok((seed, created)) = Keystore::open_with_date(file, None) {
        assert_eq!(encrypted, Ok(false));
        let CreatedAt(_) = created;
        let again = Keystore::seal(&seed, &created, None, KdfParams::SMALL, &[0; 16], &[0; 24]);
        assert_eq!(again.as_deref(), Ok(file));
    }
}

fn public_key(data: &[u8]) {
    if let Ok(key) = PublicIdentity::from_spki(data) {
        assert_eq!(key.to_spki(), data);
        let _ = (key.peer_id(), key.fingerprint());
        let signature = signature_of(MESSAGE);
        let own = data == signer().public().to_spki();
        assert_eq!(key.verify(SignatureLabel::BootstrapList, MESSAGE, &signature).is_ok(), own);
    }
}

/// A signature of the samples' message.
pub fn signature_of(message: &[u8]) -> CompositeSignature {
    static MADE: OnceLock<CompositeSignature> = OnceLock::new();
    MADE.get_or_init(|| signer().sign(SignatureLabel::BootstrapList, message).expect("it signs")).clone()
}

/// Any bytes as a signature over what was never signed.
fn signature(data: &[u8]) {
    if let Ok(signature) = CompositeSignature::from_bytes(data) {
        assert_eq!(signature.as_bytes(), data);
        let verified = signer().public().verify(SignatureLabel::BootstrapList, b"another list", &signature);
        assert!(verified.is_err());
    }
}

fn peer_id(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert!(peer.to_string().eq_ignore_ascii_case(text));
    }
}

/// A key share of whoever dials or answers.
fn key_share(data: &[u8]) {
    if let Ok(answer) = X25519MlKem1024.start_and_complete(data) {
        assert_eq!((data.len(), answer.pub_key.len()), (SHARE_LEN, SHARE_LEN));
    }
    // Keys are made for each: the second half of them only.
    if data.len() == SHARE_LEN {
        let _secret = X25519MlKem1024.start().expect("keys are made").complete(data);
    }
}

/// A message in the place of each that a step has: `u8 which || bytes`. Bit 2: as the difference to the honest one.
fn ratchet(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    let now = Instant::now();
    let side = |role| {
        let secrets = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None);
        Ratchet::new(role, secrets.into_parts(role).ratchet, now, 7)
    };
    let mut sides = [side(Role::Initiator), side(Role::Responder)];
    sides[0].request_step(now);
    for turn in 0..3 {
        let [from, to] = [turn % 2, (turn + 1) % 2];
        let honest = sent(&mut sides[from]).expect("a step has three messages");
        let is_ours = turn == usize::from(which & 3);
        let message = if is_ours { replaced(which & 4 != 0, &honest, bytes) } else { honest.clone() };
        let taken = sides[to].handle_message(now, &message);
        if !is_ours {
            assert_eq!(taken, Ok(()));
        } else if message != honest {
            // Only the first message of a step is proved by nothing yet.
            assert!(turn == 0 || taken.is_err() || sides[to].epoch() == Some(0), "a forged message moved the ratchet");
            if taken.is_err() {
                assert!(sides[to].resume_psk().is_none(), "an aborted ratchet holds nothing");
            }
            return;
        }
    }
    assert_eq!(sides.map(|side| side.epoch()), [Some(1); 2]);
}

fn replaced(differs: bool, honest: &[u8], bytes: &[u8]) -> Vec<u8> {
    if !differs {
        return bytes.to_vec();
    }
    let mut message = honest.to_vec();
    message.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
    message
}

/// The message that a side sends next.
fn sent(side: &mut Ratchet) -> Option<Vec<u8>> {
    while let Some(output) = side.poll_output() {
        if let RatchetOutput::Send(message) = output {
            return Some(message);
        }
    }
    None
}

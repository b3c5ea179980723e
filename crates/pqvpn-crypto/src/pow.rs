// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof of work that admits a PeerID to one position of the DHT for one week (security.md 7.1).
//!
//! Argon2id (RFC 9106) with 8 MiB, 1 pass, 1 lane: the position follows from the output, so every try at another
//! position costs a whole proof, and memory keeps special hardware from being much cheaper than a laptop.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};

use crate::peer_id::PeerId;

/// Memory of one evaluation in KiB.
const MEMORY_KIB: u32 = 8 * 1024;
/// Length of the Argon2id salt in bytes.
const SALT_LEN: usize = 16;

/// How many evaluations a proof costs on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difficulty(pub u32);

impl Difficulty {
    /// About five seconds of one core of 2026 (security.md 7.1).
    pub const DEFAULT: Self = Self(512);
}

impl Default for Difficulty {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is to be proved: that this peer worked for this week in this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// The network id.
    pub network: [u8; 32],
    /// Who is to be admitted.
    pub peer: PeerId,
    /// The peer's week.
    pub week: u32,
}

impl Challenge {
    /// SHA-256("pqvpn-dht" || network || PeerID || u32 week), the first 16 bytes.
    fn salt(&self) -> [u8; SALT_LEN] {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn-dht");
        hash.update(self.network);
        hash.update(self.peer.as_bytes());
        hash.update(self.week.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&digest[..SALT_LEN]);
        salt
    }
}

/// The Argon2id output for one nonce: password = nonce (u64 BE), 32 bytes. About 10 ms and 8 MiB.
#[must_use]
pub fn evaluate(challenge: &Challenge, nonce: u64) -> [u8; 32] {
    Evaluator::new(challenge).evaluate(nonce)
}

/// Whether `out`, as a 256-bit integer, is below 2^256 / D; difficulty 0 and 1 admit everything.
#[must_use]
pub fn meets(out: &[u8; 32], difficulty: Difficulty) -> bool {
    // out < 2^256 / D exactly when out * D still fits 256 bits.
    let mut carry = 0;
    for byte in out.iter().rev() {
        carry = (u64::from(*byte) * u64::from(difficulty.0) + carry) >> 8;
    }
    carry == 0
}

/// Searches from `start` upwards for a nonce that meets the difficulty; asks `stop` before every evaluation.
#[must_use]
pub fn solve(
    challenge: &Challenge,
    difficulty: Difficulty,
    start: u64,
    stop: &dyn Fn() -> bool,
) -> Option<(u64, [u8; 32])> {
    let mut evaluator = Evaluator::new(challenge);
    let mut nonce = start;
    while !stop() {
        let out = evaluator.evaluate(nonce);
        if meets(&out, difficulty) {
            return Some((nonce, out));
        }
        nonce = nonce.wrapping_add(1);
    }
    None
}

/// Whether a claimed proof holds; costs an evaluation only if the claim meets the difficulty.
#[must_use]
pub fn check(challenge: &Challenge, difficulty: Difficulty, nonce: u64, out: &[u8; 32]) -> bool {
    Checker::default().check(challenge, difficulty, nonce, out)
}

/// Checks many proofs in the same 8 MiB: an allocator that is asked for so much again and again keeps far more.
#[derive(Default)]
pub struct Checker {
    memory: Vec<Block>,
}

impl Checker {
    /// As [`check`].
    #[must_use]
    pub fn check(&mut self, challenge: &Challenge, difficulty: Difficulty, nonce: u64, out: &[u8; 32]) -> bool {
        if !meets(out, difficulty) {
            return false;
        }
        let mut evaluator = Evaluator::with_memory(challenge, std::mem::take(&mut self.memory));
        let held = evaluator.evaluate(nonce) == *out;
        self.memory = evaluator.memory;
        held
    }

    /// Gives the memory back until the next check.
    pub fn release(&mut self) {
        self.memory = Vec::new();
    }
}

/// One challenge and the memory its evaluations share.
struct Evaluator {
    argon2: Argon2<'static>,
    salt: [u8; SALT_LEN],
    memory: Vec<Block>,
}

impl Evaluator {
    fn new(challenge: &Challenge) -> Self {
        Self::with_memory(challenge, Vec::new())
    }

    fn with_memory(challenge: &Challenge, mut memory: Vec<Block>) -> Self {
        let params = Params::new(MEMORY_KIB, 1, 1, Some(32)).expect("the costs are legal");
        memory.resize(params.block_count(), Block::new());
        Self { argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params), salt: challenge.salt(), memory }
    }

    fn evaluate(&mut self, nonce: u64) -> [u8; 32] {
        let mut out = [0; 32];
        self.argon2
            .hash_password_into_with_memory(&nonce.to_be_bytes(), &self.salt, &mut out, &mut self.memory)
            .expect("all lengths are fixed and legal");
        out
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of the DHT from outside: every codec, every refusal, known answers, sizes, mutations, the fuzz corpus.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[expect(unreachable_pub, reason = "the fuzz crate shares it")]
mod check;
mod codec;
mod corpus;
#[path = "../corpora/dice.rs"]
mod dice;
mod envelopes;
mod facts;
#[path = "../corpora/inputs.rs"]
mod inputs;
mod limits;
mod mutation;
mod records;
mod replay;
mod samples;
mod sizes;

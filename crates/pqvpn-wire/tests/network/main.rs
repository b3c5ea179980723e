// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks from outside: every codec, every refusal, known answers, codes and their typing errors, the fuzz corpus.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[expect(unreachable_pub, reason = "the fuzz crate shares it")]
mod check;
mod code;
mod codec;
mod corpus;
#[path = "../corpora/dice.rs"]
mod dice;
#[path = "../corpora/inputs.rs"]
mod inputs;
mod joins;
mod limits;
mod model;
mod mutation;
mod samples;
mod signatures;

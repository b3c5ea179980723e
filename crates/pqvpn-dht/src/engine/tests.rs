// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes talking to each other in memory, under virtual time.

mod attacks;
mod life;
mod world;

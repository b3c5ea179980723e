// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes talking to each other in memory, under virtual time.

mod attacks;
mod clocks;
mod cost;
mod endurance;
mod life;
mod siege;
mod solo;
mod world;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes on the data path: tunnel and relay header, inner packets, segmentation, coalescing, replay window, addresses.
//!
//! Nothing here does IO, reads a clock or draws randomness; the data plane lends its buffers and gets them back.
//!
//! Outbound, a super-packet from the TUN (virtio header + up to 64 kB) goes through [`segment::Segmenter`], which
//! writes each wire-sized inner packet once, into the buffer that is sealed and sent. Inbound, opened packets go
//! through [`coalesce::Coalescer`], which joins them again without copying a payload byte.
#![forbid(unsafe_code)]

pub mod addr;
pub mod checksum;
pub mod coalesce;
pub mod fragment;
pub mod header;
pub mod inner;
pub mod ip;
pub mod piece;
pub mod relay;
pub mod replay;
pub mod segment;
pub mod too_big;
pub mod virtio;

#[cfg(test)]
mod testpackets;

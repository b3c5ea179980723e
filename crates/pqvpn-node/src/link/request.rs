// SPDX-License-Identifier: MIT OR Apache-2.0
//! One frame on one direction of a stream, as every request and every answer is.

use std::io;

use pqvpn_wire::{
    WireError,
    frame::{FRAME_HEADER_LEN, MAGIC},
};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;

use super::ControlRecv;

/// Memory for a frame before its first byte is there.
const FIRST_BYTES: usize = 4096;

/// Reads a header of one family of frames: type and length.
pub(crate) type ParseHeader = fn(&[u8; FRAME_HEADER_LEN]) -> Result<(u8, usize), WireError>;

/// Why there is no frame.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    /// The peer sent something else.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream broke off.
    #[error(transparent)]
    Stream(#[from] io::Error),
}

/// Whether a stream begins like a frame of this type.
pub(crate) fn is_of(header: &[u8; FRAME_HEADER_LEN], wanted: u8) -> bool {
    let [.., kind, _, _, _, _] = *header;
    header.starts_with(&MAGIC) && kind == wanted
}

/// Reads the frame of a stream's direction, its header included where it was not read yet; nothing may follow it.
///
/// # Errors
/// [`FrameError`].
pub(crate) async fn read_frame(
    recv: &mut ControlRecv,
    header: Option<[u8; FRAME_HEADER_LEN]>,
    parse: ParseHeader,
    kind: u8,
    most: usize,
) -> Result<Vec<u8>, FrameError> {
    let header = match header {
        Some(header) => header,
        None => {
            let mut header = [0; FRAME_HEADER_LEN];
            recv.read_exact(&mut header).await?;
            header
        }
    };
    let (found, length) = parse(&header)?;
    if found != kind {
        return Err(WireError::Type(found).into());
    }
    if length > most {
        return Err(WireError::TooLong(u32::try_from(length).unwrap_or(u32::MAX)).into());
    }
    // What is announced is not there yet: memory follows what comes.
    let mut bytes = Vec::with_capacity(length.min(FIRST_BYTES));
    (&mut *recv).take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() != length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if recv.read(&mut [0]).await? != 0 {
        return Err(WireError::Malformed("stream").into());
    }
    Ok(bytes)
}

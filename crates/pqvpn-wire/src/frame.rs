// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of the control stream: `"PQ" | version u8 | type u8 | length u32 BE | payload`.

use crate::{WireError, control::Message};

/// First two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"PQ";
/// Version of the control protocol.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const FRAME_HEADER_LEN: usize = 8;
/// Longest legal payload in bytes: the largest message is a ratchet reply of 1669 bytes; the rest is room to grow.
pub const MAX_PAYLOAD: usize = 8 * 1024;

/// Encodes one message as one frame.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let payload = message.encode_payload();
    wrap(message.type_byte(), &payload)
}

/// Frames a message of any type; own messages are far shorter than the length field allows.
pub(crate) fn wrap(kind: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("own messages are shorter than their type allows");
    let mut frame = Vec::with_capacity(FRAME_HEADER_LEN + message.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, kind]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Reads the header of a frame that is of one of `kinds` and at most `most` bytes long: its type and length.
pub(crate) fn parse_header(
    header: &[u8; FRAME_HEADER_LEN],
    kinds: [u8; 2],
    most: usize,
) -> Result<(u8, usize), WireError> {
    check_magic(header)?;
    let [_, _, version, kind, a, b, c, d] = *header;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    if !kinds.contains(&kind) {
        return Err(WireError::Type(kind));
    }
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(len) if len <= most => Ok((kind, len)),
        _ => Err(WireError::TooLong(length)),
    }
}

/// Cuts a byte stream into messages. Holds at most one frame plus what the caller pushed at once.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// Makes an empty reader.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Yields the next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// The stream is not a legal sequence of frames; it cannot be read on.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let pending = &self.buffer[self.taken..];
        let Some((header, rest)) = pending.split_first_chunk::<FRAME_HEADER_LEN>() else {
            return check_magic(pending).map(|()| None);
        };
        check_magic(header)?;
        let [_, _, version, kind, a, b, c, d] = *header;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let length = u32::from_be_bytes([a, b, c, d]);
        let payload_len = length as usize;
        if payload_len > MAX_PAYLOAD {
            return Err(WireError::TooLong(length));
        }
        let Some(payload) = rest.get(..payload_len) else {
            return Ok(None);
        };
        let message = Message::decode(kind, payload)?;
        self.taken += FRAME_HEADER_LEN + payload_len;
        Ok(Some(message))
    }
}

fn check_magic(start: &[u8]) -> Result<(), WireError> {
    let known = start.len().min(MAGIC.len());
    if start[..known] == MAGIC[..known] { Ok(()) } else { Err(WireError::Magic) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Confirm;

    #[test]
    fn messages_survive_any_cut_of_the_stream() {
        let sent = [
            Message::Confirm(Confirm { mac: [7; 32] }),
            Message::Ratchet(vec![1; 1637]),
            Message::Confirm(Confirm { mac: [8; 32] }),
        ];
        let stream: Vec<u8> = sent.iter().flat_map(encode).collect();
        for cut in 1..64 {
            let mut reader = FrameReader::new();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                reader.push(piece);
                while let Some(message) = reader.next_message().expect("legal stream") {
                    got.push(message);
                }
            }
            assert_eq!(got, sent, "pieces of {cut} bytes");
        }
    }

    #[test]
    fn a_foreign_protocol_is_refused_at_its_first_byte() {
        let mut reader = FrameReader::new();
        reader.push(b"G");
        assert_eq!(reader.next_message(), Err(WireError::Magic));
    }

    #[test]
    fn another_version_and_an_endless_frame_are_refused() {
        let mut frame = encode(&Message::Ratchet(vec![0; 4]));
        frame[2] = 2;
        let mut reader = FrameReader::new();
        reader.push(&frame);
        assert_eq!(reader.next_message(), Err(WireError::Version(2)));

        let mut frame = encode(&Message::Ratchet(vec![0; 4]));
        frame[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut reader = FrameReader::new();
        reader.push(&frame);
        assert_eq!(reader.next_message(), Err(WireError::TooLong(u32::MAX)));
    }
}

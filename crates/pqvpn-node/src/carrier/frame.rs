// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams in a message of a carrier: each with its length in front, two bytes, until the message is over.

use thiserror::Error;

/// Bytes in front of each datagram.
pub(super) const PREFIX: usize = 2;
/// Shortest datagram: nothing that the data plane or QUIC makes is shorter, and each costs us the same.
const MIN_DATAGRAM: usize = 20;
/// Longest datagram: what its length can say.
pub(super) const MAX_DATAGRAM: usize = u16::MAX as usize;
/// Longest message that is taken: one more datagram than a sender puts together, and the longest there is.
pub(super) const MAX_MESSAGE: usize = 96 * 1024;

/// A message that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message ends inside a datagram, or has one that is too short")]
pub(super) struct Malformed;

/// Appends a datagram; `false`, and nothing appended, when it is shorter or longer than any datagram.
pub(super) fn append(message: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(len) = u16::try_from(datagram.len()) else { return false };
    if datagram.len() < MIN_DATAGRAM {
        return false;
    }
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(datagram);
    true
}

/// The datagrams of a message.
///
/// # Errors
/// [`Malformed`]; nothing of it is used then.
pub(super) fn parse(mut message: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut datagrams = Vec::with_capacity(message.len() / 1024 + 1);
    while !message.is_empty() {
        let (prefix, rest) = message.split_first_chunk::<PREFIX>().ok_or(Malformed)?;
        let len = usize::from(u16::from_be_bytes(*prefix));
        let (datagram, rest) = rest.split_at_checked(len).filter(|_| len >= MIN_DATAGRAM).ok_or(Malformed)?;
        datagrams.push(datagram);
        message = rest;
    }
    Ok(datagrams)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_message_is_refused_whole() {
        for bad in [&[0][..], &[0, 0], &[0, 2, 1], &[0, 1, 9, 0], &[255, 255, 1]] {
            assert_eq!(parse(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(parse(&[&[0, 19][..], &[1; 19]].concat()), Err(Malformed), "too short for any datagram");
        assert!(parse(&[&[0, 20][..], &[1; 20]].concat()).is_ok());
        assert_eq!(parse(&[]), Ok(Vec::new()));
        let mut message = Vec::new();
        assert!(!append(&mut message, &[1; 19]) && !append(&mut message, &[0; 65_536]) && message.is_empty());
    }

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 20..300), 0..9)) {
            let mut message = Vec::new();
            all.iter().for_each(|datagram| assert!(append(&mut message, datagram)));
            prop_assert_eq!(parse(&message).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(all) = parse(&bytes) {
                prop_assert_eq!(all.iter().map(|one| one.len() + PREFIX).sum::<usize>(), bytes.len());
            }
        }
    }
}

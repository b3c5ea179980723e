// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carriers speak: datagrams in a message, each with its length in front, two bytes, until the message is over; and
//! what a proxy answers that is to connect one.

use thiserror::Error;

/// Bytes in front of each datagram.
pub const PREFIX: usize = 2;
/// Shortest datagram: nothing that the data plane or QUIC makes is shorter, and each costs us the same.
const MIN_DATAGRAM: usize = 20;
/// Longest datagram: what its length can say.
pub const MAX_DATAGRAM: usize = u16::MAX as usize;
/// Longest message that is taken: one more datagram than a sender puts together, and the longest there is.
pub const MAX_MESSAGE: usize = 96 * 1024;

/// A message that is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message ends inside a datagram, or has one that is too short")]
pub struct Malformed;

/// Appends a datagram; `false`, and nothing appended, when it is shorter or longer than any datagram.
pub fn append(message: &mut Vec<u8>, datagram: &[u8]) -> bool {
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
pub fn parse(mut message: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
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

/// Longest answer of a proxy.
pub const MAX_ANSWER: usize = 8192;

/// The head of a proxy's answer to CONNECT (RFC 9110 9.3.6), byte by byte: what follows it is whose the proxy connects us to.
#[derive(Debug, Default)]
pub struct ProxyAnswer(Vec<u8>);

/// An answer that is none of a proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the proxy does not answer in HTTP")]
pub struct NotHttp;

impl ProxyAnswer {
    /// Takes the next byte; the status once the head is whole.
    ///
    /// # Errors
    /// [`NotHttp`]: it is too long, or no head of HTTP/1.
    pub fn push(&mut self, byte: u8) -> Result<Option<u16>, NotHttp> {
        if self.0.len() >= MAX_ANSWER {
            return Err(NotHttp);
        }
        self.0.push(byte);
        if !self.0.ends_with(b"\r\n\r\n") {
            return Ok(None);
        }
        status(&self.0).map(Some).ok_or(NotHttp)
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let code = words.next().filter(|code| is_http && code.len() == 3 && code.bytes().all(|c| c.is_ascii_digit()))?;
    code.parse().ok()
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

    fn answer(text: &[u8]) -> (usize, Result<Option<u16>, NotHttp>) {
        let (mut answer, mut read) = (ProxyAnswer::default(), 0);
        for byte in text {
            read += 1;
            match answer.push(*byte) {
                Ok(None) => {}
                over => return (read, over),
            }
        }
        (read, Ok(None))
    }

    #[test]
    fn an_answer_ends_with_its_head_and_has_a_status_of_three_digits() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nhello"), (27, Ok(Some(200))));
        assert_eq!(answer(b"HTTP/1.0 407 No\r\n\r\n").1, Ok(Some(407)));
        assert_eq!(answer(b"HTTP/1.1 200"), (12, Ok(None)));
        for bad in ["SSH-2.0-x", "HTTP/1.1", "HTTP/1.1 2 x", "HTTP/1.1 +20 x", "HTTP/2 200 OK", ""] {
            assert_eq!(answer(format!("{bad}\r\n\r\n").as_bytes()).1, Err(NotHttp), "{bad}");
        }
        assert_eq!(answer(&[b'a'; 9000]), (MAX_ANSWER + 1, Err(NotHttp)));
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

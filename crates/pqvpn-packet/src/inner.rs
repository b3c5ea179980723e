// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a decrypted payload is, told by its first byte, and the codec of the path probe (security.md 1.5).

/// Length of an encoded [`Probe`] in bytes.
pub const PROBE_LEN: usize = 10;

/// First byte of cover traffic.
const COVER: u8 = 0x00;
/// First byte of a path probe or its answer.
const PROBE: u8 = 0x01;
/// First byte of an onion cell.
const CELL: u8 = 0x02;
/// First byte of a fragment.
const FRAGMENT: u8 = 0x03;
/// First byte of the word that ends a session.
const END: u8 = 0x04;

/// The sort of a decrypted payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inner {
    /// An IP packet (first nibble 4 or 6); bytes after its own length are padding.
    Ip,
    /// Cover traffic: dropped without a look.
    Cover,
    /// A path probe or its answer, see [`Probe`].
    Probe,
    /// An onion cell.
    Cell,
    /// A piece of an inner packet, used where the path does not carry the whole packet.
    Fragment,
    /// The word that ends the session, see [`End`].
    End,
}

/// Why a decrypted payload is refused. The peer is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InnerError {
    /// No byte at all.
    #[error("empty payload")]
    Empty,
    /// The first byte stands for nothing.
    #[error("unknown payload, first byte {0:#04x}")]
    Unknown(u8),
    /// A probe of the wrong length or direction.
    #[error("malformed path probe")]
    Probe,
    /// The end of a session without its reason.
    #[error("malformed end of session")]
    End,
}

impl Inner {
    /// Tells the sort of a decrypted payload.
    ///
    /// # Errors
    /// [`InnerError::Empty`] and [`InnerError::Unknown`].
    pub fn classify(plaintext: &[u8]) -> Result<Self, InnerError> {
        match plaintext.first() {
            None => Err(InnerError::Empty),
            Some(0x40..=0x4f | 0x60..=0x6f) => Ok(Self::Ip),
            Some(&COVER) => Ok(Self::Cover),
            Some(&PROBE) => Ok(Self::Probe),
            Some(&CELL) => Ok(Self::Cell),
            Some(&FRAGMENT) => Ok(Self::Fragment),
            Some(&END) => Ok(Self::End),
            Some(&first) => Err(InnerError::Unknown(first)),
        }
    }
}

/// Flag of a probe's second byte: it answers one.
const ANSWER: u8 = 1;
/// Flag of a probe's second byte: it asks whether the path works, and must not move the receiver's own choice.
const CHECK: u8 = 2;

/// What a path probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProbeKind {
    /// Asks for an answer and says that its sender has chosen this path.
    Nominate = 0,
    /// Answers a probe of either kind.
    Answer = ANSWER,
    /// Asks for an answer and for nothing else: the receiver's path stays where it is.
    Check = CHECK,
}

/// A path probe: `0x01 || u8 flags || u64 id`, big endian. Flags: bit 0 answer, bit 1 check (never both), others 0.
/// Later bytes are padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// What it is for.
    pub kind: ProbeKind,
    /// Chosen by the prober, echoed in the answer.
    pub id: u64,
}

impl Probe {
    /// The answer to this probe.
    #[must_use]
    pub const fn answer(self) -> Self {
        Self { kind: ProbeKind::Answer, id: self.id }
    }

    /// The payload bytes.
    #[must_use]
    pub const fn encode(&self) -> [u8; PROBE_LEN] {
        let [a, b, c, d, e, f, g, h] = self.id.to_be_bytes();
        [PROBE, self.kind as u8, a, b, c, d, e, f, g, h]
    }

    /// Reads a payload that [`Inner::classify`] called a probe.
    ///
    /// # Errors
    /// [`InnerError::Probe`] when it is short, or of flags that mean nothing.
    pub fn decode(plaintext: &[u8]) -> Result<Self, InnerError> {
        let Some(&[PROBE, flags, a, b, c, d, e, f, g, h]) = plaintext.first_chunk::<PROBE_LEN>() else {
            return Err(InnerError::Probe);
        };
        let kind = match flags {
            0 => ProbeKind::Nominate,
            ANSWER => ProbeKind::Answer,
            CHECK => ProbeKind::Check,
            _ => return Err(InnerError::Probe),
        };
        Ok(Self { kind, id: u64::from_be_bytes([a, b, c, d, e, f, g, h]) })
    }
}

/// The last word of a session whose link sleeps: `0x04 || u8 reason`, where an awake link would be closed with that code.
/// Later bytes are padding, up to the length of a probe: by its length it tells nobody what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// A close code of the link.
    pub reason: u8,
}

impl End {
    /// The payload bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; PROBE_LEN] {
        [END, self.reason, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Reads a payload that [`Inner::classify`] called an end.
    ///
    /// # Errors
    /// [`InnerError::End`] when it is short.
    pub fn decode(plaintext: &[u8]) -> Result<Self, InnerError> {
        match plaintext {
            [END, reason, ..] => Ok(Self { reason: *reason }),
            _ => Err(InnerError::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_byte_decides() {
        let sorts = [
            (0x45, Inner::Ip),
            (0x60, Inner::Ip),
            (0, Inner::Cover),
            (1, Inner::Probe),
            (2, Inner::Cell),
            (3, Inner::Fragment),
            (4, Inner::End),
        ];
        for (first, sort) in sorts {
            assert_eq!(Inner::classify(&[first, 9]), Ok(sort));
        }
        assert_eq!(Inner::classify(&[]), Err(InnerError::Empty));
        for first in [5, 0x3f, 0x50, 0x70, 0xff] {
            assert_eq!(Inner::classify(&[first]), Err(InnerError::Unknown(first)));
        }
    }

    #[test]
    fn an_end_names_its_reason_and_is_as_long_as_a_probe() {
        let end = End { reason: 2 };
        assert_eq!(end.encode(), [4, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(End::decode(&end.encode()), Ok(end));
        assert_eq!(End::decode(&[4]), Err(InnerError::End));
        assert_eq!(End::decode(&[1, 2]), Err(InnerError::End));
    }

    #[test]
    fn probe_layout_and_answer() {
        let probe = Probe { kind: ProbeKind::Nominate, id: 0x0102_0304_0506_0708 };
        assert_eq!(probe.encode(), [1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(probe.answer().encode(), [1, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        let check = Probe { kind: ProbeKind::Check, ..probe };
        assert_eq!(check.encode(), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(check.answer(), probe.answer());
        for flags in 3..=255 {
            assert_eq!(Probe::decode(&[1, flags, 1, 2, 3, 4, 5, 6, 7, 8]), Err(InnerError::Probe));
        }
        assert_eq!(Probe::decode(&[1, 0, 1]), Err(InnerError::Probe));
        assert_eq!(Probe::decode(&[2, 0, 1, 2, 3, 4, 5, 6, 7, 8]), Err(InnerError::Probe));
    }

    proptest! {
        #[test]
        fn probe_round_trip_ignores_padding(kind in 0..3_usize, id: u64, padding in 0_usize..64) {
            let kind = [ProbeKind::Nominate, ProbeKind::Answer, ProbeKind::Check][kind];
            let probe = Probe { kind, id };
            let mut bytes = probe.encode().to_vec();
            bytes.resize(PROBE_LEN + padding, 0);
            prop_assert_eq!(Inner::classify(&bytes), Ok(Inner::Probe));
            prop_assert_eq!(Probe::decode(&bytes), Ok(probe));
        }
    }
}

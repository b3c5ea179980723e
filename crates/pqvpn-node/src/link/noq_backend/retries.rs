// SPDX-License-Identifier: MIT OR Apache-2.0
//! First packets that would get a Retry get it before QUIC looks at them.
//!
//! noq derives the keys of a handshake, and wakes the task that judges it, before it can be asked for a Retry: three times the
//! work of the Retry itself, which a flood of forged addresses makes us do for each of its packets. What is said here is
//! what noq would say, so that noq takes the token (RFC 9000 §8.1.2, §17.2.5).
//!
//! Pure but for the random numbers of connection ids and nonces.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use noq::crypto::{CryptoError, HandshakeTokenKey, ServerConfig};
use noq::{ConnectionId, ConnectionIdGenerator as _};
use noq_proto::HashedConnectionIdGenerator;
use zeroize::Zeroizing;

use crate::link::LinkConfig;
use crate::link::unproven::Initial;

/// The first byte of a Retry: long header, fixed bit, type 3 (RFC 9000 §17.2.5).
const RETRY: u8 = 0xf0;
/// QUIC version 1 (RFC 9000).
const QUIC_V1: u32 = 1;
/// What the connection id of a first packet has at least (RFC 9000 §7.2).
const SHORTEST_FIRST_ID: usize = 8;

/// Seals the tokens of Retry packets, those of noq as well.
///
/// With one key for all, which is why the cipher is one that two tokens of the same nonce do no harm (RFC 8452): a key for each,
/// derived as noq has it, costs more than the token.
struct TokenKey(LessSafeKey);

impl TokenKey {
    fn new() -> Result<Self, Unspecified> {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut())?;
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key.as_ref())?)))
    }
}

/// The nonce of the cipher, and what is sealed along: all of the token's.
fn nonce(token: u128) -> (Nonce, Aad<[u8; 16]>) {
    let bytes = token.to_le_bytes();
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&bytes[..NONCE_LEN]);
    (Nonce::assume_unique_for_key(nonce), Aad::from(bytes))
}

impl HandshakeTokenKey for TokenKey {
    fn seal(&self, token_nonce: u128, data: &mut Vec<u8>) -> Result<(), CryptoError> {
        let (nonce, aad) = nonce(token_nonce);
        self.0.seal_in_place_append_tag(nonce, aad, data).map_err(|_| CryptoError)
    }

    fn open<'d>(&self, token_nonce: u128, data: &'d mut [u8]) -> Result<&'d [u8], CryptoError> {
        let (nonce, aad) = nonce(token_nonce);
        self.0.open_in_place(nonce, aad, data).map(|data| &*data).map_err(|_| CryptoError)
    }
}

/// Answers first packets with a Retry.
pub(super) struct Retries {
    key: Arc<TokenKey>,
    quic: Arc<dyn ServerConfig>,
    ids: u64,
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries").finish_non_exhaustive()
    }
}

impl Retries {
    /// Has `server` take the tokens of these. `None`: there are no random numbers, and noq is left to its own.
    pub(super) fn of(server: &mut noq::ServerConfig, config: &LinkConfig) -> Option<Self> {
        let key = Arc::new(TokenKey::new().ok()?);
        server.token_key(Arc::<TokenKey>::clone(&key));
        Some(Self { key, quic: Arc::clone(&server.crypto), ids: config.crypto.reset_key().connection_ids() })
    }

    /// The answer to an Initial without a token that came from there, in the form QUIC has the address. `None`: it is no first
    /// packet, and QUIC has to look at it.
    pub(super) fn answer(&self, now: SystemTime, from: SocketAddr, first: &Initial<'_>) -> Option<Vec<u8>> {
        let mut ids = HashedConnectionIdGenerator::from_key(self.ids);
        let to = ConnectionId::new(first.to);
        // What is sent to an id of ours answers a first packet of ours, or goes on with one that was answered.
        let goes_on = to.len() == ids.cid_len() && ids.validate(to).is_ok();
        if first.to.len() < SHORTEST_FIRST_ID || first.from.is_empty() || goes_on {
            return None;
        }
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let token = self.token(now, from, first.to, u128::from_le_bytes(nonce))?;
        let ours = ids.generate_cid();
        let mut retry = Vec::with_capacity(7 + first.from.len() + ours.len() + token.len() + 16);
        retry.push(RETRY);
        retry.extend(QUIC_V1.to_be_bytes());
        push_id(&mut retry, first.from)?;
        push_id(&mut retry, &ours)?;
        retry.extend(token);
        let tag = self.quic.retry_tag(QUIC_V1, to, &retry);
        retry.extend(tag);
        Some(retry)
    }

    /// A token in the form of noq 1 (`token.rs`), which takes it for its own.
    fn token(&self, now: SystemTime, from: SocketAddr, first_id: &[u8], nonce: u128) -> Option<Vec<u8>> {
        let mut token = Vec::with_capacity(96);
        // Of a Retry.
        token.push(0);
        match from.ip() {
            IpAddr::V4(ip) => {
                token.push(0);
                token.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                token.push(1);
                token.extend(ip.octets());
            }
        }
        token.extend(from.port().to_be_bytes());
        push_id(&mut token, first_id)?;
        token.extend(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs().to_be_bytes());
        self.key.seal(nonce, &mut token).ok()?;
        token.extend(nonce.to_le_bytes());
        Some(token)
    }
}

fn push_id(bytes: &mut Vec<u8>, id: &[u8]) -> Option<()> {
    bytes.push(u8::try_from(id.len()).ok()?);
    bytes.extend(id);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSliceMut};
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use noq::udp::RecvMeta;
    use pqvpn_crypto::identity::{Identity, PublicIdentity};
    use pqvpn_crypto::peer_id::PeerId;
    use pqvpn_crypto::tls::{Admission, LinkCrypto, Refusal, Side};

    use super::super::backend::QuicSocket;
    use super::*;
    use crate::link::socket::{LinkRecv, LinkSocket, LinkTransmit, Writable};

    /// Connection ids: what a stranger sends to at first, and its own.
    const FIRST: [u8; 8] = [9; 8];
    const THEIRS: [u8; 4] = [1; 4];

    #[derive(Debug)]
    struct Everybody;

    impl Admission for Everybody {
        fn admit(&self, _: &PeerId, _: &PublicIdentity, _: Side) -> Result<(), Refusal> {
            Ok(())
        }
    }

    fn from(address: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, address], 1))
    }

    /// What an endpoint has.
    fn endpoint() -> (noq::ServerConfig, Retries) {
        let identity = Arc::new(Identity::generate().unwrap());
        let config = LinkConfig::new(Arc::new(LinkCrypto::new(identity, Arc::new(Everybody))));
        let tls = noq::crypto::rustls::QuicServerConfig::with_initial(
            config.crypto.server_config(),
            config.crypto.initial_suite(),
        );
        let mut server = noq::ServerConfig::with_crypto(Arc::new(tls.unwrap()));
        let retries = Retries::of(&mut server, &config).unwrap();
        (server, retries)
    }

    /// A first packet.
    fn initial(to: &[u8], from: &[u8], token: &[u8], bytes: usize) -> Vec<u8> {
        let length = |id: &[u8]| u8::try_from(id.len()).unwrap();
        let mut packet = vec![0xc0, 0, 0, 0, 1, length(to)];
        packet.extend(to);
        packet.push(length(from));
        packet.extend(from);
        packet.push(length(token));
        packet.extend(token);
        packet.resize(bytes.max(packet.len()), 0);
        packet
    }

    #[test]
    fn a_token_opens_as_it_was_sealed_and_not_where_anything_of_it_is_changed() {
        let (key, other) = (TokenKey::new().unwrap(), TokenKey::new().unwrap());
        let mut sealed = b"token".to_vec();
        key.seal(7 << 100 | 7, &mut sealed).unwrap();
        assert_eq!(key.open(7 << 100 | 7, &mut sealed.clone()).unwrap(), b"token");
        // Of the nonce each byte counts, those as well that the cipher has no room for.
        assert!((0..128).all(|bit| key.open((7 << 100 | 7) ^ 1 << bit, &mut sealed.clone()).is_err()));
        assert!(other.open(7 << 100 | 7, &mut sealed.clone()).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(7 << 100 | 7, &mut changed).is_err());
        }
    }

    #[test]
    fn a_retry_is_for_who_sent_the_first_packet_and_smaller_than_that() {
        let (server, retries) = endpoint();
        let first = initial(&FIRST, &THEIRS, &[], 1200);
        let retry = retries.answer(SystemTime::now(), from(1), &Initial::read(&first).unwrap()).unwrap();
        assert!(retry.len() < 200 && retry[0] & 0xf0 == 0xf0, "{}", retry.len());
        assert_eq!(retry[1..6], [0, 0, 0, 1, 4]);
        assert_eq!(retry[6..10], THEIRS);
        let (packet, tag) = retry.split_last_chunk::<16>().unwrap();
        assert_eq!(*tag, server.crypto.retry_tag(QUIC_V1, ConnectionId::new(&FIRST), packet));
        // Nothing in it says where from, or how many there were.
        let again = retries.answer(SystemTime::now(), from(1), &Initial::read(&first).unwrap()).unwrap();
        let alike = retry.iter().zip(&again).skip(19).filter(|(one, other)| one == other).count();
        assert!(alike < 10, "{alike} of {}", retry.len());
    }

    #[test]
    fn what_is_no_first_packet_is_left_to_quic() {
        let (_server, retries) = endpoint();
        let ours = HashedConnectionIdGenerator::from_key(retries.ids).generate_cid();
        let is_answered = |datagram: &[u8]| {
            let first = Initial::read(datagram).filter(|initial| !initial.has_token);
            first.is_some_and(|first| retries.answer(SystemTime::now(), from(1), &first).is_some())
        };
        assert!(is_answered(&initial(&FIRST, &THEIRS, &[], 1200)));
        assert!(!is_answered(&initial(&FIRST, &THEIRS, &[1], 1200)), "a token");
        assert!(!is_answered(&initial(&FIRST, &THEIRS, &[], 1199)), "too short (RFC 9000 §14.1)");
        assert!(!is_answered(&initial(&FIRST[..7], &THEIRS, &[], 1200)), "too short an id");
        assert!(!is_answered(&initial(&FIRST, &[], &[], 1200)), "nothing a Retry could be told from");
        assert!(!is_answered(&initial(&ours, &THEIRS, &[], 1200)), "an answer to us");
        for first in [0x40, 0x80, 0xd0, 0xe0, 0xf0] {
            let mut other = initial(&FIRST, &THEIRS, &[], 1200);
            other[0] = first;
            assert!(!is_answered(&other), "{first:x}");
        }
        let mut newer = initial(&FIRST, &THEIRS, &[], 1200);
        newer[4] = 2;
        assert!(!is_answered(&newer));
        let long_id = initial(&[1; 21], &THEIRS, &[], 1200);
        assert!(!is_answered(&long_id));
        assert!((0..1200).all(|cut| !is_answered(&initial(&FIRST, &THEIRS, &[], 1200)[..cut])));
    }

    /// Has received one buffer.
    #[derive(Debug)]
    struct Once {
        came: Mutex<Option<(LinkRecv, Vec<u8>)>>,
        told: Mutex<Vec<SocketAddr>>,
    }

    impl LinkSocket for Once {
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [LinkRecv],
        ) -> Poll<io::Result<usize>> {
            let Some((came, bytes)) = self.came.lock().unwrap().take() else { return Poll::Pending };
            bufs[0][..bytes.len()].copy_from_slice(&bytes);
            meta[0] = came;
            Poll::Ready(Ok(1))
        }

        fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
            self.told.lock().unwrap().push(transmit.to);
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn writable(self: Arc<Self>) -> Writable {
            Box::pin(async { Ok(()) })
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(from(2))
        }
    }

    /// What QUIC sees of datagrams that came at once, and how many were answered.
    fn sifted(datagrams: &[Vec<u8>]) -> (Vec<u8>, usize) {
        let bytes = datagrams.concat();
        let came = LinkRecv { from: from(1), len: bytes.len(), stride: datagrams[0].len(), ..LinkRecv::default() };
        let once = Arc::new(Once { came: Mutex::new(Some((came, bytes))), told: Mutex::default() });
        let socket = QuicSocket::over(Arc::<Once>::clone(&once), Some(endpoint().1)).unwrap();
        let (mut buf, mut meta) = (vec![0; 65_536], [RecvMeta::default()]);
        let polled =
            socket.poll_recv(&mut Context::from_waker(Waker::noop()), &mut [IoSliceMut::new(&mut buf)], &mut meta);
        assert!(matches!(polled, Poll::Ready(Ok(1))));
        buf.truncate(meta[0].len);
        let told = once.told.lock().unwrap();
        assert!(told.iter().all(|to| *to == from(1)));
        (buf, told.len())
    }

    #[test]
    fn the_rest_of_what_came_at_once_is_seen_by_quic_as_it_came() {
        let first = |id: u8| initial(&[id; 8], &[id; 8], &[], 1200);
        let (other, tail) = (vec![0x40; 1200], vec![0x41; 70]);
        assert_eq!(sifted(&[first(1)]), (vec![], 1));
        assert_eq!(sifted(&[first(1), first(2)]), (vec![], 2));
        assert_eq!(sifted(&[first(1), first(1), first(1)]), (vec![], 1), "one flight, one answer");
        assert_eq!(sifted(&[other.clone(), first(1), tail.clone()]), ([other.clone(), tail.clone()].concat(), 1));
        assert_eq!(sifted(&[first(1), other.clone(), first(2)]), (other.clone(), 2));
        let token = initial(&[1; 8], &[1; 8], &[1; 60], 1200);
        assert_eq!(sifted(&[first(1), token.clone(), tail.clone()]), ([token, tail].concat(), 1));
        assert_eq!(sifted(&[vec![0x40]]), (vec![0x40], 0));
    }
}

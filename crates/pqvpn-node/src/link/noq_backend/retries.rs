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
use crate::link::initial::{Answer, Initial};

/// The first byte of a Retry: long header, fixed bit, type 3 (RFC 9000 §17.2.5).
const RETRY: u8 = 0xf0;
/// QUIC version 1 (RFC 9000).
const QUIC_V1: u32 = 1;
/// For how long a token is good: as long as a handshake may take.
const LIFETIME: Duration = Duration::from_secs(15);
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
        server.token_key(Arc::<TokenKey>::clone(&key)).retry_token_lifetime(LIFETIME);
        Some(Self { key, quic: Arc::clone(&server.crypto), ids: config.crypto.reset_key().connection_ids() })
    }

    /// Whether we have made a connection id.
    pub(super) fn is_ours(&self, id: &[u8]) -> bool {
        let ids = HashedConnectionIdGenerator::from_key(self.ids);
        id.len() == ids.cid_len() && ids.validate(ConnectionId::new(id)).is_ok()
    }

    /// What becomes of an Initial that nobody waits for, from there in the form QUIC has the address. A token that is none of ours
    /// is none (RFC 9000 §8.1.3), and one of ours for somebody else, or of the past, is not worth an answer.
    pub(super) fn answer(&self, now: SystemTime, from: SocketAddr, first: &Initial<'_>) -> Answer {
        if let Some(token) = self.open(first.token) {
            let is_good =
                token.starts_with(&whose(from)) && issued(&token).is_some_and(|at| seconds(now) <= at + LIFETIME);
            return if is_good { Answer::Quic } else { Answer::Silence };
        }
        if first.to.len() < SHORTEST_FIRST_ID {
            return Answer::Silence;
        }
        self.retry(now, from, first).map_or(Answer::Silence, Answer::Retry)
    }

    fn retry(&self, now: SystemTime, from: SocketAddr, first: &Initial<'_>) -> Option<Vec<u8>> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let token = self.token(now, from, first.to, u128::from_le_bytes(nonce))?;
        let ours = HashedConnectionIdGenerator::from_key(self.ids).generate_cid();
        let mut retry = Vec::with_capacity(7 + first.from.len() + ours.len() + token.len() + 16);
        retry.push(RETRY);
        retry.extend(QUIC_V1.to_be_bytes());
        push_id(&mut retry, first.from)?;
        push_id(&mut retry, &ours)?;
        retry.extend(token);
        let tag = self.quic.retry_tag(QUIC_V1, ConnectionId::new(first.to), &retry);
        retry.extend(tag);
        Some(retry)
    }

    /// A token in the form of noq 1 (`token.rs`), which takes it for its own.
    fn token(&self, now: SystemTime, from: SocketAddr, first_id: &[u8], nonce: u128) -> Option<Vec<u8>> {
        let mut token = whose(from);
        push_id(&mut token, first_id)?;
        token.extend(seconds(now).as_secs().to_be_bytes());
        self.key.seal(nonce, &mut token).ok()?;
        token.extend(nonce.to_le_bytes());
        Some(token)
    }

    /// What is in a token of ours.
    fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let (sealed, nonce) = token.split_last_chunk()?;
        let mut sealed = sealed.to_vec();
        self.key.open(u128::from_le_bytes(*nonce), &mut sealed).ok().map(<[u8]>::to_vec)
    }
}

/// How the token of a Retry to an address begins.
fn whose(address: SocketAddr) -> Vec<u8> {
    let mut token = Vec::with_capacity(96);
    // Of a Retry.
    token.push(0);
    match address.ip() {
        IpAddr::V4(ip) => {
            token.push(0);
            token.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            token.push(1);
            token.extend(ip.octets());
        }
    }
    token.extend(address.port().to_be_bytes());
    token
}

/// When a token was made, since 1970.
fn issued(token: &[u8]) -> Option<Duration> {
    token.last_chunk().map(|seconds| Duration::from_secs(u64::from_be_bytes(*seconds)))
}

/// Since 1970.
fn seconds(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
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

    /// What becomes of a datagram that nobody waits for.
    fn judged(retries: &Retries, now: SystemTime, from: SocketAddr, datagram: &[u8]) -> Answer {
        Initial::read(datagram).map_or(Answer::Quic, |first| retries.answer(now, from, &first))
    }

    fn told(retries: &Retries, now: SystemTime, from: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        match judged(retries, now, from, datagram) {
            Answer::Retry(retry) => retry,
            other @ (Answer::Quic | Answer::Silence) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_retry_is_for_who_sent_the_first_packet_and_smaller_than_that() {
        let (server, retries) = endpoint();
        let first = initial(&FIRST, &THEIRS, &[], 1200);
        let retry = told(&retries, SystemTime::now(), from(1), &first);
        assert!(retry.len() < 200 && retry[0] & 0xf0 == 0xf0, "{}", retry.len());
        assert_eq!(retry[1..6], [0, 0, 0, 1, 4]);
        assert_eq!(retry[6..10], THEIRS);
        let (packet, tag) = retry.split_last_chunk::<16>().unwrap();
        assert_eq!(*tag, server.crypto.retry_tag(QUIC_V1, ConnectionId::new(&FIRST), packet));
        assert!(retries.is_ours(&retry[11..19]) && !retries.is_ours(&FIRST) && !retries.is_ours(&[]));
        // Nothing in it says where from, or how many there were.
        let again = told(&retries, SystemTime::now(), from(1), &first);
        let alike = retry.iter().zip(&again).skip(19).filter(|(one, other)| one == other).count();
        assert!(alike < 10, "{alike} of {}", retry.len());
    }

    #[test]
    fn a_token_is_good_where_it_was_sent_and_for_a_while() {
        let ((_server, retries), (_other, others)) = (endpoint(), endpoint());
        let (now, first) = (SystemTime::now(), initial(&FIRST, &THEIRS, &[], 1200));
        let retry = told(&retries, now, from(1), &first);
        let again = initial(&retry[11..19], &THEIRS, &retry[19..retry.len() - 16], 1200);
        assert_eq!(judged(&retries, now, from(1), &again), Answer::Quic);
        assert_eq!(judged(&retries, now + LIFETIME - Duration::from_secs(1), from(1), &again), Answer::Quic);
        assert_eq!(judged(&retries, now + LIFETIME + Duration::from_secs(1), from(1), &again), Answer::Silence);
        assert_eq!(judged(&retries, now, from(2), &again), Answer::Silence);
        let port = SocketAddr::new(from(1).ip(), 2);
        assert_eq!(judged(&retries, now, port, &again), Answer::Silence);
        let mapped = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201], 1));
        assert_eq!(judged(&retries, now, mapped, &again), Answer::Silence);
        // What none of ours was is none.
        told(&others, now, from(1), &again);
        for token in [&[1][..], &[1; 16], &[1; 17], &[0; 63]] {
            told(&retries, now, from(1), &initial(&FIRST, &THEIRS, token, 1200));
        }
    }

    #[test]
    fn what_is_no_first_packet_is_left_to_quic_and_what_it_would_refuse_gets_silence() {
        let (_server, retries) = endpoint();
        let judged = |datagram: &[u8]| judged(&retries, SystemTime::now(), from(1), datagram);
        let is_told = |datagram: &[u8]| matches!(judged(datagram), Answer::Retry(_));
        assert!(is_told(&initial(&FIRST, &THEIRS, &[], 1200)));
        assert!(is_told(&initial(&FIRST, &[], &[], 1200)));
        assert!(is_told(&initial(&[1; 20], &[1; 20], &[], 1200)));
        assert_eq!(judged(&initial(&FIRST[..7], &THEIRS, &[], 1200)), Answer::Silence, "too short an id");
        assert_eq!(judged(&initial(&FIRST, &THEIRS, &[], 1199)), Answer::Quic, "too short (RFC 9000 §14.1)");
        assert_eq!(judged(&initial(&[1; 21], &THEIRS, &[], 1200)), Answer::Quic);
        for first in [0x40, 0x80, 0xd0, 0xe0, 0xf0] {
            let mut other = initial(&FIRST, &THEIRS, &[], 1200);
            other[0] = first;
            assert_eq!(judged(&other), Answer::Quic, "{first:x}");
        }
        let mut other = initial(&FIRST, &THEIRS, &[], 1200);
        other[4] = 2;
        assert_eq!(judged(&other), Answer::Quic, "a newer version");
        // An empty token whose length has two bytes, and one that is longer than all there is.
        let mut other = initial(&FIRST, &THEIRS, &[0], 1200);
        let at = 7 + FIRST.len() + THEIRS.len();
        other[at] = 0x40;
        assert!(is_told(&other));
        other[at] = 0x7f;
        assert_eq!(judged(&other), Answer::Quic);
        assert!((0..1200).all(|cut| judged(&initial(&FIRST, &THEIRS, &[], 1200)[..cut]) == Answer::Quic));
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
            // A full socket changes nothing.
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
        sifted_by(endpoint().1, datagrams)
    }

    fn sifted_by(retries: Retries, datagrams: &[Vec<u8>]) -> (Vec<u8>, usize) {
        let bytes = datagrams.concat();
        let came = LinkRecv { from: from(1), len: bytes.len(), stride: datagrams[0].len(), ..LinkRecv::default() };
        let once = Arc::new(Once { came: Mutex::new(Some((came, bytes))), told: Mutex::default() });
        let socket = QuicSocket::over(Arc::<Once>::clone(&once), Some(retries)).unwrap();
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
        let retries = endpoint().1;
        let token = retries.token(SystemTime::now(), from(1), &[1; 8], 7).unwrap();
        let proven = initial(&[1; 8], &[1; 8], &token, 1200);
        let came = [first(1), proven.clone(), tail.clone()];
        assert_eq!(sifted_by(retries, &came), ([proven, tail].concat(), 1));
        assert_eq!(sifted(&[vec![0x40]]), (vec![0x40], 0));
    }
}

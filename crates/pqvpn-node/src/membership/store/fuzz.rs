// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file of networks with any damage.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;
use redb::StorageBackend;

use super::{Change, Head, KeptRotation, Seen, Store};

/// A file in memory.
#[derive(Debug, Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The place of `len` bytes.
    fn place(&self, offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).filter(|end| *end <= self.with(|bytes| bytes.len()));
        end.map(|end| start..end).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.len()) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let place = self.place(offset, out.len())?;
        self.with(|bytes| out.copy_from_slice(&bytes[place]));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A damaged file may ask for any length, and a disk has an end.
        let len = usize::try_from(len).ok().filter(|len| *len <= 64 << 20).ok_or(io::ErrorKind::StorageFull)?;
        self.with(|bytes| bytes.resize(len, 0));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(offset, data.len())?;
        self.with(|bytes| bytes[place].copy_from_slice(data));
        Ok(())
    }
}

/// A file that holds one of each thing.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let file = Bytes::default();
        let made = file.clone();
        let store = Store::on(move || made.clone()).expect("a new file");
        let (network, peer) = (NetworkId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let head = Head { name: "home".to_owned(), enabled: true, seq: 3, waiting: None, since_ms: 4 };
        let seen = Seen { addresses: vec!["192.0.2.1:5".parse().expect("an address")], at_ms: 6 };
        let rotation = KeptRotation { old: [7; 32], new: [8; 32], file: [9; 32], at_ms: 10, fact: "00".to_owned() };
        let changes = [
            Change::Head(network, head),
            Change::Statement(network, [1; 32], vec![1; 500]),
            Change::Record(network, peer, Some(vec![2; 500])),
            Change::Extra(network, [3; 16], Some(vec![3; 50])),
            Change::Seen(network, peer, Some(seen)),
            Change::Rotation(Box::new(rotation)),
        ];
        store.apply(&changes).expect("a new file");
        drop(store);
        file.with(|bytes| bytes.clone())
    })
}

/// Opens the file with damage: each `u8 how || u24 where || u8 what` changes a byte, cuts the file there, or (as after a crash)
/// marks it as not closed.
pub(crate) fn file(data: &[u8]) {
    let mut bytes = whole().to_vec();
    for &[how, a, b, c, what] in data.as_chunks::<5>().0 {
        let at = u32::from_be_bytes([0, a, b, c]) as usize % bytes.len().max(1);
        match how {
            255 => bytes.truncate(at),
            254 => bytes.iter_mut().skip(9).take(1).for_each(|flags| *flags |= 2),
            // Most of what is not zero is at the beginning.
            128..254 => bytes.iter_mut().skip(at % 16_384).take(1).for_each(|byte| *byte = what),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = what),
        }
    }
    let file = Bytes(Arc::new(Mutex::new(bytes)));
    let Ok(store) = Store::on(move || file.clone()) else { return };
    let _networks = store.load();
    let _rotations = store.rotations();
    let _written = store.apply(&[Change::Forget(NetworkId::from_bytes([1; 32]))]);
}

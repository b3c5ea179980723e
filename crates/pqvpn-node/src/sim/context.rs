// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node under virtual time has instead of clocks, entropy and interfaces. All of it belongs to one thread, on which
//! one world lives at a time.

use std::{
    cell::RefCell,
    future::Future,
    marker::PhantomData,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use crate::membership::NetworkView;

/// A task that runs so often in one moment runs for ever.
const MAX_AT_ONCE: u32 = 100_000;

thread_local! {
    static WORLD: RefCell<Option<Virtual>> = const { RefCell::new(None) };
    static HOST: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

struct Virtual {
    began: Instant,
    unix_ms: u64,
    dice: u64,
}

/// Virtual time on this thread, until it is dropped.
#[derive(Debug)]
pub struct VirtualTime(PhantomData<*const ()>);

impl VirtualTime {
    /// Begins at `unix_ms`; to be called on a paused runtime. Whatever is drawn follows from `seed`.
    #[must_use]
    pub fn begin(seed: u64, unix_ms: u64) -> Self {
        let began = tokio::time::Instant::now().into_std();
        WORLD.set(Some(Virtual { began, unix_ms, dice: seed }));
        Self(PhantomData)
    }
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        WORLD.set(None);
        HOST.set(None);
    }
}

/// One host: its clock, its addresses.
#[derive(Debug, Default)]
pub struct Host {
    ahead_ms: AtomicI64,
    /// Time it was suspended, in ms.
    slept_ms: AtomicU64,
    addresses: Mutex<Vec<IpAddr>>,
    wakes: AtomicU64,
    /// Runs of its tasks since time last passed.
    at_once: Mutex<Option<(Instant, u32)>>,
    tasks: Mutex<Vec<AbortHandle>>,
    views: Mutex<Arc<Vec<NetworkView>>>,
}

impl Host {
    /// A host with these addresses and a clock that is right.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>) -> Arc<Self> {
        Arc::new(Self { addresses: Mutex::new(addresses), ..Self::default() })
    }

    /// Sets the wall clock so far ahead of the true time; behind if negative.
    pub fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
    }

    /// Gives it other addresses.
    pub fn set_addresses(&self, addresses: Vec<IpAddr>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// How often tasks of its node ran.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Ends every task of its node in the middle of what it does, as a kill does.
    pub fn kill(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// The networks of its node as they were shown last.
    #[must_use]
    pub fn views(&self) -> Arc<Vec<NetworkView>> {
        Arc::clone(&self.views.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_run(&self) {
        let Some(now) = now() else { return };
        let mut at_once = self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = at_once.filter(|(at, _)| *at == now).map_or(0, |(_, runs)| runs) + 1;
        *at_once = Some((now, runs));
        drop(at_once);
        // Nothing else would end: virtual time passes only when nobody has anything to do.
        assert!(runs < MAX_AT_ONCE, "a task runs again and again while no time passes");
    }

    /// Runs a task on this host: what it reads of clock and addresses is the host's.
    pub fn run<F: Future>(self: &Arc<Self>, task: F) -> OnHost<F> {
        OnHost { host: Arc::clone(self), task: Box::pin(task) }
    }
}

/// A task on its host.
#[derive(Debug)]
pub struct OnHost<F> {
    host: Arc<Host>,
    task: Pin<Box<F>>,
}

impl<F: Future> Future for OnHost<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.host.wakes.fetch_add(1, Ordering::Relaxed);
        self.host.note_run();
        let before = HOST.replace(Some(Arc::clone(&self.host)));
        let polled = self.task.as_mut().poll(cx);
        HOST.set(before);
        polled
    }
}

/// The host whose task runs, if one does.
pub(crate) fn host() -> Option<Arc<Host>> {
    HOST.with_borrow(Clone::clone)
}

/// Notes what the networks of a node are shown as.
pub(crate) fn show(views: &Arc<Vec<NetworkView>>) {
    if let Some(host) = host() {
        *host.views.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(views);
    }
}

/// Spawns a task on the host whose task spawns it.
pub(crate) fn spawn<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match host() {
        Some(host) => {
            let spawned = tokio::spawn(host.run(task));
            let mut tasks = host.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.retain(|task| !task.is_finished());
            tasks.push(spawned.abort_handle());
            spawned
        }
        None => tokio::spawn(task),
    }
}

pub(crate) fn now() -> Option<Instant> {
    WORLD.with_borrow(|world| world.as_ref().map(|_| tokio::time::Instant::now().into_std()))
}

/// Time since the world began, with what the host has slept.
pub(crate) fn uptime() -> Option<Duration> {
    let began = WORLD.with_borrow(|world| world.as_ref().map(|world| world.began))?;
    let slept = host().map_or(0, |host| host.slept_ms.load(Ordering::Relaxed));
    Some(now()?.saturating_duration_since(began) + Duration::from_millis(slept))
}

pub(crate) fn unix_millis() -> Option<u64> {
    let (began, unix_ms) = WORLD.with_borrow(|world| world.as_ref().map(|world| (world.began, world.unix_ms)))?;
    let since = u64::try_from(now()?.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
    let ahead = host().map_or(0, |host| host.ahead_ms.load(Ordering::Relaxed));
    Some(unix_ms.saturating_add(since).saturating_add_signed(ahead))
}

pub(crate) fn addresses() -> Option<Vec<IpAddr>> {
    now()?;
    let host = host()?;
    Some(host.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Fills `out` from the dice of the world, if there is one: `SplitMix64`.
pub(crate) fn fill(out: &mut [u8]) -> bool {
    WORLD.with_borrow_mut(|world| {
        let Some(world) = world else { return false };
        for chunk in out.chunks_mut(8) {
            world.dice = world.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = world.dice;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
        true
    })
}

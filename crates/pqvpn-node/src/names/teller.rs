// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells the host in a task of its own: a resolver that takes its time must not keep the node waiting.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    DnsHost,
    host::{self, Applied, DnsError, Places, Wanted},
};
use crate::config::DnsMode;

/// How long a stop waits for the host to be restored; after that the journal has it.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How often it is looked whether others have taken back what they can.
const LOOK: Duration = Duration::from_secs(60);

/// What the host was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// How it comes to know the names, if it does.
    pub(super) host: Option<DnsHost>,
    /// Why it does not.
    pub(super) trouble: Option<String>,
}

/// Whoever talks to the host's resolver; only the newest wish counts.
pub(super) struct Teller {
    wish: watch::Sender<Wish>,
    done: watch::Receiver<u64>,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Clone, Default)]
struct Wish {
    number: u64,
    wanted: Option<Wanted>,
}

impl Teller {
    /// Needs a runtime; ends when it is dropped, and leaves the host as it is then: see [`Teller::undo`].
    pub(super) fn start(places: Places, state_dir: PathBuf, mode: DnsMode) -> Self {
        let (wish, wishes) = watch::channel(Wish::default());
        let (finished, done) = watch::channel(0);
        let told = Arc::new(Mutex::new(Told::default()));
        let worker = Worker { places, state_dir, mode, applied: None, told: Arc::clone(&told) };
        tokio::spawn(worker.run(wishes, finished));
        Self { wish, done, told }
    }

    /// The host shall know this.
    pub(super) fn tell(&self, wanted: Wanted) {
        self.wish.send_if_modified(|wish| {
            let news = wish.wanted.as_ref() != Some(&wanted);
            if news {
                *wish = Wish { number: wish.number + 1, wanted: Some(wanted) };
            }
            news
        });
    }

    /// The host shall be as it was; waits for that.
    pub(super) async fn undo(&mut self) {
        let number = self.wish.borrow().number + 1;
        if self.wish.borrow().wanted.is_none() {
            return;
        }
        self.wish.send_replace(Wish { number, wanted: None });
        let restored = timeout(PATIENCE, self.done.wait_for(|done| *done >= number)).await;
        if restored.is_err() {
            tracing::warn!("the host's resolver was not restored in time; the next start tries again");
        }
    }

    pub(super) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Worker {
    places: Places,
    state_dir: PathBuf,
    mode: DnsMode,
    applied: Option<Applied>,
    told: Arc<Mutex<Told>>,
}

impl Worker {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>, finished: watch::Sender<u64>) {
        // What a killed daemon left goes first, whatever the mode is now.
        match host::recover(&self.places, &self.state_dir).await {
            Ok(Some(change)) => tracing::info!(%change, "undone: a killed daemon had left it"),
            Ok(None) => {}
            Err(error) => self.say(Some(&error)),
        }
        loop {
            let wish = wishes.borrow_and_update().clone();
            let outcome = self.fulfil(wish.wanted.clone()).await;
            self.say(outcome.as_ref().err());
            finished.send_replace(wish.number);
            let is_looked_at = self.applied.as_ref().is_some_and(Applied::is_to_be_looked_at);
            let pause = if outcome.is_err() { RETRY } else { LOOK };
            let again = wish.wanted.is_some() && (outcome.is_err() || is_looked_at);
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = sleep(pause), if again => {}
            }
        }
    }

    async fn fulfil(&mut self, wanted: Option<Wanted>) -> Result<(), DnsError> {
        match (wanted, &mut self.applied) {
            (Some(wanted), Some(applied)) => applied.change_to(wanted).await,
            (Some(wanted), None) => {
                self.applied = host::apply(&self.places, &self.state_dir, self.mode, wanted).await?;
                Ok(())
            }
            (None, _) => match self.applied.take() {
                Some(applied) => applied.undo().await,
                None => Ok(()),
            },
        }
    }

    fn say(&self, error: Option<&DnsError>) {
        if let Some(error) = error {
            tracing::warn!(%error, "the host's resolver is not as it should be");
        }
        let host = self.applied.as_ref().map(Applied::host);
        let doubt = || self.applied.as_ref().and_then(Applied::doubt);
        let trouble = error.map(ToString::to_string).or_else(doubt);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Told { host, trouble };
    }
}

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
/// How long to wait before what failed is tried again: at first, and at most, doubled in between. Nothing tells when the
/// host would take it.
const RETRY: Duration = Duration::from_secs(30);
const RETRY_MOST: Duration = Duration::from_secs(5 * 60);
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
            Err(error) => drop(self.say(Some(&error))),
        }
        let mut failed = 0;
        loop {
            let wish = wishes.borrow_and_update().clone();
            let outcome = self.fulfil(wish.wanted.clone()).await;
            let _known_already = self.say(outcome.as_ref().err());
            finished.send_replace(wish.number);
            failed = if outcome.is_err() { failed + 1 } else { 0 };
            let is_looked_at = self.applied.as_ref().is_some_and(Applied::is_to_be_looked_at);
            let pause = if failed > 0 { retry(failed) } else { LOOK };
            let again = wish.wanted.is_some() && (failed > 0 || is_looked_at);
            tokio::select! {
                changed = wishes.changed() => match changed {
                    Ok(()) => failed = 0,
                    Err(_nobody_wishes_any_more) => return,
                },
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

    /// Tells how it went; whether that is something new to warn of: what stays as it was is not said again and again.
    fn say(&self, error: Option<&DnsError>) -> bool {
        let host = self.applied.as_ref().map(Applied::host);
        let doubt = || self.applied.as_ref().and_then(Applied::doubt);
        let trouble = error.map(ToString::to_string).or_else(doubt);
        let before = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *told, Told { host, trouble: trouble.clone() })
        };
        let news = error.filter(|_| before.trouble != trouble);
        if let Some(error) = news {
            tracing::warn!(%error, "the host's resolver is not as it should be");
        }
        news.is_some()
    }
}

/// How long to wait after so many failures in a row.
fn retry(failed: u32) -> Duration {
    RETRY.saturating_mul(1 << failed.saturating_sub(1).min(8)).min(RETRY_MOST)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Somebody whose resolv.conf is none, and stays so.
    fn refused(dir: &std::path::Path) -> Worker {
        let resolv_conf = dir.join("resolv.conf");
        std::fs::write(&resolv_conf, vec![b'#'; 100 << 10]).unwrap();
        let places = Places {
            resolvectl: dir.join("none"),
            resolved: dir.join("none"),
            resolv_conf,
            is_resolved_s_namespace: true,
        };
        let told = Arc::default();
        Worker { places, state_dir: dir.to_owned(), mode: DnsMode::ResolvConf, applied: None, told }
    }

    fn wanted(zone: &str) -> Option<Wanted> {
        let zones = vec![zone.to_owned()];
        Some(Wanted { interface: "pqvpn0".to_owned(), servers: vec![host::LOOPBACK_SERVER], zones })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_less_and_less_often() {
        let dir = tempfile::tempdir().unwrap();
        let (wish, wishes) = watch::channel(Wish { number: 1, wanted: wanted("a.pq") });
        let (finished, mut done) = watch::channel(0);
        let worker = tokio::spawn(refused(dir.path()).run(wishes, finished));
        done.changed().await.unwrap();
        let mut tried = Instant::now();
        for pause in [30, 60, 120, 240, 300, 300] {
            done.changed().await.unwrap();
            assert_eq!(tried.elapsed(), Duration::from_secs(pause));
            tried = Instant::now();
        }
        wish.send_replace(Wish { number: 2, wanted: wanted("b.pq") });
        done.changed().await.unwrap();
        assert_eq!(tried.elapsed(), Duration::ZERO, "something else is tried at once");
        done.changed().await.unwrap();
        assert_eq!(tried.elapsed(), RETRY, "and soon again");
        worker.abort();
    }

    #[tokio::test]
    async fn a_reason_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = refused(dir.path());
        let mut say = async |zone: &str| {
            let outcome = worker.fulfil(wanted(zone)).await;
            worker.say(outcome.as_ref().err())
        };
        assert!(say("a.pq").await && !say("a.pq").await && !say("b.pq").await);
        std::fs::remove_file(dir.path().join("resolv.conf")).unwrap();
        std::fs::create_dir(dir.path().join("resolv.conf")).unwrap();
        assert!(say("a.pq").await && !say("a.pq").await, "another reason");
        std::fs::remove_dir(dir.path().join("resolv.conf")).unwrap();
        assert!(!say("a.pq").await, "it works");
    }
}

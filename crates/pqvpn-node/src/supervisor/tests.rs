// SPDX-License-Identifier: MIT OR Apache-2.0
//! A rotation that a crash cuts off after each of its steps: the next start has the old identity and its membership, or
//! the new one and its membership.

use std::sync::{Arc, Mutex};

use pqvpn_crypto::keystore::KdfParams;
use pqvpn_dataplane::{Offloads, mem::MemTun};

use super::*;
use crate::{
    handle::PeerRef,
    membership::{CreateNetwork, Interrupted, InviteOptions, MemberReport, NetRef, finish_rotation},
};

const PATIENCE: Duration = Duration::from_secs(60);
const ANY: NetRef = NetRef(None);

/// A node that keeps its key, and the devices of its runs.
struct Kept {
    state: tempfile::TempDir,
    config: Config,
    _tuns: Arc<Mutex<Vec<MemTun>>>,
    supervisor: Supervisor,
}

fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.node.listen = vec![std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()];
    config.node.name = Some(name.to_owned());
    config.dht.enabled = false;
    config.bootstrap.lan = false;
    config
}

fn keystore(state: &tempfile::TempDir) -> KeystoreFile {
    KeystoreFile::new(state.path(), KdfParams { memory_kib: 8, passes: 1, lanes: 1 })
}

async fn start(state: tempfile::TempDir, config: Config) -> Kept {
    let keystore = keystore(&state);
    if !keystore.exists().unwrap() {
        keystore.create(&IdentitySeed::generate().unwrap(), None).unwrap();
    }
    let tuns: Arc<Mutex<Vec<MemTun>>> = Arc::default();
    let devices = Arc::clone(&tuns);
    let interface = move || {
        let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
        devices.lock().unwrap().push(tun);
        Interface::Given(vec![(Box::new(reader), Box::new(writer))])
    };
    let seed = keystore.load(None).unwrap();
    let mut options = Options {
        config: config.clone(),
        state_dir: state.path().to_owned(),
        kept_in: None,
        interface: Box::new(interface),
        backend: Backend::Noq,
        keystore: Some(keystore),
    };
    let running = options.start_again(&seed, NodeState::Up).await.unwrap();
    Kept { state, config, _tuns: tuns, supervisor: Supervisor { options, running } }
}

impl Kept {
    fn handle(&self) -> &NodeHandle {
        &self.supervisor.running.handle
    }

    fn id(&self) -> PeerId {
        self.supervisor.running.id
    }

    /// Ends the node as it is. What it says while it ends it could have said before a crash.
    async fn crash(self) -> (tempfile::TempDir, Config) {
        self.supervisor.running.handle.shutdown().await;
        self.supervisor.running.task.await.unwrap();
        (self.state, self.config)
    }

    async fn members(&self) -> Vec<MemberReport> {
        self.handle().members(ANY).await.unwrap()
    }
}

/// How far a rotation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Prepared,
    Decided,
    Adopted,
}

/// Alice's network, of which Bob is a member.
async fn two() -> (Kept, Kept) {
    let alice = start(tempfile::tempdir().unwrap(), config("alice")).await;
    let bob = start(tempfile::tempdir().unwrap(), config("bob")).await;
    let network = CreateNetwork { name: "home".to_owned(), ..CreateNetwork::default() };
    alice.handle().net_create(network).await.unwrap();
    let code = alice.handle().invite_create(ANY, InviteOptions::default()).await.unwrap().code.unwrap();
    bob.handle().join(code, None, PATIENCE).await.unwrap();
    alice.handle().ping(PeerRef("bob".to_owned()), PATIENCE).await.unwrap();
    (alice, bob)
}

/// Both reach each other, and Bob is this one for both.
async fn meet(alice: &Kept, bob: &Kept, now: PeerId) {
    assert_eq!(bob.id(), now);
    for (from, to) in [(alice, "bob"), (bob, "alice")] {
        from.handle().ping(PeerRef(to.to_owned()), PATIENCE).await.unwrap();
        let members = from.members().await;
        assert_eq!(members.len(), 2, "{members:?}");
        assert!(members.iter().any(|member| member.name == "bob" && member.peer == now), "{members:?}");
    }
}

async fn interrupted_after(step: Step) {
    let (alice, bob) = two().await;
    let (old, key) = (bob.id(), keystore(&bob.state));
    let prepared = prepare(key.clone(), None, old).await.unwrap();
    let new = Identity::from_seed(&prepared.seed).unwrap().peer_id();
    if step >= Step::Decided {
        let told = bob.supervisor.tell(&prepared).await.unwrap();
        assert_eq!((told.len(), told[0].told), (1, 1));
    }
    if step >= Step::Adopted {
        key.adopt_next().unwrap();
    }
    let (state, config) = bob.crash().await;
    let ended = finish_rotation(state.path(), &key).unwrap();
    let (expected, now) = match step {
        Step::Prepared => (Some(Interrupted::Undone), old),
        Step::Decided => (Some(Interrupted::Finished), new),
        Step::Adopted => (None, new),
    };
    assert_eq!(ended, expected, "{step:?}");
    assert_eq!(finish_rotation(state.path(), &key).unwrap(), None, "{step:?}: once is enough");

    let bob = start(state, config).await;
    meet(&alice, &bob, now).await;
}

#[tokio::test]
async fn a_node_whose_key_was_rotated_while_it_did_not_run_is_met_under_the_new_one() {
    let (alice, bob) = two().await;
    let (old, key) = (bob.id(), keystore(&bob.state));
    let (state, config) = bob.crash().await;
    let report = rotate_at_rest(state.path(), key.clone(), None, old).await.unwrap();
    let [home] = &report.networks[..] else { panic!("{report:?}") };
    assert_eq!((report.old, &*home.network, home.told, home.others), (old, "home", 0, 1));
    assert_eq!(finish_rotation(state.path(), &key).unwrap(), None, "nothing is left to do");
    let bob = start(state, config).await;
    let heard = async {
        while !alice.members().await.iter().any(|member| member.peer == report.new) {
            sleep(AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("nobody told it");
    meet(&alice, &bob, report.new).await;
}

#[tokio::test]
async fn after_the_machine_slept_networks_are_heard_anew_and_then_sessions_begin() {
    let (alice, bob) = two().await;
    let sessions = async || alice.handle().snapshot().await.unwrap().peers[0].counts.sessions;
    let before = sessions().await;
    alice.handle().sleep().await.unwrap();
    while sessions().await == before {
        alice.handle().ping(PeerRef("bob".to_owned()), PATIENCE).await.expect("nobody was asked");
    }
    assert!(alice.handle().snapshot().await.unwrap().networks[0].ready);
    drop(bob);
}

#[tokio::test]
async fn a_key_whose_networks_cannot_be_read_is_not_rotated() {
    let (_alice, bob) = two().await;
    let (old, key) = (bob.id(), keystore(&bob.state));
    let (state, _) = bob.crash().await;
    std::fs::write(state.path().join("networks.redb"), b"damaged").unwrap();
    let other = rotate_at_rest(state.path(), key.clone(), None, PeerId::from_bytes([7; 32])).await;
    assert!(matches!(other, Err(RotationError::OtherKey)), "not the key that was meant: {other:?}");
    let refused = rotate_at_rest(state.path(), key.clone(), None, old).await;
    assert!(matches!(refused, Err(RotationError::Store(_))), "{refused:?}");
    assert_eq!(std::fs::read(state.path().join("networks.redb")).unwrap(), b"damaged", "left as it is");
    assert_eq!(Identity::from_seed(&key.load(None).unwrap()).unwrap().peer_id(), old);
    assert!(key.next_digest().unwrap().is_none());
}

#[tokio::test]
async fn a_crash_before_it_is_decided_undoes_a_rotation() {
    interrupted_after(Step::Prepared).await;
}

#[tokio::test]
async fn a_crash_after_it_is_decided_finishes_a_rotation_at_the_next_start() {
    interrupted_after(Step::Decided).await;
}

#[tokio::test]
async fn a_crash_after_the_keystore_has_changed_needs_nothing_more() {
    interrupted_after(Step::Adopted).await;
}

#[tokio::test]
async fn a_rotation_that_cannot_be_written_down_leaves_the_old_key_in_force() {
    let mut bob = start(tempfile::tempdir().unwrap(), config("bob")).await;
    let network = CreateNetwork { name: "home".to_owned(), ..CreateNetwork::default() };
    bob.handle().net_create(network).await.unwrap();
    let old = bob.id();
    // A key that was exchanged on disk is not this node's to rotate.
    let key = keystore(&bob.state);
    let backup = bob.state.path().join("backup");
    key.backup(None, &backup, &Passphrase::new("a")).unwrap();
    std::fs::remove_file(key.path()).unwrap();
    key.create(&IdentitySeed::generate().unwrap(), None).unwrap();
    let refused = bob.supervisor.rotate(RotateKeys::default()).await;
    assert!(matches!(refused, Err(Ended::Refused(RotationError::OtherKey))));
    key.restore(&backup, Some(&Passphrase::new("a")), Some(&Passphrase::new("b")), true).unwrap();
    // Nor is one whose passphrase is not known.
    for passphrase in [None, Some(Passphrase::new("wrong"))] {
        let refused = bob.supervisor.rotate(RotateKeys { passphrase }).await;
        assert!(matches!(refused, Err(Ended::Refused(RotationError::Keystore(_)))));
    }
    assert!(key.next_digest().unwrap().is_none());
    // One that is decided and not finished stays what it is.
    let prepared = prepare(key.clone(), Some(Passphrase::new("b")), old).await.unwrap();
    bob.supervisor.tell(&prepared).await.unwrap();
    let refused = bob.supervisor.rotate(RotateKeys { passphrase: Some(Passphrase::new("b")) }).await;
    assert!(matches!(refused, Err(Ended::Refused(RotationError::Keystore(StoreError::Rotating(_))))));
    assert_eq!((bob.id(), key.next_digest().unwrap()), (old, Some(prepared.file)));
}

#[tokio::test]
async fn the_next_key_is_under_the_same_passphrase_and_a_node_without_keystore_has_none() {
    let mut bob = start(tempfile::tempdir().unwrap(), config("bob")).await;
    let key = keystore(&bob.state);
    key.change_passphrase(None, Some(&Passphrase::new("b"))).unwrap();
    let old = bob.id();
    let Ok(report) = bob.supervisor.rotate(RotateKeys { passphrase: Some(Passphrase::new("b")) }).await else {
        panic!("refused");
    };
    assert_eq!((report.old, report.new, report.networks.len()), (old, bob.id(), 0));
    let kept = Identity::from_seed(&key.load(Some(&Passphrase::new("b"))).unwrap()).unwrap();
    assert_eq!((kept.peer_id(), kept.public().fingerprint()), (report.new, report.fingerprint));
    assert!(key.load(None).is_err());
    bob.supervisor.options.keystore = None;
    let refused = bob.supervisor.rotate(RotateKeys::default()).await;
    assert!(matches!(refused, Err(Ended::Refused(RotationError::NotKept))));
}

/// Runs the supervisor to its end; `true` if it ended by a panic.
async fn ends_by_panic(kept: Kept) -> bool {
    let Kept { supervisor, state: _state, .. } = kept;
    let (_commands, waiting) = mpsc::channel(QUEUE);
    let ended = tokio::time::timeout(PATIENCE, tokio::spawn(supervisor.run(waiting))).await.expect("never ended");
    ended.is_err_and(|error| error.is_panic())
}

#[tokio::test]
async fn a_node_that_failed_is_no_good_end() {
    let mut kept = start(tempfile::tempdir().unwrap(), config("bob")).await;
    kept.handle().shutdown().await;
    kept.supervisor.running.task = tokio::spawn(async { panic!("the node") });
    assert!(ends_by_panic(kept).await);
}

#[tokio::test]
async fn a_node_whose_networks_task_failed_stops_and_says_so() {
    let kept = start(tempfile::tempdir().unwrap(), config("bob")).await;
    let handle = kept.handle().clone();
    assert!(kept.supervisor.running.networks.as_ref().unwrap().order(Order::Panic));
    assert!(ends_by_panic(kept).await);
    assert!(handle.snapshot().await.is_err(), "it still runs");
}

#[tokio::test]
async fn a_setting_of_a_running_node_outlives_its_key() {
    let mut bob = start(tempfile::tempdir().unwrap(), config("bob")).await;
    for (key, value, is_set) in [("relay.limit", "fast", false), ("relay.limit", "10mbit", true)] {
        assert!(bob.supervisor.options.config.relay.limit.is_none());
        let (reply, outcome) = oneshot::channel();
        bob.supervisor.set(key.to_owned(), value.to_owned(), reply).await;
        assert_eq!(outcome.await.unwrap().is_ok(), is_set);
    }
    assert!(bob.supervisor.options.config.relay.limit.is_some(), "the next run does not know");
}

#[tokio::test]
async fn a_node_that_is_down_is_at_no_time_up_under_its_next_key() {
    let mut bob = start(tempfile::tempdir().unwrap(), config("bob")).await;
    bob.handle().down().await.unwrap();
    assert!(bob.supervisor.rotate(RotateKeys::default()).await.is_ok());
    assert_eq!(bob.handle().snapshot().await.unwrap().state, NodeState::Down);
    bob.handle().up().await.unwrap();
    bob.handle().shutdown().await;
    (&mut bob.supervisor.running.task).await.unwrap();
    bob.supervisor.running.networks = None;
    let seed = keystore(&bob.state).load(None).unwrap();
    let next = bob.supervisor.options.start_again(&seed, NodeState::Down).await.unwrap();
    assert_eq!(next.handle.snapshot().await.unwrap().state, NodeState::Down, "from its first moment on");
    bob.supervisor.running = next;
}

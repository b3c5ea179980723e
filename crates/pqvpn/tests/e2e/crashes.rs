// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon that is killed at any moment, and writes that fail: what is there afterwards is the old or the new, and the next
//! start takes it.
//!
//! `PQVPN_CRASHES` and `PQVPN_FAULTS` say how often; `cargo xtask test crash` does it a thousand times.

#[path = "crashes/faults.rs"]
mod faults;
#[path = "crashes/orders.rs"]
mod orders;

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use pqvpn_lab::topology::internet;

use self::orders::{Kind, Order};
use crate::{
    networks::{alone, invite, json, node},
    rig::{Node, poll, usable},
    traffic::next,
};

/// Kills where nobody says how many.
const FEW: u64 = 40;
/// Names that files have which are not used any more.
const ASIDE: [&str; 4] = [".bad", ".unreadable", ".damaged", ".corrupt"];
/// No discovery, so that nothing but orders writes.
const QUIET: &str = "[dht]\nenabled = false\n[bootstrap]\nlan = false\n";

fn count(variable: &str, few: u64) -> u64 {
    env::var(variable).ok().map_or(few, |count| count.parse().expect("a number"))
}

/// A random number below `below`.
fn pick(dice: &mut u64, below: usize) -> usize {
    usize::try_from(next(dice)).unwrap() % below.max(1)
}

/// A random part of a little more than `whole`.
fn moment(dice: &mut u64, whole: Duration) -> Duration {
    whole.mul_f64(1.2 * (pick(dice, 10_000) as f64) / 10_000.0)
}

#[test]
fn a_daemon_killed_at_any_moment_finds_the_old_or_the_new() {
    if !usable() {
        return;
    }
    let kills = count("PQVPN_CRASHES", FEW);
    let net = internet(2).unwrap();
    let mut friend = alone(&net.hosts[1], "b");
    json(&friend, &["net", "create", "friends"]);
    let mut a = node(&net.hosts[0], "a", QUIET);
    a.start_up();
    let mut seen = orders::look(&a);
    let (mut dice, mut tally) = (0x5eed_u64, Tally::default());
    let mut usual = orders::usual_times(&a, &friend, &mut seen);
    for number in 0..kills {
        let code = || invite(&friend, &[]);
        let order = Order::choose(pick(&mut dice, 1 << 20), number, &seen, code);
        let at = moment(&mut dice, usual[&order.kind]);
        let done = killed_while(&mut a, &order, at);
        tally.answered += u64::from(done.is_some());
        if pick(&mut dice, 4) == 0 {
            // Once more while it starts: it finishes what it finds half done, takes the host's changes back, and writes.
            a.start();
            thread::sleep(moment(&mut dice, tally.start_time()));
            a.crash();
            tally.starts_killed += 1;
        }
        tally.start(&mut a);
        if order.kind == Kind::Leave && done.is_none() && said_goodbye(&a, &order.what) {
            tally.half_left += 1;
        }
        let now = orders::look(&a);
        assert!(is_whole(&a).is_ok(), "kill {number} {order:?}: {:?}", is_whole(&a));
        if number % 100 == 99 {
            eprintln!("{} kills", number + 1);
        }
        if let Err(why) = order.judge(&seen, &now, done.as_ref()) {
            panic!("kill {number} at {at:?} of {order:?} ({done:?}): {why}\nbefore {seen:?}\nafter {now:?}");
        }
        tally.changed += u64::from(now != seen);
        usual.entry(order.kind).and_modify(|time| *time = (*time).max(Duration::from_millis(2)));
        seen = now;
    }
    eprintln!(
        "FIGURE crashes kills={} during_start={} answered={} changed={} left_twice={} bad_opens=0 start_ms={:.0}",
        kills + tally.starts_killed,
        tally.starts_killed,
        tally.answered,
        tally.changed,
        tally.half_left,
        tally.start_time().as_secs_f64() * 1000.0
    );
    a.stop();
    friend.stop();
}

#[test]
fn a_first_start_killed_at_any_moment_leaves_a_whole_key_or_none() {
    if !usable() {
        return;
    }
    let kills = count("PQVPN_CRASHES", FEW) / 2;
    let net = internet(1).unwrap();
    let (mut dice, mut made) = (0xfee1_u64, 0);
    let mut a = node(&net.hosts[0], "a", QUIET);
    let began = Instant::now();
    fs::remove_dir_all(a.file("state")).unwrap();
    a.start_up();
    let whole = began.elapsed();
    a.crash();
    for number in 0..kills {
        fs::remove_dir_all(a.file("state")).unwrap();
        a.start();
        thread::sleep(moment(&mut dice, whole));
        a.crash();
        let had = a.file("state/keystore").exists();
        made += u64::from(had);
        let shown = a.cli(&["id", "--json"]);
        assert!(shown.status.success(), "kill {number}, key {had}: {}{}", shown.stdout, shown.stderr);
    }
    a.start_up();
    assert!(is_whole(&a).is_ok(), "{:?}", is_whole(&a));
    a.stop();
    eprintln!("FIGURE first_starts kills={kills} with_key={made} bad_opens=0");
}

/// Whether the others heard that the node leaves, and it was killed before it wrote so down: it leaves once more then.
fn said_goodbye(a: &Node, network: &str) -> bool {
    let status = json(a, &["status"]);
    let items = status["health"].as_array().unwrap();
    let is_out = items.iter().any(|item| item["code"] == "network-not-member");
    if is_out {
        json(a, &["net", "leave", network, "--yes"]);
    }
    is_out
}

/// Gives the order, and kills the daemon `at` later; what it answered, if it could.
fn killed_while(a: &mut Node, order: &Order, at: Duration) -> Option<serde_json::Value> {
    let (socket, request) = (a.file("sock"), order.request.clone());
    let asking = thread::spawn(move || orders::send(&socket, &request));
    thread::sleep(at);
    a.crash();
    asking.join().unwrap()
}

#[derive(Default)]
struct Tally {
    answered: u64,
    changed: u64,
    starts_killed: u64,
    half_left: u64,
    starts: u32,
    starting: Duration,
}

impl Tally {
    fn start(&mut self, a: &mut Node) {
        let began = Instant::now();
        a.start_up();
        self.starting += began.elapsed();
        self.starts += 1;
    }

    fn start_time(&self) -> Duration {
        if self.starts == 0 { Duration::from_millis(200) } else { self.starting / self.starts }
    }
}

/// Whether a running daemon took everything it found, and cleaned up.
fn is_whole(a: &Node) -> Result<(), String> {
    let folders = [a.file("state"), a.file("state/bootstrap"), a.file("")];
    let names = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    for name in names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()) {
        if ASIDE.iter().any(|word| name.contains(word)) {
            return Err(format!("{name} was moved aside"));
        }
        if name.starts_with('.') && name.rsplit('.').next().is_some_and(|end| end.len() == 16) {
            return Err(format!("{name} was left"));
        }
    }
    let status = json(a, &["status"]);
    let errors = status["health"].as_array().unwrap().iter().filter(|item| item["level"] == "error");
    // Who starts often enough is taken for two.
    let errors = errors.filter(|item| item["code"] != "identity-twice");
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join(", ")) }
}

/// Waits until the daemon is ready or gone; whether it is ready.
fn ready_or_gone(a: &Node) -> bool {
    poll("the daemon to be ready or to end", || {
        let ended = a.daemon().exited().unwrap().is_some();
        (ended || a.daemon().stderr().contains("ready")).then_some(!ended)
    })
}

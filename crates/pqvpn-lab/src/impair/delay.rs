// SPDX-License-Identifier: MIT OR Apache-2.0
//! A long way: packets that a router forwards wait in this process for a fixed time (NFQUEUE).
//!
//! The kernel's own tool, `tc netem`, is missing from many kernels that the lab has to run on. Every packet costs two
//! system calls here, so this is for slow links: about 25,000 packets a second.

use std::collections::VecDeque;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};

use super::{ImpairError, tool};
use crate::netns::Namespace;
use crate::topology::Interface;

/// Most packets that wait; what comes then is dropped, as by a router with a full queue.
const MOST: u32 = 16_384;
/// What is read of a packet: nobody looks at it.
const HEAD: u16 = 40;
/// How often the queue is looked at; the delay is off by at most this.
const LOOK: Duration = Duration::from_micros(300);

/// A delay in force until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the delay"]
pub struct Delay {
    interface: Interface,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Delays everything that is forwarded to or from a router's interface, each way by half of `round_trip`.
///
/// # Errors
/// [`ImpairError::Missing`] without `iptables-nft`, others where the kernel has no NFQUEUE.
pub fn delay(interface: &Interface, round_trip: Duration) -> Result<Delay, ImpairError> {
    let mut delay = Delay { interface: interface.clone(), stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
    for (_, number) in sides(interface) {
        let stop = Arc::clone(&delay.stop);
        let thread = interface.namespace().run(move || {
            let queue = open(number)?;
            Ok::<_, io::Error>(thread::spawn(move || hold(queue, round_trip / 2, &stop)))
        })?;
        delay.threads.push(thread.map_err(|error| ImpairError::Run { program: "NFQUEUE", error })?);
    }
    for (side, number) in sides(interface) {
        rule(interface.namespace(), "-A", &side, number)?;
    }
    Ok(delay)
}

impl Drop for Delay {
    fn drop(&mut self) {
        for (side, number) in sides(&self.interface) {
            // The namespace may be going down too.
            _ = rule(self.interface.namespace(), "-D", &side, number);
        }
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has nothing to tell.
            _ = thread.join();
        }
    }
}

/// Which packets go to which queue.
fn sides(interface: &Interface) -> impl Iterator<Item = ([String; 2], u16)> {
    // Queues are numbered by namespace, interfaces as well.
    let first = u16::try_from(interface.index() * 2).unwrap_or(u16::MAX - 1);
    ["-i", "-o"].map(|side| [side.to_owned(), interface.name().to_owned()]).into_iter().zip(first..)
}

fn rule(namespace: &Namespace, verb: &str, side: &[String; 2], number: u16) -> Result<(), ImpairError> {
    let mut command = Command::new("iptables-nft");
    command.args(["-w", "-t", "mangle", verb, "FORWARD"]).args(side);
    command.args(["-j", "NFQUEUE", "--queue-bypass", "--queue-num", &number.to_string()]);
    tool(namespace, "iptables-nft", "iptables", command, "")
}

fn open(number: u16) -> io::Result<Queue> {
    let mut queue = Queue::open()?;
    queue.bind(number)?;
    queue.set_copy_range(number, HEAD)?;
    queue.set_queue_max_len(number, MOST)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// Lets each packet go when it has waited, in order, until told to stop.
fn hold(mut queue: Queue, wait: Duration, stop: &AtomicBool) {
    let mut waiting: VecDeque<(Instant, Message)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        // The kernel keeps what waits, and its own bound on it.
        while let Ok(message) = queue.recv() {
            waiting.push_back((Instant::now() + wait, message));
            idle = false;
        }
        let now = Instant::now();
        while waiting.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, mut message)) = waiting.pop_front() else { break };
            message.set_verdict(Verdict::Accept);
            // A verdict that is refused belongs to a packet that is gone.
            _ = queue.verdict(message);
            idle = false;
        }
        if idle {
            thread::sleep(LOOK);
        }
    }
}

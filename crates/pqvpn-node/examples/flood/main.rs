// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams nobody wants, for `pqvpn-lab flood`:
//! `flood KIND HUB_ID HUB_ADDRESS FIRST COUNT RATE SECONDS START [INDEX]`.
//!
//! They come from COUNT IPv4 addresses from FIRST on, all of them this host's own; RATE is per second. Says `ready` once
//! everything is made that can be made before, sends while there is a file START, and SECONDS after that was there first says in
//! JSON what went out and what came back.
//!
//! | Kind | A datagram is |
//! |---|---|
//! | `initials` | a part of a ClientHello as our nodes send it, valid in all but that nobody goes on with it |
//! | `half-open` | the same, and answers to Retry: handshakes from addresses that are proven, and left there (RATE: handshakes) |
//! | `garbage` | random: QUIC's short and long headers, relay, pieces, tunnel packets, those with INDEX as their receiver |
//! | `bait` | what an answer is hoped for: other versions of QUIC, packets of links that are no more, short Initials |

use std::error::Error;
use std::io::{Write as _, stdout};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use half_open::HalfOpen;
use hello::Hello;
use noise::Noise;
use pqvpn_crypto::peer_id::PeerId;
use wire::Wire;

mod half_open;
mod hello;
mod noise;
mod wire;

type Failure = Box<dyn Error + Send + Sync>;

/// ClientHellos that are made before: some thousands, so that one that holds a place at the hub does not come again soon.
const HELLOS: usize = 4096;
/// Pause between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);
/// What is due at once, at most: a sender that was held up, or cannot send as fast as it should, does not make up for it.
const LONGEST: Duration = Duration::from_millis(20);
/// How long answers are waited for in the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Something that can be sent again and again.
trait Flood {
    /// Sends some, and says how many of what RATE counts.
    fn burst(&mut self, wire: &mut Wire) -> Result<u64, Failure>;

    /// Looks at an answer to a source.
    fn on_answer(&mut self, _wire: &mut Wire, _source: u32, _answer: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// What it has to tell beside the bytes.
    fn told(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, hub, at, first, count, rate, seconds, start, more @ ..] = arguments.as_slice() else {
        return Err("usage: flood KIND HUB_ID HUB_ADDRESS FIRST COUNT RATE SECONDS START [INDEX]".into());
    };
    let (hub, at): (PeerId, SocketAddrV4) = (hub.parse()?, at.parse()?);
    let (first, count): (Ipv4Addr, u32) = (first.parse()?, count.parse()?);
    let mut wire = Wire::new(first, count, at)?;
    let index = more.first().map(|index| u32::from_str_radix(index, 16)).transpose()?;
    let mut flood: Box<dyn Flood> = match kind.as_str() {
        "initials" => Box::new(Initials { hellos: hello::make(HELLOS, hub, at.into())?, next: 0 }),
        "half-open" => Box::new(HalfOpen::new(hello::make(HELLOS, hub, at.into())?)),
        "garbage" => Box::new(Noise::garbage(index)),
        "bait" => Box::new(Noise::bait()),
        _ => return Err(format!("no kind {kind}").into()),
    };
    say("ready")?;
    while !Path::new(start).exists() {
        thread::sleep(TICK);
    }
    let span = Duration::from_secs(seconds.parse()?);
    let sending = run(&mut *flood, &mut wire, rate.parse()?, span, Path::new(start))?;
    settle(&mut *flood, &mut wire)?;
    say(&serde_json::json!({ "seconds": sending.as_secs_f64(), "wire": wire.told(), "more": flood.told() }).to_string())
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Sends what is due, and looks at what comes back; gives for how long it sent. What was not sent in time is not sent later.
fn run(flood: &mut dyn Flood, wire: &mut Wire, rate: u64, span: Duration, start: &Path) -> Result<Duration, Failure> {
    let (begun, mut last) = (Instant::now(), Instant::now());
    let (mut sending, mut due) = (Duration::ZERO, 0.0);
    while begun.elapsed() < span {
        let passed = std::mem::replace(&mut last, Instant::now()).elapsed().min(LONGEST);
        if start.exists() {
            sending += passed;
            due += rate as f64 * passed.as_secs_f64();
            let until = Instant::now() + LONGEST;
            while due >= 1.0 && Instant::now() < until {
                due -= flood.burst(wire)? as f64;
            }
        }
        due = due.min(1.0);
        answers(flood, wire)?;
        thread::sleep(TICK);
    }
    Ok(sending)
}

fn settle(flood: &mut dyn Flood, wire: &mut Wire) -> Result<(), Failure> {
    let since = Instant::now();
    while since.elapsed() < LAST_ANSWERS {
        answers(flood, wire)?;
        thread::sleep(TICK);
    }
    Ok(())
}

fn answers(flood: &mut dyn Flood, wire: &mut Wire) -> Result<(), Failure> {
    let mut buffer = [0; 65_536];
    while let Some((source, len)) = wire.receive(&mut buffer)? {
        flood.on_answer(wire, source, &buffer[..len])?;
    }
    Ok(())
}

/// First flights of handshakes, each of another source.
struct Initials {
    hellos: Vec<Hello>,
    next: u32,
}

impl Flood for Initials {
    fn burst(&mut self, wire: &mut Wire) -> Result<u64, Failure> {
        let hello = &self.hellos[self.next as usize % self.hellos.len()];
        let source = wire.source(self.next);
        self.next = self.next.wrapping_add(1);
        wire.send(source, &hello.datagrams.concat(), Some(hello::DATAGRAM))?;
        Ok(hello.datagrams.len() as u64)
    }
}

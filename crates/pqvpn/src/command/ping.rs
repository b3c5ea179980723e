// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ping PEER`: round trips inside the tunnel, naming the path and why it is not better.

use std::time::Duration;

use pqvpn_api::{
    error::{ApiError, Code},
    model::{PathKind, Ping},
};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{
    cli::PingArgs,
    context::Context,
    failure::Failure,
    output::{Output, printable},
};

pub(crate) async fn run(context: &Context, args: &PingArgs) -> Result<(), Failure> {
    let client = context.client()?;
    let timeout = Duration::from_secs_f64(args.timeout);
    let interval = Duration::from_secs_f64(args.interval);
    let mut tally = Tally::default();
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::failed("signal", "no ping", error, "try again"))?;
    for seq in 1..=args.count {
        let next = Instant::now() + interval;
        let answer = tokio::select! {
            answer = client.ping(&args.peer, timeout) => answer,
            _ = interrupt.recv() => return tally.finish(&context.output, seq),
        };
        let read = match answer {
            Ok(pong) => {
                let read = context.output.progress(&pong_line(seq, &pong));
                tally.replies.push((seq, pong));
                read
            }
            Err(error) if error.code == Code::NoAnswer => {
                let read = context.output.progress(&format!("{seq}: {}", printable(&error.why)));
                tally.last_error = Some(error);
                read
            }
            // Every further ping would fail in the same way.
            Err(error) => return Err(error.into()),
        };
        if read.is_err() {
            return tally.finish(&context.output, seq);
        }
        if seq < args.count {
            tokio::select! {
                () = sleep_until(next) => {}
                _ = interrupt.recv() => return tally.finish(&context.output, seq),
            }
        }
    }
    tally.finish(&context.output, args.count)
}

#[derive(Default)]
struct Tally {
    replies: Vec<(u32, Ping)>,
    last_error: Option<ApiError>,
}

impl Tally {
    fn finish(self, output: &Output, sent: u32) -> Result<(), Failure> {
        let Some((_, last)) = self.replies.last() else {
            return Err(self.last_error.map_or_else(|| nothing_came(sent), Failure::from));
        };
        let times: Vec<f64> = self.replies.iter().map(|(_, pong)| pong.rtt_ms).collect();
        let received = times.len();
        let min = times.iter().copied().fold(f64::INFINITY, f64::min);
        let max = times.iter().copied().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "counts of pings are small")]
        let (avg, loss) = (times.iter().sum::<f64>() / received as f64, 1.0 - received as f64 / f64::from(sent));
        let json = json!({
            "schema": pqvpn_api::SCHEMA, "peer_id": last.peer_id, "name": last.name, "sent": sent, "received": received,
            "loss": round(loss), "rtt_ms": {"min": min, "avg": round(avg), "max": max},
            "replies": self.replies.iter().map(reply_json).collect::<Vec<_>>(),
        });
        output
            .result(&json, |_| format!("{received} of {sent} answered; rtt min/avg/max {min:.3}/{avg:.3}/{max:.3} ms"));
        Ok(())
    }
}

fn pong_line(seq: u32, pong: &Ping) -> String {
    let (name, why) = (printable(&pong.name), printable(&pong.why));
    let way = match &pong.via {
        Some(via) => format!("{} {}", kind(pong.kind), printable(via)),
        None => format!("{} {}", kind(pong.kind), pong.remote),
    };
    format!("{seq}: pong from {name} in {:.3} ms, {way} ({why})", pong.rtt_ms)
}

fn reply_json((seq, pong): &(u32, Ping)) -> Value {
    json!({"seq": seq, "rtt_ms": pong.rtt_ms, "path": {"kind": pong.kind, "remote": pong.remote, "via": pong.via, "why": pong.why}})
}

/// The word for a kind of path.
pub(super) const fn kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Circuit => "circuit",
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Interrupted before the first answer, or the first silence.
fn nothing_came(sent: u32) -> Failure {
    Failure::failed(
        "interrupted",
        "no answer yet",
        format!("interrupted after {sent} sent"),
        "wait for it, `-W` seconds at most",
    )
}

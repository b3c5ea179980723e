// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP throughput with iperf3.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::Host;
use serde_json::Value;

/// How long starting and ending may take beside the transfer itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one transfer came to.
#[derive(Debug, Clone, Copy)]
pub(in crate::command) struct Transfer {
    /// Throughput as the receiver counts it.
    pub(in crate::command) gbit_s: f64,
    /// Bytes received, by 10^9.
    pub(in crate::command) gigabytes: f64,
    /// Segments TCP sent again.
    pub(in crate::command) retransmits: f64,
}

/// Sends from `one` to `target`, an address of `two`, over `streams` connections.
pub(in crate::command) fn tcp(
    one: &Host,
    two: &Host,
    target: IpAddr,
    seconds: u32,
    streams: u32,
) -> anyhow::Result<Transfer> {
    let result = run(one, two, target, seconds, &["--parallel", &streams.to_string()])?;
    parse(&result).context("iperf3 reported no received bytes")
}

/// Sends datagrams at a rate; gives the Mbit/s of payload that arrived.
pub(in crate::command) fn udp(
    one: &Host,
    two: &Host,
    target: IpAddr,
    seconds: u32,
    kilobits: u32,
) -> anyhow::Result<f64> {
    let rate = format!("{kilobits}k");
    let result = run(one, two, target, seconds, &["--udp", "--length", "1000", "--bitrate", &rate])?;
    parse_udp(&result).context("iperf3 reported no datagrams")
}

fn run(one: &Host, two: &Host, target: IpAddr, seconds: u32, more: &[&str]) -> anyhow::Result<Value> {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--forceflush", "--bind", &target.to_string()]);
    let server = Daemon::spawn(&two.namespace, "iperf3 server", server)?;
    server.wait_for_line("listening", PATIENCE)?;
    let mut client = Command::new("iperf3");
    client.args(["--json", "--connect-timeout", "5000", "--client", &target.to_string()]);
    client.args(["--time", &seconds.to_string()]).args(more);
    let client = process::run(&one.namespace, client, PATIENCE + Duration::from_secs(seconds.into()))?;
    let result: Value = serde_json::from_str(&client.stdout).context("iperf3 printed no JSON")?;
    if let Some(error) = result["error"].as_str() {
        anyhow::bail!("iperf3 to {target}: {error}");
    }
    Ok(result)
}

/// What was sent, less what the receiver missed.
fn parse_udp(result: &Value) -> Option<f64> {
    let sum = &result["end"]["sum"];
    let (rate, lost) = (sum["bits_per_second"].as_f64()?, sum["lost_percent"].as_f64()?);
    Some(rate / 1e6 * (1.0 - lost / 100.0))
}

fn parse(result: &Value) -> Option<Transfer> {
    let sum = &result["end"]["sum_received"];
    let (bits, bytes) = (sum["bits_per_second"].as_f64()?, sum["bytes"].as_f64()?);
    let retransmits = result["end"]["sum_sent"]["retransmits"].as_f64().unwrap_or(0.0);
    (bytes > 0.0).then_some(Transfer { gbit_s: bits / 1e9, gigabytes: bytes / 1e9, retransmits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_datagrams_do_not_count() {
        let result = serde_json::json!({"end": {"sum": {"bits_per_second": 10e6, "lost_percent": 25.0}}});
        assert!((parse_udp(&result).unwrap() - 7.5).abs() < 1e-9);
        assert!(parse_udp(&serde_json::json!({"end": {}})).is_none());
    }

    #[test]
    fn reads_the_receivers_side() {
        let result = serde_json::json!({"end": {
            "sum_sent": {"bytes": 9, "bits_per_second": 9.0},
            "sum_received": {"bytes": 2_000_000_000_u64, "bits_per_second": 5.5e9}}});
        let transfer = parse(&result).unwrap();
        assert!((transfer.gbit_s - 5.5).abs() < 1e-9 && (transfer.gigabytes - 2.0).abs() < 1e-9);
        assert!(parse(&serde_json::json!({"end": {}})).is_none());
        assert!(parse(&serde_json::json!({"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}})).is_none());
    }
}

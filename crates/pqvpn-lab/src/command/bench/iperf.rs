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
pub(super) struct Transfer {
    /// Throughput as the receiver counts it.
    pub(super) gbit_s: f64,
    /// Bytes received, by 10^9.
    pub(super) gigabytes: f64,
    /// Segments TCP sent again.
    pub(super) retransmits: f64,
}

/// Sends from `one` to `target`, an address of `two`, over `streams` connections.
pub(super) fn tcp(one: &Host, two: &Host, target: IpAddr, seconds: u32, streams: u32) -> anyhow::Result<Transfer> {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--one-off", "--forceflush", "--bind", &target.to_string()]);
    let server = Daemon::spawn(&two.namespace, "iperf3 server", server)?;
    server.wait_for_line("listening", PATIENCE)?;
    let mut client = Command::new("iperf3");
    client.args(["--json", "--connect-timeout", "5000", "--client", &target.to_string()]);
    client.args(["--time", &seconds.to_string(), "--parallel", &streams.to_string()]);
    let client = process::run(&one.namespace, client, PATIENCE + Duration::from_secs(seconds.into()))?;
    let result: Value = serde_json::from_str(&client.stdout).context("iperf3 printed no JSON")?;
    if let Some(error) = result["error"].as_str() {
        anyhow::bail!("iperf3 to {target}: {error}");
    }
    parse(&result).context("iperf3 reported no received bytes")
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

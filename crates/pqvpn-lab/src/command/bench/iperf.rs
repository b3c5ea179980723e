// SPDX-License-Identifier: MIT OR Apache-2.0
//! Throughput and loss with iperf3.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::process::Daemon;
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

/// What became of datagrams sent at a rate.
#[derive(Debug, Clone, Copy)]
pub(in crate::command) struct Datagrams {
    /// Payload that arrived.
    pub(in crate::command) mbit_s: f64,
    /// Payload bytes that arrived, by 10^9.
    pub(in crate::command) gigabytes: f64,
    /// Share that did not, in percent.
    pub(in crate::command) lost_percent: f64,
}

/// Who sends where, for how long.
#[derive(Debug, Clone, Copy)]
pub(in crate::command) struct Course<'h> {
    /// Where the client runs.
    pub(in crate::command) one: &'h Host,
    /// Where the server runs.
    pub(in crate::command) two: &'h Host,
    /// An address of `two`.
    pub(in crate::command) target: IpAddr,
    /// How long the transfer takes.
    pub(in crate::command) seconds: u32,
}

/// Sends from `one` to `target`, an address of `two`, over `streams` connections.
pub(in crate::command) fn tcp(
    one: &Host,
    two: &Host,
    target: IpAddr,
    seconds: u32,
    streams: u32,
) -> anyhow::Result<Transfer> {
    Course { one, two, target, seconds }.tcp(streams, false)
}

/// Sends datagrams at a rate; gives the Mbit/s of payload that arrived.
pub(in crate::command) fn udp(
    one: &Host,
    two: &Host,
    target: IpAddr,
    seconds: u32,
    kilobits: u32,
) -> anyhow::Result<f64> {
    Ok(Course { one, two, target, seconds }.udp(1000, kilobits)?.mbit_s)
}

impl Course<'_> {
    /// Over `streams` connections; `reverse`: from `two` to `one`.
    pub(in crate::command) fn tcp(&self, streams: u32, reverse: bool) -> anyhow::Result<Transfer> {
        Ok(self.tcp_beside(streams, reverse, |_| Ok(()))?.0)
    }

    /// As [`Self::tcp`], doing something else while the transfer runs: it is told how long that will be.
    pub(in crate::command) fn tcp_beside<R>(
        &self,
        streams: u32,
        reverse: bool,
        beside: impl FnOnce(Duration) -> anyhow::Result<R>,
    ) -> anyhow::Result<(Transfer, R)> {
        let streams = streams.to_string();
        let mut more = vec!["--parallel", &streams];
        more.extend(reverse.then_some("--reverse"));
        let (result, other) = self.run(&more, beside)?;
        Ok((parse(&result).context("iperf3 reported no received bytes")?, other))
    }

    /// Datagrams of `length` bytes of payload at a rate.
    pub(in crate::command) fn udp(&self, length: u32, kilobits: u32) -> anyhow::Result<Datagrams> {
        let (length, rate) = (length.to_string(), format!("{kilobits}k"));
        let (result, ()) = self.run(&["--udp", "--length", &length, "--bitrate", &rate], |_| Ok(()))?;
        parse_udp(&result).context("iperf3 reported no datagrams")
    }

    fn run<R>(&self, more: &[&str], beside: impl FnOnce(Duration) -> anyhow::Result<R>) -> anyhow::Result<(Value, R)> {
        let (target, span) = (self.target.to_string(), Duration::from_secs(self.seconds.into()));
        let mut server = Command::new("iperf3");
        server.args(["--server", "--one-off", "--forceflush", "--bind", &target]);
        let server = Daemon::spawn(&self.two.namespace, "iperf3 server", server)?;
        server.wait_for_line("listening", PATIENCE)?;
        let mut client = Command::new("iperf3");
        client.args(["--json", "--connect-timeout", "5000", "--client", &target]);
        client.args(["--time", &self.seconds.to_string()]).args(more);
        let client = Daemon::spawn(&self.one.namespace, "iperf3", client)?;
        let accepted = server.wait_for_line("Accepted connection", PATIENCE);
        // Without a connection the client says why.
        let other = accepted.is_ok().then(|| beside(span));
        let client = client.wait(PATIENCE + span)?;
        let result: Value = serde_json::from_str(&client.stdout).context("iperf3 printed no JSON")?;
        if let Some(error) = result["error"].as_str() {
            anyhow::bail!("iperf3 to {target}: {error}");
        }
        let other = other.context("iperf3 accepted no connection")??;
        Ok((result, other))
    }
}

/// What was sent, less what the receiver missed.
fn parse_udp(result: &Value) -> Option<Datagrams> {
    let sum = &result["end"]["sum"];
    let (rate, lost_percent) = (sum["bits_per_second"].as_f64()?, sum["lost_percent"].as_f64()?);
    let arrived = 1.0 - lost_percent / 100.0;
    let gigabytes = sum["bytes"].as_f64().unwrap_or(0.0) / 1e9 * arrived;
    Some(Datagrams { mbit_s: rate / 1e6 * arrived, gigabytes, lost_percent })
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
        let sum = serde_json::json!({"bits_per_second": 10e6, "lost_percent": 25.0, "bytes": 4e9});
        let datagrams = parse_udp(&serde_json::json!({"end": {"sum": sum}})).unwrap();
        assert!((datagrams.mbit_s - 7.5).abs() < 1e-9 && (datagrams.gigabytes - 3.0).abs() < 1e-9);
        assert!((datagrams.lost_percent - 25.0).abs() < 1e-9);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Throughput and loss with iperf3.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;
use serde_json::Value;

/// How long starting and ending may take beside the transfer itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// How TCP finds its pace in the bench: what Linux does by itself. Left to what the machine is set to, figures of two
/// machines could not be compared.
pub(super) const CONGESTION_CONTROL: &str = "cubic";
const PACED: [&str; 2] = ["--congestion", CONGESTION_CONTROL];

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

/// Sends from `one` to `target`, an address of `two`, over `streams` connections, as the machine is set to.
pub(in crate::command) fn tcp(
    one: &Host,
    two: &Host,
    target: IpAddr,
    seconds: u32,
    streams: u32,
) -> anyhow::Result<Transfer> {
    let course = Course { one, two, target, seconds };
    course.start(&["--parallel", &streams.to_string()])?.finish().and_then(|result| parse_tcp(&result))
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
        let streams = streams.to_string();
        let mut more = vec!["--parallel", &streams];
        more.extend(PACED);
        more.extend(reverse.then_some("--reverse"));
        self.start(&more)?.finish().and_then(|result| parse_tcp(&result))
    }

    /// One connection from `one` to `two`, and something else from when it is there: that is told how long to go on.
    pub(in crate::command) fn tcp_beside<R>(
        &self,
        beside: impl FnOnce(Duration) -> anyhow::Result<R>,
    ) -> anyhow::Result<(Transfer, R)> {
        let running = self.start(&PACED)?;
        let client = &running.client;
        // Its standard output comes at the end. Without a connection, that says why.
        let connected = client.wait_until("the connection", PATIENCE, || is_sending(client.pid()).then_some(()));
        let other = connected.is_ok().then(|| beside(running.span));
        let transfer = running.finish().and_then(|result| parse_tcp(&result))?;
        Ok((transfer, other.context("iperf3 had no connection")??))
    }

    /// Datagrams of `length` bytes of payload at a rate.
    pub(in crate::command) fn udp(&self, length: u32, kilobits: u32) -> anyhow::Result<Datagrams> {
        let (length, rate) = (length.to_string(), format!("{kilobits}k"));
        let result = self.start(&["--udp", "--length", &length, "--bitrate", &rate])?.finish()?;
        parse_udp(&result).context("iperf3 reported no datagrams")
    }

    fn start(&self, more: &[&str]) -> anyhow::Result<Running> {
        let (target, span) = (self.target.to_string(), Duration::from_secs(self.seconds.into()));
        let mut server = Command::new("iperf3");
        server.args(["--server", "--one-off", "--forceflush", "--bind", &target]);
        let server = Daemon::spawn(&self.two.namespace, "iperf3 server", server)?;
        server.wait_for_line("listening", PATIENCE)?;
        let mut client = Command::new("iperf3");
        client.args(["--json", "--connect-timeout", "5000", "--client", &target]);
        client.args(["--time", &self.seconds.to_string()]).args(more);
        let client = Daemon::spawn(&self.one.namespace, "iperf3", client)?;
        Ok(Running { client, _server: server, target, span })
    }
}

/// Both ends under way.
struct Running {
    client: Daemon,
    _server: Daemon,
    target: String,
    span: Duration,
}

impl Running {
    fn finish(self) -> anyhow::Result<Value> {
        let client = self.client.wait(PATIENCE + self.span)?;
        let result: Value = serde_json::from_str(&client.stdout).context("iperf3 printed no JSON")?;
        if let Some(error) = result["error"].as_str() {
            anyhow::bail!("iperf3 to {}: {error}", self.target);
        }
        Ok(result)
    }
}

/// Whether the namespace of a client has both its connections: the second is the one that carries data.
fn is_sending(pid: u32) -> bool {
    let established = |table: &str| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let remote = |line: &str| {
            let mut fields = line.split_whitespace().skip(2);
            Some((fields.next()?.to_owned(), fields.next()? == "01"))
        };
        let towards = |(remote, established): &(String, bool)| *established && remote.ends_with(":1451");
        table.lines().filter_map(remote).filter(towards).count()
    };
    // proc_pid_net(5): remote address in hexadecimal, then the state; 5201 is iperf3's port.
    established("tcp") + established("tcp6") >= 2
}

fn parse_tcp(result: &Value) -> anyhow::Result<Transfer> {
    parse(result).context("iperf3 reported no received bytes")
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: a whole mesh on this machine in throwaway namespaces, measured and taken down again.
//!
//! Real daemons, real kernel interfaces, the same commands a user gives; only the hosts are namespaces. Nothing has a
//! name outside this process, so nothing can stay behind.

mod measure;
mod mesh;

use std::fs::OpenOptions;

use pqvpn_api::SCHEMA;
use pqvpn_lab::{
    netns::{self, Privilege},
    process,
    report::Table,
};
use serde::Serialize;

use self::{measure::Row, mesh::Mesh};
use crate::{cli::DemoArgs, context::Context, failure::Failure};

/// Where the kernel makes interfaces.
const TUN: &str = "/dev/net/tun";

/// What `demo --json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: u32,
    nodes: u8,
    /// From starting the daemons to the first answered ping, in milliseconds.
    start_to_ping_ms: f64,
    /// One entry per peer of the first node.
    rows: Vec<Row>,
}

/// Builds the mesh, measures it and takes it down again.
pub(crate) fn run(context: &Context, args: &DemoArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let hint = "once more, as root; if it ends like this again, report it with these lines";
        Failure::failed("demo", "the demo did not come to its end", error, hint)
    };
    // First of all: a user namespace can be entered only while there is one thread.
    let privilege = netns::acquire().map_err(|error| {
        Failure::refused("privilege", "no namespaces for the demo", error, "run it as root, or allow user namespaces")
    })?;
    if privilege == Privilege::UserNamespace {
        tun_is_open_to_us()?;
    }
    process::kill_children_on_interrupt().map_err(|error| failed(&error))?;
    let rootless = if privilege == Privilege::UserNamespace { " (without root, in a user namespace)" } else { "" };
    let _gone = context.output.progress(&format!("building {} hosts on one switch{rootless}", args.nodes));
    let mesh = Mesh::build(args.nodes).map_err(|error| failed(&format!("{error:#}")))?;
    let _gone =
        context.output.progress("daemons are up; first packets, hybrid handshakes, ratchet steps, throughput ...");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let (start_to_ping_ms, rows) =
        runtime.block_on(measure::all(&mesh)).map_err(|error| failed(&format!("{error:#}")))?;
    mesh.take_down().map_err(|error| failed(&format!("{error:#}")))?;
    let start_to_ping_ms = round(start_to_ping_ms);
    let outcome = Outcome { schema: SCHEMA, nodes: args.nodes, start_to_ping_ms, rows };
    context.output.result(&outcome, |_| table(&outcome));
    Ok(())
}

/// Root of a user namespace may make interfaces, but the device node has to let its user in.
fn tun_is_open_to_us() -> Result<(), Failure> {
    let opened = OpenOptions::new().read(true).write(true).open(TUN);
    opened.map(drop).map_err(|error| {
        let hint = "run it as root; or let users in, as most distributions do: `sudo chmod 0666 /dev/net/tun`";
        Failure::refused("privilege", "no tunnel device for the demo", format!("{TUN}: {error}"), hint)
    })
}

/// Three digits after the point: what was measured has no more.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn table(outcome: &Outcome) -> String {
    let titles = ["peer", "address", "handshake ms", "RTT ms", "Gbit/s", "suite", "AEAD", "epoch", "state"];
    let mut table = Table::new(titles.map(str::to_owned).to_vec());
    for row in &outcome.rows {
        table.row(vec![
            row.peer.clone(),
            row.address.to_string(),
            format!("{:.1}", row.handshake_ms),
            format!("{:.3}", row.rtt_ms),
            row.throughput_gbit_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}")),
            row.suite.clone(),
            row.aead.clone(),
            row.epoch.to_string(),
            row.state.clone(),
        ]);
    }
    format!(
        "\n{table}\nfrom starting the daemons to the first answered ping: {:.0} ms\neverything has been removed again",
        outcome.start_to_ping_ms
    )
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab revoke`: a member sends to everybody without pause; how long after `revoke` does its last packet arrive?

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::report::{Op, Report};
use serde_json::Value;

use super::stream::{Receiver, Sender};
use super::{Member, Mesh, SETTLE, look, rounded, say};

/// A host that got nothing for so long gets no more.
const QUIET: Duration = Duration::from_secs(5);
/// How long packets may go on arriving before the run gives up waiting for silence.
const WATCH: Duration = Duration::from_secs(40);
/// How long a revoked member that knows of nothing may knock until it is told, or the run goes on without.
const TOLD: Duration = Duration::from_secs(20);
/// Datagrams every host must have got before the revocation: the stream runs.
const ENOUGH: u64 = 100;
/// The founder, who revokes.
const FOUNDER: usize = 0;
/// Who is revoked.
const VICTIM: usize = 1;
/// Who is away meanwhile.
const ABSENT: usize = 2;

/// How many.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Daemons: who revokes, who is revoked, who is away, and others.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(4..=80))]
    nodes: u8,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("revoke");
    report.figure("nodes", args.nodes);
    let mut mesh = Mesh::build(args.nodes, |index| format!("n{index:02}"))?;
    mesh.found(args.nodes.into(), &[])?;
    Mesh::settle(&mesh.running().collect::<Vec<_>>(), SETTLE)?;
    // What it remembers now is what an old backup of it would.
    mesh.members[VICTIM].stop()?;
    mesh.members[VICTIM].node.save()?;
    mesh.members[VICTIM].start()?;
    let receivers = mesh.members.iter().map(|member| Receiver::listen(&member.node.host.namespace));
    let receivers = receivers.collect::<anyhow::Result<Vec<_>>>()?;
    let targets = everybody_but(&mesh, VICTIM)?;
    let sender = Sender::start(&mesh.members[VICTIM].node.host.namespace, targets)?;
    say("the stream runs; one member goes away");
    look("packets at every member", SETTLE, || {
        let others = receivers.iter().enumerate().filter(|(index, _)| *index != VICTIM);
        others.map(|(_, receiver)| receiver.count()).all(|count| count >= ENOUGH).then_some(())
    })?;
    mesh.members[ABSENT].stop()?;
    revoke(&mesh, &receivers, &mut report)?;
    comes_back(&mut mesh, &receivers, &mut report)?;
    agreement(&mesh, &mut report)?;
    from_a_backup(&mut mesh, &receivers, &mut report)?;
    drop(sender);
    mesh.stop()?;
    Ok(report)
}

/// The IPv6 address in the network of every member but one.
fn everybody_but(mesh: &Mesh, but: usize) -> anyhow::Result<Vec<IpAddr>> {
    let others = mesh.members.iter().enumerate().filter(|(index, _)| *index != but);
    others.map(|(_, member)| member.addresses()?.first().copied().context("an address")).collect()
}

/// Who is online hears no more of it.
fn revoke(mesh: &Mesh, receivers: &[Receiver], report: &mut Report) -> anyhow::Result<()> {
    say("revoking");
    let victim = &mesh.members[VICTIM];
    let start = Instant::now();
    let answer = mesh.members[FOUNDER].json(&["revoke", &victim.name, "--reason", "lost"])?;
    let returned = Instant::now();
    report.figure("revoke_s", rounded((returned - start).as_secs_f64()));
    report.figure("pushed_to", answer["pushed_to"].clone());
    let online: Vec<usize> = (0..receivers.len()).filter(|index| ![VICTIM, ABSENT].contains(index)).collect();
    let id = answer["peer_id"].as_str().context("who was revoked")?;
    let knows =
        |index: &usize| mesh.members[*index].json(&["peers"]).map_or(true, |peers| peers.to_string().contains(id));
    let cut =
        look("no session with the revoked member", WATCH, || (!online.iter().any(knows)).then(|| returned.elapsed()));
    report.figure("cut_everywhere_s", rounded(cut.unwrap_or(WATCH).as_secs_f64()));
    report.bar("cut_everywhere_s", Op::AtMost, 5.0);
    let silent = |index: &usize| receivers[*index].newest().is_none_or(|newest| newest.elapsed() >= QUIET);
    let quiet = look("silence", WATCH, || (returned.elapsed() >= QUIET && online.iter().all(silent)).then_some(()));
    if let Err(error) = quiet {
        say(&format!("packets still arrive: {error}"));
    }
    let mut worst = 0.0_f64;
    for index in online {
        let late = receivers[index].newest().map_or(0.0, |newest| (newest - returned.min(newest)).as_secs_f64());
        worst = worst.max(late);
        report.row([
            ("member", mesh.members[index].name.clone().into()),
            ("packets", receivers[index].count().into()),
            ("last_after_revoke_s", rounded(late)),
        ]);
    }
    report.figure("last_packet_s", rounded(worst));
    report.bar("last_packet_s", Op::AtMost, 5.0);
    Ok(())
}

/// The member that was away meets the network again, and the revoked one knocks at its door all the time.
fn comes_back(mesh: &mut Mesh, receivers: &[Receiver], report: &mut Report) -> anyhow::Result<()> {
    say("the member that was away comes back");
    let before = receivers[ABSENT].count();
    let start = Instant::now();
    mesh.members[ABSENT].start()?;
    let (absent, victim) = (&mesh.members[ABSENT], &mesh.members[VICTIM]);
    look("the revocation at the member that was away", SETTLE, || {
        absent.members().ok().filter(|names| !names.contains(&victim.name))
    })?;
    report.figure("absent_knows_s", rounded(start.elapsed().as_secs_f64()));
    let friend = &mesh.members[FOUNDER];
    look("a member that is welcome", SETTLE, || friend.ping(&absent.name, QUIET).ok())?;
    // The welcome one gets through, so the other would have by now; it gets its chance once more.
    let ping = victim.ping(&absent.name, QUIET);
    report.figure("absent_packets", receivers[ABSENT].count() - before);
    report.figure("absent_answers", u8::from(ping.is_ok()));
    if let Err(error) = ping {
        say(&format!("the revoked member is told: {error:#}"));
    }
    report.bar("absent_packets", Op::Equal, 0.0);
    report.bar("absent_answers", Op::Equal, 0.0);
    Ok(())
}

/// Nobody counts it as a member any more, and all hold the same.
fn agreement(mesh: &Mesh, report: &mut Report) -> anyhow::Result<()> {
    let victim = &mesh.members[VICTIM];
    let others: Vec<&Member> = mesh.running().filter(|member| member.name != victim.name).collect();
    let names = Mesh::settle(&others, SETTLE)?;
    report.figure("members_after", names.len());
    report.figure("still_a_member", u8::from(names.contains(&victim.name)));
    report.bar("still_a_member", Op::Equal, 0.0);
    let state = victim.network().map_or_else(|_| Value::Null, |network| network["state"].clone());
    report.figure("state_at_the_revoked", state);
    Ok(())
}

/// The revoked member comes back as it was before, and knows of nothing: it believes in its membership, others do not.
fn from_a_backup(mesh: &mut Mesh, receivers: &[Receiver], report: &mut Report) -> anyhow::Result<()> {
    say("the revoked member comes back from a backup");
    mesh.members[VICTIM].stop()?;
    mesh.members[VICTIM].node.restore()?;
    let count = || receivers.iter().enumerate().filter(|(index, _)| *index != VICTIM).map(|(_, one)| one.count());
    let before: u64 = count().sum();
    mesh.members[VICTIM].start()?;
    let victim = &mesh.members[VICTIM];
    let start = Instant::now();
    let told = look("the revoked member to be told", TOLD, || {
        let state = victim.network().ok()?["state"].clone();
        (state == "revoked").then(|| start.elapsed())
    });
    report.figure("backup_told_s", rounded(told.unwrap_or(TOLD).as_secs_f64()));
    let answers = mesh.members.iter().filter(|one| one.name != victim.name);
    let answers = answers.filter(|one| victim.ping(&one.name, Duration::from_secs(1)).is_ok()).count();
    report.figure("backup_answers", answers);
    report.figure("backup_packets", count().sum::<u64>() - before);
    report.bar("backup_answers", Op::Equal, 0.0);
    report.bar("backup_packets", Op::Equal, 0.0);
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `net`: make, show, leave, switch networks on and off.

use pqvpn_api::model::{Health, NetCreateRequest, NetRequest, NetworkAnswer, NetworkInfo};
use pqvpn_node::membership::NetworkError;
use pqvpn_wire::network::is_label;

use super::{block_on, confirm, status, up};
use crate::{
    cli::{CreateArgs, NetVerb},
    context::Context,
    failure::Failure,
    output::{Output, Tone, printable, table},
};

pub(crate) fn run(context: &Context, verb: NetVerb) -> Result<(), Failure> {
    match verb {
        NetVerb::Create(args) => create(context, args),
        NetVerb::List => block_on(list(context)),
        NetVerb::Leave { network, yes } => block_on(leave(context, network, yes)),
        NetVerb::Up { network } => block_on(switch(context, network, true)),
        NetVerb::Down { network } => block_on(switch(context, network, false)),
    }
}

fn create(context: &Context, args: CreateArgs) -> Result<(), Failure> {
    // Found out here: a daemon need not be started for a slip of the finger.
    for name in std::iter::once(&args.name).chain(&args.member_name) {
        check_name("no network was made", name)?;
    }
    let started = up::ensure(context, &args.passphrase)?;
    let request = NetCreateRequest {
        name: args.name,
        member_name: args.member_name,
        pool: args.pool.map(|pool| pool.to_string()),
        approval: args.approval,
        quorum: args.quorum,
    };
    let made = block_on(async { Ok(context.client()?.net_create(&request).await?) })
        .inspect_err(|_| up::remark_started(context, started))?;
    let several = block_on(async { Ok(context.client()?.networks().await?.networks.len() > 1) }).unwrap_or(false);
    let json = up::with_started(&made, started);
    context.output.result(&json, |output| {
        // What is said once is said to those who want results only, too.
        if output.is_quiet() {
            return made.disable_secret.as_deref().map(printable).unwrap_or_default().to_string();
        }
        let mut text = up::started_line(started);
        text.push_str(&here(output, &made.network));
        if let Some(secret) = &made.disable_secret {
            text.push_str(&format!(
                "\nKeep this secret in a safe place, it is shown once: it ends the network for everybody\n  {}\n",
                printable(secret)
            ));
        }
        let which = if several { format!(" -n {}", printable(&made.network.name)) } else { String::new() };
        format!("{text}\nInvite somebody: pqvpn invite{which}")
    });
    Ok(())
}

/// Whether a network or member can have the name.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if is_label(name) {
        return Ok(());
    }
    let why = NetworkError::BadName(name.to_owned());
    Err(Failure::usage("bad-request", what, why, "a name is like `home` or `nas-2`"))
}

/// Who and where this node is in a network.
fn here(output: &Output, network: &NetworkInfo) -> String {
    let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
    let name = output.tone(Tone::Good, &printable(&network.name));
    format!("network {name}: you are {}  {}\n", printable(&network.own_name), addresses.join("  "))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let networks = client.networks().await?;
    // What became of those there were, or might be by now.
    let health = if networks.networks.is_empty() { client.status().await?.health } else { Vec::new() };
    context.output.result(&networks, |output| {
        if networks.networks.is_empty() {
            let of_networks = |item: &&Health| matches!(item.code.as_str(), "networks-store" | "join-failed");
            let notes: String =
                health.iter().filter(of_networks).map(|item| status::health_line(output, item)).collect();
            return "no networks; `pqvpn net create NAME` makes one, `pqvpn join CODE` joins one\n".to_owned() + &notes;
        }
        let columns = ["NETWORK", "STATE", "MEMBERS", "ONLINE", "YOU", "ADDRESS", "RANGE", "ID"];
        let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
        rows.extend(networks.networks.iter().map(row));
        table(output, &rows) + &notes(output, &networks.networks)
    });
    Ok(())
}

fn row(network: &NetworkInfo) -> Vec<(Tone, String)> {
    let plain = |text: String| (Tone::Plain, text);
    let address = network.addresses.iter().find(|address| address.is_ipv4()).or(network.addresses.first());
    let admin = if network.admin { " (admin)" } else { "" };
    vec![
        plain(printable(&network.name)),
        (tone(&network.state), printable(&network.state)),
        plain(network.members.to_string()),
        plain(network.online.to_string()),
        plain(format!("{}{admin}", printable(&network.own_name))),
        plain(address.map_or_else(|| "-".to_owned(), ToString::to_string)),
        // Whoever waits does not know it yet.
        plain(if network.addresses.is_empty() { "-".to_owned() } else { printable(&network.pool) }),
        plain(network.id.chars().take(16).collect()),
    ]
}

/// How good a state of a network is.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "up" => Tone::Good,
        "syncing" | "waiting" => Tone::Warn,
        "down" => Tone::Dim,
        _ => Tone::Bad,
    }
}

/// What is to be known, and done, below the table.
fn notes(output: &Output, networks: &[NetworkInfo]) -> String {
    let mut text = String::new();
    for network in networks {
        let name = printable(&network.name);
        // Who waits is said below, with what to type.
        for item in network.health.iter().filter(|item| item.code != "joins-waiting") {
            text.push_str(&output.tone(Tone::Warn, &format!("# {}", printable(&item.text))));
            text.push('\n');
        }
        if network.waiting > 0 {
            let line = format!("# {name}: {} waiting to be let in: pqvpn approve -n {name}", network.waiting);
            text.push_str(&output.tone(Tone::Warn, &line));
            text.push('\n');
        }
    }
    text
}

async fn leave(context: &Context, network: Option<String>, yes: bool) -> Result<(), Failure> {
    let client = context.client()?;
    if !yes {
        let named = network.as_ref().map_or_else(|| "the network".to_owned(), |name| printable(name));
        let question = format!("This node forgets {named}; to come back it has to be invited anew.");
        confirm::ask(&context.output, &question, "the network was not left", "`--yes` says that it is meant")?;
    }
    let left = client.net_leave(&NetRequest { network }).await?;
    context.output.done(&left, |_| {
        format!("left {}; to come back, this node has to be invited anew", printable(&left.network.name))
    });
    Ok(())
}

async fn switch(context: &Context, network: Option<String>, on: bool) -> Result<(), Failure> {
    let client = context.client()?;
    let request = NetRequest { network };
    let answer: NetworkAnswer = if on { client.net_up(&request).await? } else { client.net_down(&request).await? };
    context.output.done(&answer, |output| {
        let name = printable(&answer.network.name);
        if on { here(output, &answer.network) } else { format!("{name} is down; `pqvpn net up {name}` brings it back") }
    });
    Ok(())
}

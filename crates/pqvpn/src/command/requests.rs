// SPDX-License-Identifier: MIT OR Apache-2.0
//! `approve` and `deny`: who waits to be let in.

use pqvpn_api::model::{NetRequest, Pending, WhoRequest};

use super::invite::dash;
use crate::{
    cli::JudgeArgs,
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, now_ms, printable, table},
};

pub(crate) async fn approve(context: &Context, args: JudgeArgs) -> Result<(), Failure> {
    let Some(who) = args.who else { return list(context, args.network.network).await };
    let approved = context.client()?.approve(&WhoRequest { network: args.network.network, who }).await?;
    context.output.done(&approved, |_| {
        let (name, network) = (printable(&approved.name), printable(&approved.network));
        let told = if approved.told { "" } else { "; it is told when it asks again" };
        format!("{name} is a member of {network} now{told}\nSay hello: pqvpn ping {name}")
    });
    Ok(())
}

pub(crate) async fn deny(context: &Context, args: JudgeArgs) -> Result<(), Failure> {
    let Some(who) = args.who else { return list(context, args.network.network).await };
    let denied = context.client()?.deny(&WhoRequest { network: args.network.network, who }).await?;
    context.output.done(&denied, |_| {
        let serial: String = denied.request.serial.chars().take(8).collect();
        format!(
            "{} was turned away from {}\n`pqvpn invite cancel {serial}` makes its code useless",
            printable(&denied.request.name),
            printable(&denied.request.network)
        )
    });
    Ok(())
}

async fn list(context: &Context, network: Option<String>) -> Result<(), Failure> {
    let waiting = context.client()?.requests(&NetRequest { network }).await?;
    context.output.result(&waiting, |output| {
        if waiting.requests.is_empty() {
            return "nobody waits to be let in".into();
        }
        rows(output, &waiting.requests) + "`pqvpn approve NAME` lets one in, `pqvpn deny NAME` turns one away"
    });
    Ok(())
}

fn rows(output: &Output, waiting: &[Pending]) -> String {
    let columns = ["NAME", "NETWORK", "PEER", "WAITS", "INVITE", "TAGS"];
    let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
    rows.extend(waiting.iter().map(|pending| {
        let cells = [
            printable(&pending.name),
            printable(&pending.network),
            pending.peer_id.clone(),
            age(now_ms().saturating_sub(pending.since_ms) / 1000),
            pending.serial.chars().take(16).collect(),
            dash(&printable(&pending.tags.join(","))),
        ];
        cells.map(|cell| (Tone::Plain, cell)).to_vec()
    }));
    table(output, &rows)
}

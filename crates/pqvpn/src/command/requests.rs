// SPDX-License-Identifier: MIT OR Apache-2.0
//! `approve` and `deny`: who waits to be let in.

use pqvpn_api::{
    SCHEMA,
    client::Client,
    error::{ApiError, Code},
    model::{NetRequest, Pending, Requests, WhoRequest},
};

use super::invite::dash;
use crate::{
    cli::JudgeArgs,
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, now_ms, printable, table},
};

pub(crate) async fn approve(context: &Context, args: JudgeArgs) -> Result<(), Failure> {
    let Some(who) = args.who else { return list(context, args.network.network).await };
    let client = context.client()?;
    let (network, say) = whose(&client, args.network.network, &who).await;
    let approved = client.approve(&WhoRequest { network, who }).await.map_err(say)?;
    context.output.done(&approved, |_| {
        let (name, network) = (printable(&approved.name), printable(&approved.network));
        let told = if approved.told { "" } else { "; it is told when it asks again" };
        format!("{name} is a member of {network} now{told}\nSay hello: pqvpn ping {name}")
    });
    Ok(())
}

pub(crate) async fn deny(context: &Context, args: JudgeArgs) -> Result<(), Failure> {
    let Some(who) = args.who else { return list(context, args.network.network).await };
    let client = context.client()?;
    let (network, say) = whose(&client, args.network.network, &who).await;
    let denied = client.deny(&WhoRequest { network, who }).await.map_err(say)?;
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
    let waiting = waiting(&context.client()?, network).await?;
    context.output.result(&waiting, |output| {
        if waiting.requests.is_empty() {
            return "nobody waits to be let in".into();
        }
        rows(output, &waiting.requests) + "`pqvpn approve NAME` lets one in, `pqvpn deny NAME` turns one away"
    });
    Ok(())
}

/// Who waits; of several networks in all of them, if none is named.
async fn waiting(client: &Client, network: Option<String>) -> Result<Requests, ApiError> {
    match client.requests(&NetRequest { network }).await {
        Err(error) if error.code == Code::WhichNetwork => {}
        answer => return answer,
    }
    let mut all = Requests { schema: SCHEMA, requests: Vec::new() };
    for network in client.networks().await?.networks {
        // One that this node only waits for itself has no such list.
        if let Ok(of_one) = client.requests(&NetRequest { network: Some(network.id) }).await {
            all.requests.extend(of_one.requests);
        }
    }
    Ok(all)
}

/// The network somebody waits for, if none is named and there is only one; and what the daemon's answer means where nobody
/// is called so.
async fn whose(
    client: &Client,
    network: Option<String>,
    who: &str,
) -> (Option<String>, impl FnOnce(ApiError) -> ApiError + use<>) {
    let mut nobody = false;
    let mut network = network;
    if network.is_none()
        && let Ok(all) = waiting(client, None).await
    {
        let meant = |pending: &&Pending| pending.name == who || pending.peer_id.starts_with(&who.to_ascii_lowercase());
        let mut networks: Vec<String> =
            all.requests.iter().filter(meant).map(|pending| pending.network.clone()).collect();
        networks.dedup();
        nobody = networks.is_empty();
        // Where it is not clear the daemon says what is missing.
        network = if networks.len() == 1 { networks.pop() } else { None };
    }
    let why = format!("nobody called {who:?} waits to be let in");
    let say = move |error: ApiError| {
        if !nobody || error.code != Code::WhichNetwork {
            return error;
        }
        ApiError::new(Code::UnknownMember, error.what, why, "`pqvpn approve` shows who waits")
    };
    (network, say)
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

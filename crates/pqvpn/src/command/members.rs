// SPDX-License-Identifier: MIT OR Apache-2.0
//! `members` and `revoke`: who is in a network, and who is thrown out.

use pqvpn_api::model::{Member, NetRequest, RevokeRequest};

use super::invite::dash;
use crate::{
    cli::{NetworkArg, RevokeArgs},
    context::Context,
    failure::Failure,
    output::{Tone, age, counted, now_ms, printable, table},
};

pub(crate) async fn run(context: &Context, network: NetworkArg) -> Result<(), Failure> {
    let members = context.client()?.members(&NetRequest { network: network.network }).await?;
    context.output.result(&members, |output| {
        let columns = ["NAME", "ADDRESS", "STATE", "ROLE", "SEEN", "ENDS", "TAGS", "WHERE", "PEER"];
        let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
        rows.extend(members.members.iter().map(row));
        let alone = members.members.iter().all(|member| member.own);
        table(output, &rows) + if alone { "Invite somebody: pqvpn invite" } else { "" }
    });
    Ok(())
}

fn row(member: &Member) -> Vec<(Tone, String)> {
    let plain = |text: String| (Tone::Plain, text);
    let address = member.addresses.iter().find(|address| address.is_ipv4()).or(member.addresses.first());
    let state = match (member.own, member.online) {
        (true, _) => (Tone::Good, "this node"),
        (false, true) => (Tone::Good, "online"),
        (false, false) => (Tone::Dim, "offline"),
    };
    let roles = [(member.admin, "admin"), (member.ephemeral, "ephemeral")];
    let roles: Vec<&str> = roles.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    let since = |at: u64| format!("{} ago", age(now_ms().saturating_sub(at) / 1000));
    let until = |at: u64| format!("in {}", age(at.saturating_sub(now_ms()) / 1000));
    let none = || "-".to_owned();
    vec![
        plain(printable(&member.name)),
        plain(address.map_or_else(none, ToString::to_string)),
        (state.0, state.1.to_owned()),
        plain(dash(&roles.join(","))),
        plain(member.seen_ms.filter(|_| !member.own).map_or_else(none, since)),
        plain(member.expires_ms.map_or_else(none, until)),
        plain(dash(&printable(&member.tags.join(",")))),
        plain(member.endpoints.first().map_or_else(none, ToString::to_string)),
        plain(member.peer_id.chars().take(16).collect()),
    ]
}

pub(crate) async fn revoke(context: &Context, args: RevokeArgs) -> Result<(), Failure> {
    let request = RevokeRequest { network: args.network.network, who: args.who, reason: args.reason };
    let revoked = context.client()?.revoke(&request).await?;
    context.output.done(&revoked, |_| {
        let (name, network) = (printable(&revoked.name), printable(&revoked.network));
        if !revoked.in_force {
            let lacks = super::lock::lacks(&revoked.id, revoked.have, revoked.need);
            return format!("{name} is still in {network}: it is an admin, and its revocation has {lacks}");
        }
        let mut text = format!(
            "{name} is out of {network}: cut off here and at {} of {} online; the others refuse it when they next hear \
             from the network",
            revoked.pushed_to,
            counted(revoked.online, "member")
        );
        if revoked.was_admin {
            text.push_str(
                "\nit was an admin: what it signed and nobody here knew of is void; `pqvpn lock log` shows what was signed",
            );
        }
        text
    });
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `invite`: make, show and cancel invites.

mod qr;

use pqvpn_api::model::{CancelRequest, Invite, InviteRequest, NetRequest};

use crate::{
    cli::{InviteArgs, InviteVerb, NewInviteArgs},
    context::Context,
    failure::Failure,
    output::{Tone, age, date, now_ms, printable, table},
};

pub(crate) async fn run(context: &Context, args: InviteArgs) -> Result<(), Failure> {
    match args.verb {
        None => create(context, args.new).await,
        Some(InviteVerb::List(network)) => list(context, NetRequest { network: network.network }).await,
        Some(InviteVerb::Cancel { serial, network }) => {
            let request = CancelRequest { network: network.network, serial };
            let act = context.client()?.invite_cancel(&request).await?;
            super::lock::tell(&context.output, &act);
            Ok(())
        }
    }
}

async fn create(context: &Context, args: NewInviteArgs) -> Result<(), Failure> {
    let request = InviteRequest {
        network: args.network.network,
        expires_s: Some(args.expires.as_secs()),
        uses: Some(args.uses),
        tags: args.tags,
        ephemeral_s: args.ephemeral.map(|span| span.as_secs()),
        member_expires_s: args.member_expires.map(|span| span.as_secs()),
        preapproved: args.pre_approved,
        level_cap: None,
    };
    let made = context.client()?.invite(&request).await?;
    let code = printable(made.invite.code.as_deref().unwrap_or_default());
    let qr = if args.qr && !context.output.json { qr::picture(&code)? } else { String::new() };
    context.output.result(&made, |output| {
        if output.is_quiet() {
            return format!("{qr}{code}");
        }
        let invite = &made.invite;
        let name = printable(&invite.network);
        let (uses, until) = (uses(invite.max_uses), date(invite.not_after_ms));
        format!(
            "{qr}{code}\n\nOn the other machine: pqvpn join <code>\n\
             {uses} into {name}, until {until}; who has the code can come in: hand it over in private\n\
             `pqvpn invite cancel {}` makes it useless",
            invite.serial.chars().take(8).collect::<String>()
        )
    });
    Ok(())
}

fn uses(count: u32) -> String {
    if count == 1 { "one may come".to_owned() } else { format!("{count} may come") }
}

async fn list(context: &Context, request: NetRequest) -> Result<(), Failure> {
    let invites = context.client()?.invites(&request).await?;
    context.output.result(&invites, |output| {
        if invites.invites.is_empty() {
            return "no invites; `pqvpn invite` makes one".into();
        }
        let columns = ["SERIAL", "NETWORK", "STATE", "USED", "EXPIRES", "TAGS", "KIND"];
        let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
        rows.extend(invites.invites.iter().map(row));
        table(output, &rows)
    });
    Ok(())
}

fn row(invite: &Invite) -> Vec<(Tone, String)> {
    let plain = |text: String| (Tone::Plain, text);
    let left = invite.not_after_ms.saturating_sub(now_ms()) / 1000;
    let tone = if invite.state == "open" { Tone::Good } else { Tone::Dim };
    let kinds = [(invite.preapproved, "pre-approved"), (invite.ephemeral_s.is_some(), "ephemeral")];
    let kinds: Vec<&str> = kinds.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    vec![
        plain(invite.serial.chars().take(16).collect()),
        plain(printable(&invite.network)),
        (tone, printable(&invite.state)),
        plain(format!("{}/{}", invite.uses, invite.max_uses)),
        plain(if left == 0 { "-".to_owned() } else { format!("in {}", age(left)) }),
        plain(dash(&printable(&invite.tags.join(",")))),
        plain(dash(&kinds.join(","))),
    ]
}

/// A dash for nothing.
pub(super) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

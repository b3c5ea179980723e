// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dns`: names of members, and how this host comes to know them.

use std::path::PathBuf;

use pqvpn_api::{
    SCHEMA,
    model::{Dns, DnsName},
};
use pqvpn_node::config::Config;
use serde_json::json;

use crate::{
    cli::DnsVerb,
    context::Context,
    failure::Failure,
    output::{Output, Tone, printable, table},
};

pub(crate) async fn run(context: &Context, verb: &DnsVerb) -> Result<(), Failure> {
    let dns = context.client()?.dns().await?;
    match verb {
        DnsVerb::Status => {
            let next = set_already(context, &dns.mode).await;
            let mut json = serde_json::to_value(&dns).unwrap_or_default();
            if let (Some(object), Some((mode, _))) = (json.as_object_mut(), &next) {
                object.insert("mode_next".to_owned(), mode.as_str().into());
            }
            context.output.result(&json, |output| render(output, &dns, next.as_ref()));
        }
        DnsVerb::Query { name } => {
            let found = find(&dns, name)?;
            let json = json!({"schema": SCHEMA, "name": found.name, "addresses": found.addresses});
            context
                .output
                .result(&json, |_| found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(())
}

/// A name as people write it: with or without the zone, in any case.
fn find<'a>(dns: &'a Dns, name: &str) -> Result<&'a DnsName, Failure> {
    let wanted = name.trim_end_matches('.').to_ascii_lowercase();
    let in_zone = wanted.ends_with(&format!(".{}", dns.zone));
    let whole = if in_zone { wanted } else { format!("{wanted}.{}", dns.zone) };
    dns.names.iter().find(|known| known.name == whole).ok_or_else(|| {
        let why = format!("no member has the name {whole}");
        Failure::failed("no-name", "no address was found", why, "`pqvpn dns status` shows the names there are")
    })
}

/// The mode that holds from the next start, and the file that says so, where it is another than the one in force.
async fn set_already(context: &Context, mode: &str) -> Option<(String, PathBuf)> {
    let file = context.client().ok()?.started().await.ok()?.config?;
    // Who may ask the daemon may not be who may read its file.
    let next = Config::load(&file).ok()?.dns.mode.name();
    (next != mode).then(|| (next.to_owned(), file))
}

fn render(output: &Output, dns: &Dns, next: Option<&(String, PathBuf)>) -> String {
    let host = match (dns.host.as_str(), &dns.at) {
        ("systemd-resolved", Some(at)) => (Tone::Good, format!("systemd-resolved asks here for .{} ({at})", dns.zone)),
        ("resolv-conf", Some(at)) => (Tone::Good, format!("{at} names this resolver")),
        ("untouched", _) => {
            // Who has chosen needs no advice: another mode is set, or `resolv-conf` tried and in `trouble`.
            let advised = dns.mode != "resolv-conf" && next.is_none();
            let way = "; `pqvpn set dns.mode resolv-conf` puts a line into /etc/resolv.conf";
            (Tone::Warn, format!("nothing on this host asks here{}", if advised { way } else { "" }))
        }
        _ => (Tone::Dim, format!("off ({})", dns.mode)),
    };
    let mut text = format!("names end in .{}: {}\n", dns.zone, output.tone(host.0, &printable(&host.1)));
    if let Some((mode, file)) = next {
        let line = format!("# {} says dns.mode {mode:?}: it holds when the daemon is started again", file.display());
        text.push_str(&output.tone(Tone::Warn, &printable(&line)));
        text.push('\n');
    }
    for server in &dns.servers {
        let state = server.error.as_deref().map_or_else(|| "answers".to_owned(), printable);
        text.push_str(&format!("port 53 at {}: {state}\n", server.address));
    }
    let rows: Vec<Vec<(Tone, String)>> = dns.names.iter().map(row).collect();
    text.push_str(&table(output, &rows));
    for name in &dns.ambiguous {
        let name = printable(name);
        text.push_str(&format!("# several networks are called {name}: their members are under {name}-<id> only\n"));
    }
    if let Some(trouble) = &dns.trouble {
        text.push_str(&output.tone(Tone::Warn, &format!("# {}", printable(trouble))));
        text.push('\n');
    }
    text
}

fn row(name: &DnsName) -> Vec<(Tone, String)> {
    let addresses: Vec<String> = name.addresses.iter().map(ToString::to_string).collect();
    vec![(Tone::Plain, printable(&name.name)), (Tone::Plain, addresses.join("  "))]
}

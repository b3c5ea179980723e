// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dns`: names of members, and how this host comes to know them.

use pqvpn_api::{
    SCHEMA,
    model::{Dns, DnsName},
};
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
        DnsVerb::Status => context.output.result(&dns, |output| render(output, &dns)),
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

fn render(output: &Output, dns: &Dns) -> String {
    let host = match (dns.host.as_str(), &dns.at) {
        ("systemd-resolved", Some(at)) => (Tone::Good, format!("systemd-resolved asks here for .{} ({at})", dns.zone)),
        ("resolv-conf", Some(at)) => (Tone::Good, format!("{at} names this resolver")),
        ("untouched", _) => (
            Tone::Warn,
            "nothing on this host asks here; `pqvpn set dns.mode resolv-conf` puts a line into /etc/resolv.conf".into(),
        ),
        _ => (Tone::Dim, format!("off ({})", dns.mode)),
    };
    let mut text = format!("names end in .{}: {}\n", dns.zone, output.tone(host.0, &printable(&host.1)));
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

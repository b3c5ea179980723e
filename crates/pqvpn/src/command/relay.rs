// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relay`: forward (sealed) packets for members that cannot reach each other, and see for whom.

use pqvpn_api::model::Relaying;

use crate::{
    cli::RelayVerb,
    context::Context,
    failure::Failure,
    output::{Output, Tone, bytes, printable, table},
};

pub(crate) async fn run(context: &Context, verb: &RelayVerb) -> Result<(), Failure> {
    let client = context.client()?;
    match verb {
        RelayVerb::On { limit } => {
            if let Some(limit) = limit {
                client.set("relay.limit", if limit == "none" { "" } else { limit }).await?;
            }
            client.set("relay.enabled", "true").await?;
        }
        RelayVerb::Off => drop(client.set("relay.enabled", "false").await?),
        RelayVerb::Status => {}
    }
    let relaying = client.relaying().await?;
    context.output.result(&relaying, |output| render(output, &relaying));
    Ok(())
}

fn render(output: &Output, relaying: &Relaying) -> String {
    let mut text = if relaying.enabled {
        let limit = rate(relaying.limit_bits);
        format!("{}: traffic of members is forwarded, at most {limit}\n", output.tone(Tone::Good, "on"))
    } else {
        format!("{}: members are introduced to each other, no traffic is forwarded\n", output.tone(Tone::Dim, "off"))
    };
    if !relaying.listen.is_empty() {
        text.push_str(&format!("listens at {} for members without UDP\n", relaying.listen.join(", ")));
    }
    let plain = |text: String| (Tone::Plain, text);
    let rows: Vec<Vec<(Tone, String)>> = relaying
        .pairs
        .iter()
        .map(|pair| {
            let [one, other] = &pair.names;
            vec![
                plain(printable(&pair.network)),
                plain(format!("{} - {}", printable(one), printable(other))),
                plain(bytes(pair.bytes)),
                plain(format!("{} packets", pair.packets)),
                plain(format!("{} dropped", pair.dropped)),
            ]
        })
        .collect();
    text.push_str(&table(output, &rows));
    if relaying.refused > 0 {
        text.push_str(&format!("# refused, too many at once: {}\n", relaying.refused));
    }
    text
}

fn rate(bits: u64) -> String {
    match bits {
        100_000_000_000.. => "what comes".to_owned(),
        1_000_000.. => format!("{} Mbit/s", bits / 1_000_000),
        _ => format!("{} kbit/s", bits / 1_000),
    }
}

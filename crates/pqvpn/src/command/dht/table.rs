// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht table`: the routing table, bucket by bucket.

use pqvpn_api::model::{DhtBucket, DhtTable};

use super::short;
use crate::{
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, counted, table},
};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let table = context.client()?.dht_table().await?;
    context.output.result(&table, |output| render(output, &table));
    Ok(())
}

fn render(output: &Output, shown: &DhtTable) -> String {
    let own = shown.own.as_deref().unwrap_or("not admitted yet: buckets are counted from a point of no consequence");
    let contacts: usize = shown.buckets.iter().map(|bucket| bucket.contacts.len()).sum();
    let head = format!("own {own}\n{} in {}\n", counted(contacts, "contact"), counted(shown.buckets.len(), "bucket"));
    if shown.buckets.is_empty() {
        return head + "the table is empty; `pqvpn bootstrap list` shows where this node starts from\n";
    }
    let columns = ["BITS", "WAITING", "NODE", "PEER", "ADDRESS", "SEEN"];
    let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
    rows.extend(shown.buckets.iter().flat_map(bucket));
    head + &table(output, &rows)
}

/// A row per contact; the first one names the bucket.
fn bucket(bucket: &DhtBucket) -> Vec<Vec<(Tone, String)>> {
    let rows = bucket.contacts.iter().enumerate().map(|(index, contact)| {
        let of_bucket = |text: String| if index == 0 { text } else { String::new() };
        let address = contact.addresses.first().map_or_else(|| "-".to_owned(), ToString::to_string);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an age is neither negative nor huge"
        )]
        let seen = contact.seen_s.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", age(seconds as u64)));
        let cells = [
            of_bucket(bucket.prefix_bits.to_string()),
            of_bucket(bucket.replacements.to_string()),
            short(&contact.node_id),
            contact.peer_id.clone(),
            address,
            seen,
        ];
        cells.map(|cell| (Tone::Plain, cell)).to_vec()
    });
    rows.collect()
}

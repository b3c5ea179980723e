// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bootstrap list`: where discovery starts, and what became of each door.

use pqvpn_api::model::{Bootstrap, BootstrapList, Door, DoorState};

use crate::{
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, printable, table},
};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let known = context.client()?.bootstrap().await?;
    context.output.result(&known, |output| render(output, &known));
    Ok(())
}

fn render(output: &Output, known: &Bootstrap) -> String {
    let mut text = String::new();
    if !known.enabled {
        text.push_str("the DHT is off (dht.enabled = false): none of these is tried\n");
    } else if known.doors.is_empty() {
        text.push_str(
            "no bootstrap nodes: this node is the first one, or others will find it; `pqvpn bootstrap add` names one\n",
        );
    } else {
        let columns = ["PEER", "WHERE", "FROM", "STATE"];
        let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
        rows.extend(known.doors.iter().map(row));
        text.push_str(&table(output, &rows));
    }
    for list in &known.lists {
        text.push_str(&about(output, list));
    }
    text
}

fn row(door: &Door) -> Vec<(Tone, String)> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an age is neither negative nor huge")]
    let ago = door.age_s.map(|seconds| format!(" {} ago", age(seconds as u64))).unwrap_or_default();
    let why = door.why.as_deref().map(|why| format!(": {}", printable(why))).unwrap_or_default();
    let state = match door.state {
        DoorState::Untried => (Tone::Dim, "not tried yet".to_owned()),
        DoorState::Working => (Tone::Good, format!("answered{ago}")),
        DoorState::Failed => (Tone::Warn, format!("failed{ago}{why}")),
    };
    let plain = |text: &str| (Tone::Plain, printable(text));
    vec![plain(&door.peer_id), plain(&door.endpoints.join(" ")), plain(&door.sources.join(",")), state]
}

fn about(output: &Output, list: &BootstrapList) -> String {
    let path = list.path.display();
    let signed = list.signer.as_deref().map(|signer| format!(", {} entries signed by {signer}", list.entries));
    let line = format!("# list {path}{}", signed.unwrap_or_default());
    match &list.remark {
        None => line + "\n",
        Some(remark) => output.tone(Tone::Warn, &format!("{line}: {}", printable(remark))) + "\n",
    }
}

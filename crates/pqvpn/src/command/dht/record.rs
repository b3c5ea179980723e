// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dht get` and `dht put`: records, found and published.

use std::{
    io::{self, Read},
    time::{SystemTime, UNIX_EPOCH},
};

use pqvpn_api::{
    error::Code,
    model::{DhtContent, DhtGetRequest, DhtPutRequest, DhtRecord},
};
use pqvpn_wire::dht::record::MAX_VALUE_LEN;

use super::{member, nobody_answered, nodes, summary};
use crate::{
    cli::{GetArgs, PutArgs},
    context::Context,
    failure::Failure,
    output::{age, printable},
};

/// Most bytes read from standard input: more than any value may have.
const MAX_INPUT: u64 = 4096;

pub(super) async fn get(context: &Context, args: &GetArgs) -> Result<(), Failure> {
    let (client, mut request) = (context.client()?, request(args)?);
    let got = match (client.dht_get(&request).await, request.owner.clone()) {
        (Err(error), Some(owner)) if error.code == Code::UnknownPeer => {
            request.owner = Some(member(&client, &owner, error).await?);
            client.dht_get(&request).await?
        }
        (answer, _) => answer?,
    };
    let Some(record) = &got.record else {
        let asked = got.lookup.answered;
        let mut failure = if asked == 0 {
            nobody_answered("no record was found", &got.lookup, &got)
        } else {
            let why = format!("none of the answers, {asked} in all, held one");
            let hint = "check the name; a record is gone a day after its owner was last there";
            let failure = Failure::failed("no-record", "no record was found", why, hint);
            // Scripts get the whole answer: that nobody has a record is one.
            Failure { json: serde_json::to_value(&got).ok().map(Box::new), ..failure }
        };
        if let Some(successor) = &got.rotated_to {
            failure.why = vec![format!("its owner rotated its key to {successor}; {}", failure.why.join("; "))];
            failure.hint = format!("`pqvpn dht get {successor}`");
        }
        return Err(failure);
    };
    context.output.result(&got, |output| {
        let first = got.first_ms.map(|first| format!(", the first after {first:.1} ms")).unwrap_or_default();
        let sources = nodes(got.sources as usize);
        let rotated = got.rotated_to.as_ref().map(|to| format!("rotated to {to}\n")).unwrap_or_default();
        format!("{rotated}{}\nsources    {sources}{first}\n{}", about(record), summary(output, &got.lookup))
    });
    Ok(())
}

pub(super) async fn put(context: &Context, args: &PutArgs) -> Result<(), Failure> {
    let mut request = DhtPutRequest { name: args.name.clone(), ..DhtPutRequest::default() };
    if args.value == "-" {
        let value = from_stdin()?;
        check(&value)?;
        request.value_hex = Some(hex(&value));
    } else {
        check(args.value.as_bytes())?;
        request.value = Some(args.value.clone());
    }
    let put = context.client()?.dht_put(&request).await?;
    let hint = "it will be offered again while the daemon runs; look at `pqvpn dht status`";
    if put.lookup.answered == 0 {
        let failure = nobody_answered("nobody keeps it yet", &put.lookup, &put);
        return Err(Failure { hint: hint.to_owned(), ..failure });
    }
    if put.stored == 0 {
        let why = format!("asked {}, none took it: busy or silent", nodes(put.lookup.asked as usize));
        let failure = Failure::failed("not-stored", "nobody keeps it yet", why, hint);
        // Scripts get the whole answer: the record is signed, and offered again.
        return Err(Failure { json: serde_json::to_value(&put).ok().map(Box::new), ..failure });
    }
    context.output.done(&put, |output| {
        let stored = nodes(put.stored);
        format!("{}\nkept by    {stored}\n{}", about(&put.record), summary(output, &put.lookup))
    });
    Ok(())
}

/// Whether a value can be published; of a long one it is known only that it is too long.
fn check(value: &[u8]) -> Result<(), Failure> {
    if value.len() <= MAX_VALUE_LEN {
        return Ok(());
    }
    let why = format!("the value is longer than {MAX_VALUE_LEN} bytes");
    Err(Failure::usage("bad-request", "nothing was published", why, "keep it elsewhere and publish where"))
}

fn request(args: &GetArgs) -> Result<DhtGetRequest, Failure> {
    let mut request = DhtGetRequest::default();
    if args.key {
        request.key = Some(args.what.clone());
        return Ok(request);
    }
    match args.what.split_once('/') {
        None => request.owner = Some(args.what.clone()),
        Some((owner, name)) => {
            request.owner = (!owner.is_empty()).then(|| owner.to_owned());
            request.name = Some(name.to_owned());
        }
    }
    if request.owner.as_deref() == Some("") || request.name.as_deref() == Some("") {
        return Err(Failure::usage(
            "usage",
            "no record was looked for",
            "a name is missing",
            "`pqvpn dht get PEER` or `pqvpn dht get PEER/NAME`",
        ));
    }
    Ok(request)
}

fn about(record: &DhtRecord) -> String {
    let mut lines = match &record.content {
        DhtContent::Peer { addresses, capabilities } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let mut lines = vec![format!("addresses  {}", addresses.join(" "))];
            if *capabilities != 0 {
                lines.push(format!("offers     {capabilities:#x}"));
            }
            lines
        }
        DhtContent::Value { name, value, value_hex } => {
            let value = value.as_deref().map_or_else(|| format!("0x{value_hex}"), printable);
            vec![format!("value      {value}"), format!("name       {}", printable(name))]
        }
        DhtContent::Other => vec!["content    of a kind this version cannot read".to_owned()],
    };
    let left = record.not_after_ms.saturating_sub(now_ms()) / 1000;
    lines.push(format!("owner      {}", record.owner));
    lines.push(format!("key        {}", record.key));
    lines.push(format!("version    {}, valid for another {}", record.seq, age(left)));
    lines.join("\n")
}

fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    io::stdin().take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::failed("file", "nothing was published", error, "give the value on the command line")
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: &str, key: bool) -> Option<(Option<String>, Option<String>, Option<String>)> {
        let request = request(&GetArgs { what: what.into(), key }).ok()?;
        Some((request.owner, request.name, request.key))
    }

    #[test]
    fn a_peer_a_value_and_a_key_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(asked("nas", false), Some((some("nas"), None, None)));
        assert_eq!(asked("nas/motd", false), Some((some("nas"), some("motd"), None)));
        assert_eq!(asked("nas/a/b", false), Some((some("nas"), some("a/b"), None)));
        assert_eq!(asked("/motd", false), Some((None, some("motd"), None)));
        assert_eq!(asked("abab", true), Some((None, None, some("abab"))));
        assert_eq!(asked("", false), None);
        assert_eq!(asked("nas/", false), None);
    }
}

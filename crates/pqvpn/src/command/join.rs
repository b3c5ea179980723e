// SPDX-License-Identifier: MIT OR Apache-2.0
//! `join`: into a network, with the code of an invite.

use std::path::Path;

use pqvpn_api::model::{JoinRequest, Joined};
use pqvpn_wire::network::{Code, CodeError};
use zeroize::Zeroizing;

use super::{block_on, net, up};
use crate::{
    cli::JoinArgs,
    context::Context,
    failure::Failure,
    output::{Output, Tone, counted, printable},
    passphrase,
};

const WHAT: &str = "no network was joined";

pub(crate) fn run(context: &Context, args: &JoinArgs) -> Result<(), Failure> {
    let from_stdin = args.code.len() == 1 && args.code.iter().all(|word| word == "-");
    if from_stdin && args.passphrase.passphrase_file.as_deref() == Some(Path::new("-")) {
        let why = "code and passphrase cannot both come from standard input";
        return Err(Failure::usage("usage", WHAT, why, "give a file to `--passphrase-file`"));
    }
    let code =
        if from_stdin { passphrase::secret_from_stdin(WHAT, "the code")? } else { Zeroizing::new(args.code.concat()) };
    // Found out here: a daemon need not be started for a slip of the finger.
    check(&code)?;
    args.name.iter().try_for_each(|name| net::check_name(WHAT, name))?;
    let started = up::ensure(context, &args.passphrase)?;
    let request =
        JoinRequest { code: code.to_string(), name: args.name.clone(), timeout_ms: u64::from(args.timeout) * 1000 };
    let joined = block_on(async { Ok(context.client()?.join(&request).await?) })
        .map_err(|failure| keeps_its_name(context, failure, &code, args.name.as_deref()))
        .inspect_err(|_| up::remark_started(context, started))?;
    context.output.done(&up::with_started(&joined, started), |output| {
        up::started_line(started)
            + &if joined.waiting_for_approval { waiting(&joined) } else { inside(output, &joined) }
    });
    // Who was a member, and has only lost what it knew of that, is what it was.
    if args.name.as_ref().is_some_and(|name| *name != joined.name) {
        let (name, network) = (printable(&joined.name), printable(&joined.network));
        let way = format!("`pqvpn net leave {network}`, then join with a new code and `--name`");
        context
            .output
            .remark(&format!("this node stays {name}: {network} has it under that name; to change it: {way}"));
    }
    Ok(())
}

/// To a member a name was given for nothing, but for the one it has.
fn keeps_its_name(context: &Context, failure: Failure, code: &str, name: Option<&str>) -> Failure {
    let (Some(name), "already-member", Ok(code)) = (name, failure.code.as_str(), code.parse::<Code>()) else {
        return failure;
    };
    let networks = block_on(async { Ok(context.client()?.networks().await?.networks) }).unwrap_or_default();
    let id = code.network.to_string();
    let network = networks.iter().find(|network| network.id == id);
    if network.is_some_and(|network| network.own_name == name) {
        return failure;
    }
    let names: Vec<(&str, &str)> = networks.iter().map(|one| (one.id.as_str(), one.name.as_str())).collect();
    let network = printable(to_leave(&names, &id));
    let way = format!("to change the name: `pqvpn net leave {network}`, then join with a new code and `--name`");
    Failure { hint: format!("{}; {way}", failure.hint), ..failure }
}

/// What a network is called by a command, given the ids and names of all: its id where another has its name.
fn to_leave<'a>(networks: &[(&str, &'a str)], id: &'a str) -> &'a str {
    let name = networks.iter().find(|(one, _)| *one == id).map(|(_, name)| *name);
    name.filter(|name| networks.iter().filter(|(_, one)| one == name).count() == 1).unwrap_or(id)
}

/// What can be known of a code without asking anybody.
fn check(code: &str) -> Result<(), Failure> {
    let Err(error) = code.parse::<Code>() else { return Ok(()) };
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong with a code, only another one helps")]
    let hint = match &error {
        CodeError::Checksum { suggestion: Some(meant) } => format!("did you mean {meant}"),
        CodeError::Checksum { suggestion: None } | CodeError::Truncated | CodeError::NotACode => {
            "copy the whole code once more; `pqvpn join -` reads it from standard input".to_owned()
        }
        CodeError::Version(_) => "install a newer pqvpn, then join again".to_owned(),
        _ => "ask for a new code: `pqvpn invite`, on the machine of an admin".to_owned(),
    };
    Err(Failure::usage("bad-code", WHAT, error, hint))
}

fn inside(output: &Output, joined: &Joined) -> String {
    let addresses: Vec<String> = joined.addresses.iter().map(ToString::to_string).collect();
    let network = output.tone(Tone::Good, &printable(&joined.network));
    format!(
        "joined {network} as {}  {}\n{} with this one: `pqvpn members` lists them\n\
         Say hello: pqvpn ping <name>",
        printable(&joined.name),
        addresses.join("  "),
        counted(joined.members, "member"),
    )
}

fn waiting(joined: &Joined) -> String {
    let (network, name) = (printable(&joined.network), printable(&joined.name));
    format!(
        "asked to join {network} as {name}; an admin has to let this node in\n\
         On the machine of an admin: pqvpn approve {name}\n\
         This node goes on asking by itself; `pqvpn net list` shows when it is in"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_to_leave_is_named_so_that_it_is_the_only_one() {
        let networks = [("07", "home"), ("08", "work"), ("09", "work")];
        let called = ["07", "08", "0a"].map(|id| to_leave(&networks, id));
        assert_eq!(called, ["home", "08", "0a"]);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lock`: who may sign for a network, what was signed, and its end.

use std::io::{self, BufRead, IsTerminal, Write};

use pqvpn_api::model::{
    Act, ContestRequest, DisableRequest, Lock, LockLogRequest, NetRequest, Proposal, SignRequest, Statement, WhoRequest,
};

use crate::{
    cli::LockVerb,
    context::Context,
    failure::Failure,
    output::{Output, Tone, bytes, counted, date, printable, table},
    passphrase,
};

pub(crate) async fn run(context: &Context, verb: LockVerb) -> Result<(), Failure> {
    let client = context.client()?;
    let act = match verb {
        LockVerb::Status(network) => {
            let lock = client.lock_status(&NetRequest { network: network.network }).await?;
            context.output.result(&lock, |output| status(output, &lock));
            return Ok(());
        }
        LockVerb::Log { limit, network } => {
            let request = LockLogRequest { network: network.network, limit: limit as usize };
            let log = client.lock_log(&request).await?;
            context.output.result(&log, |output| statements(output, &log.statements));
            return Ok(());
        }
        LockVerb::Sign { statement, network } => {
            client.lock_sign(&SignRequest { network: network.network, statement }).await?
        }
        LockVerb::Contest { statements, remove, network } => {
            client.lock_contest(&ContestRequest { network: network.network, statements, who: remove }).await?
        }
        LockVerb::Add(args) => client.lock_add(&WhoRequest { network: args.network.network, who: args.who }).await?,
        LockVerb::Remove(args) => {
            client.lock_remove(&WhoRequest { network: args.network.network, who: args.who }).await?
        }
        LockVerb::Disable { secret, accept_risk, network } => {
            let from_stdin = secret == "-";
            if !accept_risk {
                confirm(from_stdin)?;
            }
            let secret = if from_stdin {
                passphrase::secret_from_stdin("the network was not disabled", "the secret")?.to_string()
            } else {
                secret
            };
            client.lock_disable(&DisableRequest { network: network.network, secret }).await?
        }
    };
    tell(&context.output, &act);
    Ok(())
}

/// Says what became of a change, and who has to sign yet.
pub(super) fn tell(output: &Output, act: &Act) {
    output.done(act, |_| {
        let (what, network) = (printable(&act.what), printable(&act.network));
        if act.in_force {
            let have = if act.pushed_to == 1 { "has" } else { "have" };
            return format!("{network}: {what}; {} {have} it already", counted(act.pushed_to, "member"));
        }
        if act.have >= act.need {
            return format!(
                "{network}: {what} is signed by all who must, and is not in force: what others signed counts more\n\
                 `pqvpn lock log` shows it; docs/networks.md 2 says what counts"
            );
        }
        format!("{network}: {what} has {}", lacks(&act.id, act.have, act.need))
    });
}

/// What an act lacks, who can give it, and what is left where nobody can.
pub(super) fn lacks(id: &str, have: usize, need: usize) -> String {
    let id: String = id.chars().take(12).collect();
    format!(
        "{have} of {need} signatures and is not in force yet\n\
         On the machine of another admin: pqvpn lock sign {id}\n\
         If no other admin is left, it never will be: members go on talking, and this node goes on letting members in and \
         throwing them out; only a new network has new admins (pqvpn net create)"
    )
}

fn status(output: &Output, lock: &Lock) -> String {
    let (state, tone) = match (lock.disabled, lock.admin) {
        (true, _) => ("ended for everybody", Tone::Bad),
        (false, true) => ("this node may sign", Tone::Good),
        (false, false) => ("this node may not sign", Tone::Plain),
    };
    let must = match (lock.admins.len(), lock.quorum) {
        (1, _) => "the only admin:".to_owned(),
        (_, quorum) => format!("admins, of whom {quorum} must sign what concerns admins:"),
    };
    let mut text = format!("{}: {}\n{must}\n", printable(&lock.network), output.tone(tone, state));
    for admin in &lock.admins {
        text.push_str(&format!("  {}  {}\n", printable(&admin.name), admin.peer_id));
    }
    let age = lock.head_age_s.map_or_else(|| "nobody else heard yet".to_owned(), |age| format!("heard {age:.0} s ago"));
    text.push_str(&format!(
        "{} in {}, head {} ({age})\n",
        counted(lock.statements, "statement"),
        bytes(lock.disk_bytes),
        lock.head
    ));
    let of_kind = |contests| lock.proposals.iter().filter(move |proposal| proposal.contests == contests);
    let head = "waiting for signatures (`pqvpn lock sign ID`):\n";
    text.push_str(&proposals(head, of_kind(false)));
    let head = "against what is in force, beside it (`pqvpn lock sign ID`, if you know that it is right):\n";
    text.push_str(&proposals(head, of_kind(true)));
    text
}

fn proposals<'p>(head: &str, proposals: impl Iterator<Item = &'p Proposal>) -> String {
    let lines: String = proposals
        .map(|proposal| {
            let id: String = proposal.id.chars().take(12).collect();
            let signed = if proposal.signers.is_empty() { String::new() } else { " by ".to_owned() };
            let (signers, what) = (printable(&proposal.signers.join(", ")), printable(&proposal.what));
            format!("  {id}  {} of {}{signed}{signers}  {what}\n", proposal.have, proposal.need)
        })
        .collect();
    if lines.is_empty() { lines } else { head.to_owned() + &lines }
}

fn statements(output: &Output, statements: &[Statement]) -> String {
    let columns = ["STATEMENT", "SEQ", "WHEN", "ACT", "SIGNED BY", "WHAT"];
    let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
    rows.extend(statements.iter().map(|statement| {
        let cells = [
            statement.id.chars().take(12).collect(),
            statement.seq.to_string(),
            date(statement.at_ms),
            printable(&statement.act),
            printable(&statement.signers.join(",")),
            printable(&statement.what),
        ];
        cells.map(|cell| (Tone::Plain, cell)).to_vec()
    }));
    table(output, &rows)
}

/// Asks on the terminal whether the end of the network is really meant.
fn confirm(stdin_is_taken: bool) -> Result<(), Failure> {
    let refused = |why: &str| {
        let hint = "`--accept-risk` says that it is meant";
        Failure::refused("not-confirmed", "the network was not disabled", why, hint)
    };
    if stdin_is_taken || !io::stdin().is_terminal() {
        return Err(refused("nobody confirmed that it shall end for everybody and for good"));
    }
    let _gone = write!(io::stderr(), "This ends the network for everybody, for good. Type `yes` to go on: ");
    let mut line = String::new();
    let _read = io::stdin().lock().read_line(&mut line);
    if line.trim() == "yes" { Ok(()) } else { Err(refused("it was not confirmed")) }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lock`: who may sign for a network, what was signed, and its end.

use std::io::{self, BufRead, IsTerminal, Write};

use pqvpn_api::model::{Act, DisableRequest, Lock, LockLogRequest, NetRequest, SignRequest, Statement, WhoRequest};

use crate::{
    cli::LockVerb,
    context::Context,
    failure::Failure,
    output::{Output, Tone, bytes, date, printable, table},
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
            return format!("{network}: {what}; {} members have it already", act.pushed_to);
        }
        let id: String = act.id.chars().take(12).collect();
        format!(
            "{network}: {what} has {} of {} signatures and is not in force yet\n\
             On the machine of another admin: pqvpn lock sign {id}",
            act.have, act.need
        )
    });
}

fn status(output: &Output, lock: &Lock) -> String {
    let (state, tone) = match (lock.disabled, lock.admin) {
        (true, _) => ("ended for everybody", Tone::Bad),
        (false, true) => ("this node may sign", Tone::Good),
        (false, false) => ("this node may not sign", Tone::Plain),
    };
    let mut text = format!(
        "{}: {}\nadmins, of whom {} must sign what concerns admins:\n",
        printable(&lock.network),
        output.tone(tone, state),
        lock.quorum
    );
    for admin in &lock.admins {
        text.push_str(&format!("  {}  {}\n", printable(&admin.name), admin.peer_id));
    }
    let age = lock.head_age_s.map_or_else(|| "nobody else heard yet".to_owned(), |age| format!("heard {age:.0} s ago"));
    text.push_str(&format!(
        "{} statements in {}, head {} ({age})\n",
        lock.statements,
        bytes(lock.disk_bytes),
        lock.head
    ));
    if !lock.proposals.is_empty() {
        text.push_str("waiting for signatures (`pqvpn lock sign ID`):\n");
        for proposal in &lock.proposals {
            let id: String = proposal.id.chars().take(12).collect();
            text.push_str(&format!("  {id}  {} of {}  {}\n", proposal.have, proposal.need, printable(&proposal.what)));
        }
    }
    text
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

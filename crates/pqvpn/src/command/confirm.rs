// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asks on the terminal before something that cannot be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::{failure::Failure, output::Output};

/// Asks; `what` is what does not happen without a yes, `hint` the option that says so beforehand.
///
/// # Errors
/// It was not confirmed, or there is nobody to ask: scripts have to say it.
pub(super) fn ask(output: &Output, question: &str, what: &str, hint: &str) -> Result<(), Failure> {
    if output.json || !io::stdin().is_terminal() {
        let why = "standard input is no terminal, or JSON was asked for: nobody can be asked whether it is meant";
        return Err(Failure::usage("not-confirmed", what, why, hint));
    }
    let _gone = write!(io::stderr(), "{question} Type `yes` to go on: ");
    let mut line = String::new();
    let _read = io::stdin().lock().read_line(&mut line);
    let yes = ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str());
    if yes { Ok(()) } else { Err(Failure::refused("not-confirmed", what, "it was not confirmed", hint)) }
}

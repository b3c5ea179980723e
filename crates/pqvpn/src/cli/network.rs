// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs of networks: `net`, `invite`, `join`, `approve`, `deny`, `revoke`, `members`, `lock`, `dns`.

use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

use super::PassphraseArgs;

/// Units of a span of time, in seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];
/// Longest span that can be asked for: ten years.
const LONGEST: u64 = 3650 * 86_400;

/// Which network is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NetworkArg {
    /// Name of the network, or the beginning of its id [default: the only one].
    #[arg(long, short = 'n', value_name = "NETWORK")]
    pub(crate) network: Option<String>,
}

/// Verbs of `net`.
#[derive(Debug, Subcommand)]
pub(crate) enum NetVerb {
    /// Make a network of your own; starts a daemon when none runs.
    Create(CreateArgs),
    /// Show the networks this node belongs to.
    List,
    /// Leave a network: this node forgets it, the others see it go.
    Leave {
        /// Name of the network, or the beginning of its id [default: the only one].
        network: Option<String>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Carry the traffic of a network again.
    Up {
        /// Name of the network, or the beginning of its id [default: the only one].
        network: Option<String>,
    },
    /// Carry no traffic of a network; this node stays a member.
    Down {
        /// Name of the network, or the beginning of its id [default: the only one].
        network: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What the network is to be called: lower-case letters, digits and `-`.
    pub(crate) name: String,
    /// What this node is called in it [default: the node's name].
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) member_name: Option<String>,
    /// IPv4 addresses of the members [default: a free /16 of 10.0.0.0/8].
    #[arg(long, value_name = "A.B.C.D/LEN")]
    pub(crate) pool: Option<Ipv4Net>,
    /// Whoever joins waits until an admin says `pqvpn approve`.
    #[arg(long)]
    pub(crate) approval: bool,
    /// How many admins must sign a change of the admins or of the settings.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) quorum: u8,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct InviteArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<InviteVerb>,
    #[command(flatten)]
    pub(crate) new: NewInviteArgs,
}

/// Verbs of `invite`.
#[derive(Debug, Subcommand)]
pub(crate) enum InviteVerb {
    /// Show the invites that can still be used.
    List(NetworkArg),
    /// Make an invite useless from now on.
    Cancel {
        /// Its serial number, or the beginning of it.
        serial: String,
        #[command(flatten)]
        network: NetworkArg,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewInviteArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArg,
    /// How long it can be used: a number with s, m, h, d or w.
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span, allow_hyphen_values = true)]
    pub(crate) expires: Duration,
    /// How many may join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096),
          allow_negative_numbers = true)]
    pub(crate) uses: u32,
    /// A tag the new members get; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Members who are silent for so long leave the network and free their name.
    #[arg(long, value_name = "SPAN", value_parser = span, allow_hyphen_values = true)]
    pub(crate) ephemeral: Option<Duration>,
    /// The membership ends after this.
    #[arg(long, value_name = "SPAN", value_parser = span, allow_hyphen_values = true)]
    pub(crate) member_expires: Option<Duration>,
    /// Nobody has to approve who joins with it.
    #[arg(long)]
    pub(crate) pre_approved: bool,
    /// Show the code as a QR code as well.
    #[arg(long)]
    pub(crate) qr: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The code of an invite; `-` reads it from standard input, where other users of this machine cannot see it.
    #[arg(required = true, num_args = 1.., value_name = "CODE|-")]
    pub(crate) code: Vec<String>,
    /// What this node is to be called in the network [default: the node's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long to wait for an admin who answers.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// Who: the name asked for, or the beginning of the PeerID [default: show who waits].
    pub(crate) who: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArg,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Who: name, PeerID or the beginning of it, or overlay address.
    pub(crate) who: String,
    /// Why, for the log of the network (at most 128 bytes).
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) network: NetworkArg,
}

/// Verbs of `lock`.
#[derive(Debug, Subcommand)]
pub(crate) enum LockVerb {
    /// Show who may sign, how many have to, and what waits for signatures.
    Status(NetworkArg),
    /// Sign what another admin has proposed.
    Sign {
        /// The statement, or the beginning of its id.
        statement: String,
        #[command(flatten)]
        network: NetworkArg,
    },
    /// Show the signed statements the network rests on, newest first.
    Log {
        /// How many at most.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
        limit: u32,
        #[command(flatten)]
        network: NetworkArg,
    },
    /// Answer a coup: sign, beside statements that took authority away, that who signed them may sign no more.
    ///
    /// What is signed rests neither on them nor on what stands on them, so it counts even where they took this node's say
    /// away. Where several admins must sign, the others see it in `lock status` and say `lock sign`.
    Contest {
        /// The statements, or the beginnings of their ids, as `lock log` shows them.
        #[arg(required = true, value_name = "STATEMENT")]
        statements: Vec<String>,
        /// Who may sign no more [default: who signed the statements].
        #[arg(long, value_name = "WHO")]
        remove: Option<String>,
        #[command(flatten)]
        network: NetworkArg,
    },
    /// Let a member sign as well.
    Add(AdminArgs),
    /// Let an admin sign no longer.
    Remove(AdminArgs),
    /// End the network for everybody, with the secret shown when it was made. There is no way back.
    Disable {
        /// The secret; `-` reads it from standard input, where other users of this machine cannot see it.
        #[arg(value_name = "SECRET|-")]
        secret: String,
        /// Do not ask.
        #[arg(long)]
        accept_risk: bool,
        #[command(flatten)]
        network: NetworkArg,
    },
}

/// Verbs of `relay`.
#[derive(Debug, Subcommand)]
pub(crate) enum RelayVerb {
    /// Forward traffic from now on, over restarts too.
    On {
        /// All of it together at most, like `50mbit` or `1gbit` a second; `none`: as much as comes.
        #[arg(long, value_name = "RATE")]
        limit: Option<String>,
    },
    /// Forward no traffic; members are still introduced to each other.
    Off,
    /// Show for whom and how much.
    Status,
}

/// Verbs of `dns`.
#[derive(Debug, Subcommand)]
pub(crate) enum DnsVerb {
    /// Show the names of members, and whether programs of this host find them.
    Status,
    /// Look a name up: `nas.home`, with or without `.pqvpn`.
    Query {
        /// The name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Who: name, or PeerID or the beginning of it.
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) network: NetworkArg,
}

/// A span of time, like `90s`, `30m`, `24h`, `7d` or `2w`: 1 s to ten years.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with s, m, h, d or w, like `30m`, `24h` or `7d`".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let seconds = number.checked_mul(*seconds).filter(|seconds| (1..=LONGEST).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "expected 1 second to 10 years".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn parse(line: &str) -> Result<Verb, String> {
        let words = std::iter::once("pqvpn").chain(line.split(' '));
        Cli::try_parse_from(words).map(|cli| cli.verb).map_err(|error| error.to_string())
    }

    #[test]
    fn spans_have_units_and_bounds() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "24", "h", "-1h", "1.5h", "1y", "24 h", "24H", "99999999999999999999s"] {
            assert!(span(text).unwrap_err().contains("like `30m`"), "{text}");
        }
        for text in ["0s", "522w", "18446744073709551615w"] {
            assert!(span(text).unwrap_err().contains("10 years"), "{text}");
        }
    }

    #[test]
    fn an_invite_is_made_unless_a_verb_follows() {
        let Ok(Verb::Invite(made)) = parse("invite --uses 3 --tag a --tag b --qr") else { panic!("a new invite") };
        assert!(made.verb.is_none() && made.new.qr);
        assert_eq!((made.new.uses, made.new.expires), (3, Duration::from_secs(86_400)));
        assert_eq!(made.new.tags, ["a", "b"]);
        let Ok(Verb::Invite(InviteArgs { verb: Some(InviteVerb::Cancel { serial, .. }), .. })) =
            parse("invite cancel 1a2b -n home")
        else {
            panic!("a cancelled invite")
        };
        assert_eq!(serial, "1a2b");
        assert!(parse("invite --uses 0").is_err() && parse("invite --expires soon").is_err());
        assert!(parse("invite --expires -1h").unwrap_err().contains("like `30m`"), "not an unknown option");
        assert!(parse("invite --uses -3").unwrap_err().contains("1..=4096"));
    }

    #[test]
    fn a_code_cut_by_blanks_is_still_one_code() {
        let Ok(Verb::Join(args)) = parse("join pqvpn1-abc def --name nas") else { panic!("a join") };
        assert_eq!((args.code.concat(), args.name.as_deref()), ("pqvpn1-abcdef".to_owned(), Some("nas")));
        assert!(parse("join").is_err());
        let Ok(Verb::Join(args)) = parse("join -") else { panic!("a join") };
        assert_eq!(args.code, ["-"]);
    }
}

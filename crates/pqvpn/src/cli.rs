// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be typed: global options and verbs, as `cli.md` fixes them.

mod discovery;
mod network;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use self::{
    discovery::{AddArgs, BootstrapVerb, DhtVerb, ExportArgs, GetArgs, LookupArgs, PutArgs, RemoveArgs, SignArgs},
    network::{
        CreateArgs, DnsVerb, InviteArgs, InviteVerb, JoinArgs, JudgeArgs, LockVerb, NetVerb, NetworkArg, NewInviteArgs,
        RelayVerb, RevokeArgs,
    },
};

/// A decentralised, post-quantum mesh VPN.
#[derive(Debug, Parser)]
#[command(name = "pqvpn", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options every verb takes, before or after it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "PQVPN_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// State directory: identity and what the daemon remembers.
    #[arg(long, global = true, value_name = "DIR", env = "PQVPN_STATE", hide_env_values = true)]
    pub(crate) state: Option<PathBuf>,
    /// Control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", env = "PQVPN_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Least important level that is logged.
    #[arg(long, global = true, value_name = "LEVEL", ignore_case = true)]
    pub(crate) log_level: Option<Level>,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// Log levels, with the spellings of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// Something does not work.
    Error,
    /// Something works less well than it should.
    Warn,
    /// What an operator cares about.
    Info,
    /// For finding faults.
    Debug,
    /// Per packet.
    Trace,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the node in the foreground.
    Daemon(DaemonArgs),
    /// Bring the network up; starts a daemon when none runs.
    Up(PassphraseArgs),
    /// Take the network down; the daemon stays.
    Down,
    /// Show the node and its peers.
    Status(StatusArgs),
    /// Show each peer in full.
    Peers,
    /// Measure round trips to a peer inside the tunnel.
    Ping(PingArgs),
    /// Show what this network allows: UDP, NAT, port mapping, IPv6, relays, and what would help.
    Netcheck,
    /// Forward (sealed) packets for members that cannot reach each other.
    #[command(subcommand)]
    Relay(RelayVerb),
    /// Show PeerID, addresses and fingerprint; makes the identity when there is none.
    Id(PassphraseArgs),
    /// Make, show and leave networks.
    #[command(subcommand)]
    Net(NetVerb),
    /// Invite somebody into a network: prints a code for `pqvpn join`.
    Invite(InviteArgs),
    /// Join a network with the code of an invite; starts a daemon when none runs.
    Join(JoinArgs),
    /// Let in who waits for it; without a name, show who waits.
    Approve(JudgeArgs),
    /// Turn away who waits to be let in; without a name, show who waits.
    Deny(JudgeArgs),
    /// Throw a member out: its connections are cut everywhere.
    Revoke(RevokeArgs),
    /// Show the members of a network.
    Members(NetworkArg),
    /// Look after who may sign for a network, and see what was signed.
    #[command(subcommand)]
    Lock(LockVerb),
    /// Show and look up names of members.
    #[command(subcommand)]
    Dns(DnsVerb),
    /// Ask the DHT, through which nodes find each other.
    #[command(subcommand)]
    Dht(DhtVerb),
    /// Look after the nodes discovery starts from.
    #[command(subcommand)]
    Bootstrap(BootstrapVerb),
    /// Look after the node's key.
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Look after the configuration file.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Change one setting of the running daemon, like `set crypto.rekey_seconds 60`.
    Set(SetArgs),
    /// Look after what the daemon changes on this host.
    #[command(subcommand)]
    Host(HostVerb),
    /// Print every figure of the daemon in the text format of Prometheus.
    Metrics,
    /// Build a mesh on this machine in throwaway namespaces and measure it.
    Demo(DemoArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the version of this program and of the running daemon.
    Version,
}

/// Where the passphrase of the keystore comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PassphraseArgs {
    /// File with the passphrase of the keystore, `-` for standard input [default: ask on a terminal, or the systemd
    /// credential `pqvpn-passphrase`].
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct DaemonArgs {
    /// Keep keys in memory only: a new identity for this run.
    #[arg(long, alias = "temp-keys")]
    pub(crate) ephemeral: bool,
    /// Keep keys in the state directory (the default).
    #[arg(long, hide = true, conflicts_with = "ephemeral")]
    pub(crate) no_temp_keys: bool,
    /// Write the process id to this file while the daemon runs.
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Go to the background once the node runs.
    #[arg(long)]
    pub(crate) daemonize: bool,
    /// This process is the one in the background, started by another.
    #[arg(long, hide = true, conflicts_with = "daemonize")]
    pub(crate) detached: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show again every second, until interrupted.
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// PeerID, the beginning of it, name or overlay address.
    pub(crate) peer: String,
    /// How many.
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Seconds between them.
    #[arg(short, long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) interval: f64,
    /// Seconds to wait for each answer.
    #[arg(short = 'W', long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

/// Verbs of `keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Show whose key it is and how it is kept.
    Show(PassphraseArgs),
    /// Write a copy of the key, always under a passphrase.
    Backup {
        /// File to write; it must not exist.
        file: PathBuf,
        /// File with the passphrase of the copy, `-` for standard input [default: ask on a terminal].
        #[arg(long, value_name = "FILE")]
        backup_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Bring the key back from a copy; with `--passphrase-file` it is kept under that passphrase.
    Restore {
        /// The copy.
        file: PathBuf,
        /// File with the passphrase of the copy, `-` for standard input [default: ask on a terminal].
        #[arg(long, value_name = "FILE")]
        backup_passphrase_file: Option<PathBuf>,
        /// Replace the key that is there; without a backup that identity is lost.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Go on with a new key: the node, running or not, gets another PeerID, in the same networks under the same names.
    Rotate {
        /// Do not ask whether it is meant.
        #[arg(long, alias = "accept-risk")]
        yes: bool,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Set, change or remove the passphrase of the keystore.
    Passphrase {
        /// File with the new passphrase, `-` for standard input [default: ask on a terminal].
        #[arg(long, value_name = "FILE", conflicts_with = "remove")]
        new_passphrase_file: Option<PathBuf>,
        /// Keep the key without a passphrase.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Write a commented configuration file.
    Init {
        /// Replace the file that is there.
        #[arg(long)]
        force: bool,
        /// Print it instead.
        #[arg(long, conflicts_with = "force")]
        stdout: bool,
    },
    /// Say what is wrong with a configuration file.
    Check {
        /// The file [default: the one in use].
        file: Option<PathBuf>,
    },
    /// Print every setting with the value in force.
    Show,
    /// Print a YAML configuration, also one of the first prototype, as TOML.
    Convert {
        /// The YAML file.
        file: PathBuf,
    },
}

/// Verbs of `host`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostVerb {
    /// Remove what a daemon that was killed has left: addresses, routes, rules, packet filters, resolver settings.
    Clean(CleanArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Leave the routes that keep packets for members from going anywhere until the daemon is started again.
    #[arg(long)]
    pub(crate) keep_closed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The setting, `section.key`.
    pub(crate) key: String,
    /// Its new value.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Number of nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: Shell,
}

/// A number of seconds that is a sane duration: 1 ms to an hour.
fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.001..=3600.0).contains(&value) { Ok(value) } else { Err("expected 0.001 to 3600 seconds".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn globals_stand_before_or_after_the_verb() {
        for line in [["pqvpn", "--json", "--state", "/x", "id"], ["pqvpn", "id", "--state", "/x", "--json"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.globals.json);
            assert_eq!(cli.globals.state, Some("/x".into()));
        }
    }

    #[test]
    fn temp_keys_is_ephemeral() {
        let cli = Cli::try_parse_from(["pqvpn", "daemon", "--temp-keys"]).unwrap();
        assert!(matches!(cli.verb, Verb::Daemon(DaemonArgs { ephemeral: true, .. })));
    }
}

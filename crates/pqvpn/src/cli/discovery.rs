// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs of `dht` and `bootstrap`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::PassphraseArgs;

/// Verbs of `dht`.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtVerb {
    /// Show how this node stands: position, proof of work, table, records, attacks, where it started from.
    Status,
    /// Find a record: where a peer is, or a value somebody published.
    Get(GetArgs),
    /// Publish a value under a name, signed by this node; the daemon keeps it up, over restarts too.
    Put(PutArgs),
    /// Find the nodes nearest to a peer's record or to a key, and show who answered.
    Lookup(LookupArgs),
    /// Show the routing table, bucket by bucket.
    Table,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// PEER for where a peer is (PeerID, name of a peer or member, or overlay address), PEER/NAME for a value, /NAME for one of our own.
    #[arg(value_name = "PEER[/NAME]")]
    pub(crate) what: String,
    /// The 64 digits are the key of a record, not a PeerID.
    #[arg(long)]
    pub(crate) key: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// The name, at most 64 bytes.
    pub(crate) name: String,
    /// The value, at most 512 bytes; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
}

#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// PeerID, name of a peer or member, or overlay address; or with `--key` a key.
    #[arg(value_name = "PEER|KEY")]
    pub(crate) target: String,
    /// The 64 digits are a key, not a PeerID.
    #[arg(long)]
    pub(crate) key: bool,
}

/// Verbs of `bootstrap`.
#[derive(Debug, Subcommand)]
pub(crate) enum BootstrapVerb {
    /// Show the nodes discovery starts from, what became of each, and the signed lists.
    List,
    /// Add a node or a file of them, for good; works with and without a daemon.
    Add(AddArgs),
    /// Remove what was added: a node, or a signer with its list; works with and without a daemon.
    Remove(RemoveArgs),
    /// Write down nodes this one has met in person: one entry per line, to be reviewed and signed.
    Export(ExportArgs),
    /// Sign a file of entries, so that others may believe it.
    Sign(SignArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// `pqvpn://<64 hex digits of the PeerID>@host:port`, a signed list, or a file with one entry per line.
    #[arg(value_name = "ENTRY|FILE")]
    pub(crate) what: String,
    /// Believe the signer of the list from now on, also without `bootstrap.signers`.
    #[arg(long)]
    pub(crate) trust: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The entry as it was added, or 64 hex digits of a PeerID: all entries of that node, and the list it signed.
    #[arg(value_name = "ENTRY|PEERID")]
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// File to write, `-` for standard output [default: standard output].
    pub(crate) file: Option<PathBuf>,
    /// Replace the file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// File with one entry per line.
    pub(crate) file: PathBuf,
    /// Signed list to write [default: the file with the ending `.list`].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Days until the list counts as old; it is used even then, as the last resort.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// Replace the list that is there.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

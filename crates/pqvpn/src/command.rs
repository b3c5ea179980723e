// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file per verb.

mod beside;
mod bootstrap;
mod completions;
mod config;
mod confirm;
pub(crate) mod daemon;
mod demo;
mod dht;
mod dns;
mod down;
mod host;
mod id;
mod invite;
mod join;
mod keys;
mod lock;
mod members;
mod metrics;
mod net;
mod netcheck;
mod peers;
mod ping;
mod relay;
mod requests;
mod set;
mod status;
mod up;
mod version;

use std::future::Future;

use crate::{cli::Verb, context::Context, failure::Failure};

/// Does what the verb says.
pub(crate) fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Daemon(args) => daemon::run(context, &args),
        Verb::Up(args) => up::run(context, &args),
        Verb::Down => block_on(down::run(context)),
        Verb::Status(args) => block_on(status::run(context, &args)),
        Verb::Peers => block_on(peers::run(context)),
        Verb::Ping(args) => block_on(ping::run(context, &args)),
        Verb::Netcheck => block_on(netcheck::run(context)),
        Verb::Relay(verb) => block_on(relay::run(context, &verb)),
        Verb::Id(args) => id::run(context, &args),
        Verb::Net(verb) => net::run(context, verb),
        Verb::Invite(args) => block_on(invite::run(context, args)),
        Verb::Join(args) => join::run(context, &args),
        Verb::Approve(args) => block_on(requests::approve(context, args)),
        Verb::Deny(args) => block_on(requests::deny(context, args)),
        Verb::Revoke(args) => block_on(members::revoke(context, args)),
        Verb::Members(network) => block_on(members::run(context, network)),
        Verb::Lock(verb) => block_on(lock::run(context, verb)),
        Verb::Dns(verb) => block_on(dns::run(context, &verb)),
        Verb::Dht(verb) => block_on(dht::run(context, &verb)),
        Verb::Bootstrap(verb) => bootstrap::run(context, &verb),
        Verb::Keys(verb) => keys::run(context, &verb),
        Verb::Config(verb) => config::run(context, &verb),
        Verb::Set(args) => block_on(set::run(context, &args)),
        Verb::Host(verb) => host::run(context, &verb),
        Verb::Metrics => block_on(metrics::run(context)),
        Verb::Demo(args) => demo::run(context, &args),
        Verb::Completions(args) => {
            completions::run(context, &args);
            Ok(())
        }
        Verb::Version => block_on(version::run(context)),
    }
}

/// Runs a request on a small runtime: one thread, gone with the command.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::failed("runtime", "nothing was done", error, "free some file descriptors or memory")
    })?;
    runtime.block_on(future)
}

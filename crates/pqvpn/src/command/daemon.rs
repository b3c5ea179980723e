// SPDX-License-Identifier: MIT OR Apache-2.0
//! `daemon`: the node and its control socket, until a signal or the API ends it.

mod confine;
mod manager;
mod node;
mod pid_file;
mod signals;
mod state_lock;
mod this_run;

use std::{
    fs::File,
    future::pending,
    path::{Path, PathBuf},
    pin::pin,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pqvpn_api::{
    SCHEMA, model,
    server::{self, Access, ControlSocket, Service},
};
use pqvpn_crypto::identity::{Identity, warm_up};
use pqvpn_node::{
    bootstrap::Shelf,
    config::{Config, LogLevel},
    membership::{Interrupted, RotationError, finish_rotation},
    overlay::Overlay,
    store::{self, KeystoreFile, StoreError},
};
use pqvpn_sandbox::Locked;
use tokio::{runtime, sync::oneshot, task::JoinHandle};

use self::{manager::Manager, pid_file::PidFile, signals::Signals, this_run::ThisRun};
use crate::{
    allocator,
    cli::DaemonArgs,
    context::{Context, absolute_path, is_same_file},
    detach,
    failure::Failure,
    identity, logging, passphrase,
};

/// The code of a failure: another daemon has the socket or the state directory.
pub(crate) const IN_USE: &str = "in-use";
/// Files and sockets that may be open at a time, where the system lets us.
const MANY_FILES: u64 = 16_384;
/// `RLIMIT_NICE` for a nice value of -10 (getrlimit(2): 20 less the value).
const NICE_LIMIT: u64 = 30;
/// Where the log of a daemon in the background goes when the config names no file.
const LOG_FILE: &str = "pqvpn.log";

pub(crate) fn run(context: &Context, args: &DaemonArgs) -> Result<(), Failure> {
    if args.daemonize {
        let pid = start_in_background(context, args)?;
        let json = serde_json::json!({"schema": SCHEMA, "pid": pid});
        context.output.done(&json, |_| format!("the daemon runs as process {pid}"));
        return Ok(());
    }
    allocator::keep_little();
    let locked = pqvpn_sandbox::keep_to_ourselves();
    if !matches!(locked, Locked::Nothing(_)) {
        // Who gives back free pages has to know.
        let _again = pqvpn_node::keep_out_of_swap();
    }
    allow_many_files();
    allow_priority();
    if args.detached {
        detach::leave_session();
    }
    let config = context.config()?;
    let state_dir = context.state_dir(&config)?;
    store::ensure_private_dir(&state_dir).map_err(|error| Failure::from(error).while_doing("no state directory"))?;
    start_log(context, args, &config, &state_dir)?;
    warm_up().map_err(StoreError::from)?;
    // Before the key is read: nobody else gives this node another one meanwhile.
    let _state = state_lock::take(&state_dir, context.own_socket().ok().as_deref())?;
    let identity = own_identity(args, &state_dir)?;
    let origin = context.config_path().map_or_else(|_| String::new(), |path| path.display().to_string());
    config.check_identity(&identity.peer_id(), &origin)?;
    for warning in config.check().iter().filter(|warning| !warning.is_common()) {
        tracing::warn!(code = warning.code, key = warning.key, "{}", warning.text);
    }
    // One thread for all of control: packets have their own, and QUIC's endpoint does best on one.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("runtime", "no daemon", error, "free some file descriptors or memory"))?;
    runtime.block_on(serve(context, args, config, (identity, locked), &state_dir))
}

/// Starts the daemon as another process and waits until it is ready.
pub(crate) fn start_in_background(context: &Context, args: &DaemonArgs) -> Result<u32, Failure> {
    let config = context.config()?;
    let state_dir = context.state_dir(&config)?;
    let mut arguments = Vec::new();
    if args.ephemeral {
        arguments.push("--ephemeral".into());
    }
    if let Some(path) = &args.pid_file {
        arguments.extend(["--pid-file".into(), absolute_path(path).into()]);
    }
    // Only this process has a terminal to ask on.
    let keystore = identity::keystore(&state_dir);
    let file = args.passphrase.passphrase_file.as_deref();
    let locked = !args.ephemeral && keystore.exists()? && keystore.is_encrypted()?;
    let passphrase = if locked || (file.is_some() && !args.ephemeral) {
        Some(passphrase::existing_bytes(file, (identity::PASSPHRASE_OPTION, &keystore.path().display().to_string()))?)
    } else {
        None
    };
    detach::start(context, &arguments, passphrase)
}

/// Locks a state directory that no daemon uses; none where there was never one.
pub(crate) fn lock_state(state_dir: &Path) -> Result<Option<File>, Failure> {
    state_lock::take_existing(state_dir)
}

/// Locks a state directory for who changes what a daemon would use.
pub(crate) fn lock_for(state_dir: &Path) -> Result<File, Failure> {
    state_lock::take(state_dir, None)
}

/// Where the daemon answers that has the state directory of this run, if it is another place than this run asks at.
pub(crate) fn answers_elsewhere(context: &Context) -> Option<PathBuf> {
    let state_dir = context.state_dir(&context.config().ok()?).ok()?;
    let own = context.own_socket().ok()?;
    state_lock::holder_socket(&state_dir).filter(|socket| !is_same_file(socket, &own))
}

/// Room for all whom a relay serves at a time: the usual soft limit is for programs that know no more of it.
fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _fewer_are_served = setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(MANY_FILES)), hard);
    }
}

/// Packet threads give themselves a higher priority, when the right to do so is given up already.
fn allow_priority() {
    let _without = setrlimit(Resource::RLIMIT_NICE, NICE_LIMIT, NICE_LIMIT);
}

fn start_log(context: &Context, args: &DaemonArgs, config: &Config, state_dir: &Path) -> Result<(), Failure> {
    let named = config.logging.file.as_deref().map(|file| state_dir.join(file));
    let file = named.or_else(|| args.detached.then(|| state_dir.join(LOG_FILE)));
    logging::init(log_level(context, config), config.logging.format, file.as_deref())
}

fn log_level(context: &Context, config: &Config) -> LogLevel {
    let quiet = context.output.is_quiet().then_some(LogLevel::Error);
    context.log_level.or(quiet).unwrap_or(config.logging.level)
}

fn own_identity(args: &DaemonArgs, state_dir: &Path) -> Result<Identity, Failure> {
    if args.ephemeral {
        return Ok(Identity::generate().map_err(StoreError::from)?);
    }
    let keystore = identity::keystore(state_dir);
    end_rotation(state_dir, &keystore)?;
    let (identity, created) = identity::load_or_create(&keystore, args.passphrase.passphrase_file.as_deref())?;
    if created {
        tracing::info!(peer_id = %identity.peer_id(), path = %keystore.path().display(), "new identity");
    }
    Ok(identity)
}

/// Ends a rotation that a crash has interrupted. The caller holds the state directory.
fn end_rotation(state_dir: &Path, keystore: &KeystoreFile) -> Result<(), Failure> {
    match finish_rotation(state_dir, keystore) {
        Ok(Some(Interrupted::Finished)) => {
            tracing::warn!("an interrupted rotation is finished: the new key is in force")
        }
        Ok(Some(Interrupted::Undone)) => {
            tracing::warn!("an interrupted rotation is undone: the old key stays in force")
        }
        Ok(None) => {}
        Err(error) => {
            let hint = if matches!(error, RotationError::Unread(_)) {
                "start the version that wrote it, which ends the rotation"
            } else {
                "free some space, or check the state directory; then start the daemon again"
            };
            return Err(Failure::failed("rotation", "an interrupted rotation of the key was not ended", error, hint));
        }
    }
    Ok(())
}

async fn serve(
    context: &Context,
    args: &DaemonArgs,
    config: Config,
    (identity, locked): (Identity, Locked),
    state_dir: &Path,
) -> Result<(), Failure> {
    let manager = Manager::of_this_process();
    let mut signals = Signals::listen()?;
    let about = about(&config, &identity, state_dir);
    let access = Access::of_this_process();
    // Socket and file come first: a second daemon must end before it touches the interface of the first.
    let socket = match context.own_socket()? {
        path if context.is_default_socket(&path) => ControlSocket::bind_default(&path, &access)?,
        path => ControlSocket::bind(&path, &access)?,
    };
    clean_up(context, state_dir);
    let this_run = ThisRun::begin(state_dir, args.ephemeral)?;
    let _pid_file = args.pid_file.as_deref().map(|path| PidFile::write(&absolute_path(path))).transpose()?;
    let confinement = confine::confine(context, args, &config, state_dir, locked);
    let shelf = Shelf::of(&config, state_dir);
    let keystore = (!args.ephemeral).then(|| identity::keystore(state_dir));
    let scraped_at = config.metrics.listen;
    let with = started(context, args, &config, state_dir);
    let (node, running) = node::start(config, identity, (state_dir, this_run.dir()), keystore).await?;
    let mut running = pin!(async { running.await.map_err(|error| error.to_string()) });
    let service = Service::new(node.clone(), about).started(with);
    let mut service = service.keeping_bootstrap_on(shelf).confined(confinement);
    if let Ok(path) = context.config_path() {
        service = service.keeping_settings_in(path);
    }
    let exporter = scraped_at.map(|listen| tokio::spawn(server::export(listen, service.clone())));
    let (stop, stopped) = oneshot::channel::<()>();
    let api = tokio::spawn(server::serve(socket, access, service, async {
        let _dropped = stopped.await;
    }));
    if args.detached {
        detach::report_ready(context);
    }
    let lives = async || node.alive().await.is_ok() && pqvpn_node::link::alive().await;
    // Only now does the control socket answer, and the interface is up.
    if lives().await {
        manager.tell("READY=1");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let ended = tokio::select! {
        ended = &mut running => ended,
        never = async { manager.watch(lives).await; pending().await } => never,
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            manager.tell("STOPPING=1");
            tokio::select! {
                ended = async { node.shutdown().await; (&mut running).await } => ended,
                () = signals.again() => {
                    tracing::warn!("stopped at once; what is left on the host is undone at the next start");
                    Ok(Ok(()))
                }
            }
        }
    };
    manager.tell("STOPPING=1");
    exporter.inspect(JoinHandle::abort);
    drop(stop);
    let _served = api.await;
    let ended = ended
        .map_err(|error| Failure::failed("node", "the node failed", error, "the log says more; start it again"))?;
    // It may have failed to start again with another key.
    ended.map_err(|error| node::refused(&error))
}

/// Removes what a crash left of files that were being written.
fn clean_up(context: &Context, state_dir: &Path) {
    let ours: usize = [state_dir, &Shelf::directory(state_dir)].map(store::remove_twins).iter().sum();
    let removed = ours + context.config_path().map_or(0, |path| store::remove_twins_of(&path));
    if removed > 0 {
        tracing::info!(removed, "halves of files that a crash left are removed");
    }
}

fn about(config: &Config, identity: &Identity, state_dir: &Path) -> model::Identity {
    model::Identity {
        schema: SCHEMA,
        peer_id: identity.peer_id().to_string(),
        name: config.name(),
        addresses: Overlay::plan(config, identity.peer_id()).own,
        fingerprint: identity.public().fingerprint(),
        state_dir: Some(state_dir.to_owned()),
    }
}

fn started(context: &Context, args: &DaemonArgs, config: &Config, state_dir: &Path) -> model::Started {
    let mut in_force = context.in_force(config, state_dir);
    in_force.logging.level = log_level(context, config);
    model::Started {
        schema: SCHEMA,
        pid: std::process::id(),
        state_dir: state_dir.to_owned(),
        ephemeral: args.ephemeral,
        config: context.config_path().ok(),
        settings: in_force.to_toml(),
    }
}

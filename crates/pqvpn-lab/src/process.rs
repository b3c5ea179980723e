// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes inside namespaces: started, watched with deadlines, measured, and always killed in the end.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{Namespace, NetnsError};

mod usage;

pub use usage::Usage;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(5);
/// Most bytes of output kept per stream; older ones are dropped.
const MAX_OUTPUT: usize = 1 << 20;
/// Makes the kernel kill the child when the thread that started it is gone (util-linux).
const SETPRIV: &str = "/usr/bin/setpriv";

/// Why a process did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] NetnsError),
    /// A condition did not come true in time.
    #[error("{what} did not happen within {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The process ended although it was still needed.
    #[error("{name} ended with {status}; its last words:\n{output}")]
    Ended {
        /// Which process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        output: String,
    },
    /// The system refused to signal, reap or measure it.
    #[error("{name}: {error}")]
    System {
        /// Which process.
        name: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// Waits until `check` returns something, at most `limit` long.
///
/// # Errors
/// [`ProcessError::Timeout`] naming `what`.
pub fn wait_until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> Result<T, ProcessError> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(ProcessError::Timeout { what: what.to_owned(), limit });
        }
        thread::sleep(POLL);
    }
}

/// A process in a namespace; killed and reaped on drop.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    pid: u32,
    child: Arc<Mutex<Child>>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    /// Keeps the namespace until the process is gone.
    _namespace: Namespace,
}

/// What a process that ran to its end left.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error.
    pub stderr: String,
}

impl Daemon {
    /// Starts `command` in a namespace, without input, its output captured. `name` appears in errors.
    ///
    /// Program, arguments, environment changes and directory of `command` count; nothing else set on it does.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn spawn(namespace: &Namespace, name: &str, command: Command) -> Result<Self, ProcessError> {
        let mut command = dying_with_parent(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = namespace.spawn(command)?;
        let (stdout, stderr) = (Stream::capture(child.stdout.take()), Stream::capture(child.stderr.take()));
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        register(&child);
        Ok(Self { name: name.to_owned(), pid, child, stdout, stderr, _namespace: namespace.clone() })
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// What it wrote to standard output so far (the last MiB).
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far (the last MiB).
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// How it ended, `None` while it runs.
    ///
    /// # Errors
    /// [`ProcessError::System`].
    pub fn exited(&self) -> Result<Option<ExitStatus>, ProcessError> {
        lock(&self.child).try_wait().map_err(|error| self.system(error))
    }

    /// Waits until `check` returns something; gives up at once when the process ends.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] or [`ProcessError::Timeout`].
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut() -> Option<T>,
    ) -> Result<T, ProcessError> {
        wait_until(what, limit, || {
            // The exit is read first: what a process did before it ended still counts.
            let exited = self.exited();
            check().map(Ok).or_else(|| match exited {
                Ok(None) => None,
                Ok(Some(status)) => Some(Err(self.ended(status))),
                Err(error) => Some(Err(error)),
            })
        })?
    }

    /// Waits until a line of either output contains `text`; returns the line.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] or [`ProcessError::Timeout`].
    pub fn wait_for_line(&self, text: &str, limit: Duration) -> Result<String, ProcessError> {
        let what = format!("{} saying {text:?}", self.name);
        let find = |all: String| all.lines().find(|line| line.contains(text)).map(str::to_owned);
        self.wait_until(&what, limit, || find(self.stdout()).or_else(|| find(self.stderr())))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// [`ProcessError::Timeout`]; the process then still runs.
    pub fn wait(&self, limit: Duration) -> Result<Finished, ProcessError> {
        let status = wait_until(&format!("the end of {}", self.name), limit, || self.exited().transpose())??;
        self.stdout.wait_closed(POLL * 100);
        self.stderr.wait_closed(POLL * 100);
        Ok(Finished { status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Sends a signal; a process that has ended already is left alone.
    ///
    /// # Errors
    /// [`ProcessError::System`].
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let mut child = lock(&self.child);
        // Unreaped under this lock, so the pid is still this process.
        if child.try_wait().map_err(|error| self.system(error))?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid.cast_signed()), signal).map_err(|error| self.system(error.into()))
    }

    /// Asks the process to end (SIGTERM) and waits; after `limit` it is killed.
    ///
    /// # Errors
    /// [`ProcessError::Timeout`] when it had to be killed.
    pub fn terminate(&self, limit: Duration) -> Result<Finished, ProcessError> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit).inspect_err(|_| self.kill())
    }

    /// Kills the process at once (SIGKILL) and reaps it.
    pub fn kill(&self) {
        kill_and_reap(&self.child);
    }

    /// CPU time and memory so far.
    ///
    /// # Errors
    /// [`ProcessError::System`] when the process is gone.
    pub fn usage(&self) -> Result<Usage, ProcessError> {
        Usage::of(self.pid).map_err(|error| self.system(error))
    }

    fn system(&self, error: io::Error) -> ProcessError {
        ProcessError::System { name: self.name.clone(), error }
    }

    fn ended(&self, status: ExitStatus) -> ProcessError {
        self.stderr.wait_closed(POLL * 100);
        ProcessError::Ended { name: self.name.clone(), status, output: self.stderr() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command in a namespace to its end, within `limit`.
///
/// # Errors
/// [`ProcessError`]; an unsuccessful exit is no error here.
pub fn run(namespace: &Namespace, command: Command, limit: Duration) -> Result<Finished, ProcessError> {
    let name = command.get_program().to_string_lossy().into_owned();
    Daemon::spawn(namespace, &name, command)?.wait(limit)
}

/// Kills every child of this module, removes every [`crate::folder::Folder`] and ends the process with code 130 when
/// SIGINT or SIGTERM comes.
///
/// Starts a thread: call it after [`crate::netns::acquire`].
///
/// # Errors
/// When the system gives no thread or signal handler.
pub fn kill_children_on_interrupt() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(wait);
        let children = std::mem::take(&mut *lock(&CHILDREN));
        children.iter().filter_map(Weak::upgrade).for_each(|child| kill_and_reap(&child));
        crate::folder::remove_all();
        std::process::exit(130);
    })?;
    Ok(())
}

/// Every child that may still run.
static CHILDREN: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

fn register(child: &Arc<Mutex<Child>>) {
    let mut children = lock(&CHILDREN);
    children.retain(|child| child.strong_count() > 0);
    children.push(Arc::downgrade(child));
}

/// Kills through the handle, which knows whether the process was reaped: a reused pid is never hit.
fn kill_and_reap(child: &Mutex<Child>) {
    let mut child = lock(child);
    // Both fail only where there is nothing left to kill or reap.
    _ = child.kill();
    _ = child.wait();
}

/// A panic elsewhere does not make a child unkillable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `setpriv` exists, wraps the command so that the kernel kills it should this process die by SIGKILL; the
/// process id stays the command's, since `setpriv` executes it in its own place.
fn dying_with_parent(command: Command) -> Command {
    // An unfindable program is left to fail in `spawn`, with the error that says so.
    if !Path::new(SETPRIV).exists() || !can_be_found(Path::new(command.get_program())) {
        return command;
    }
    let mut wrapped = Command::new(SETPRIV);
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

/// Whether a program is there: at its path, or in a directory of PATH.
fn can_be_found(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// One captured output stream.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<Captured>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    closed: bool,
}

impl Stream {
    /// Reads `source` to its end on a thread of its own.
    fn capture(source: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let writer = Arc::clone(&stream);
        thread::spawn(move || {
            if let Some(mut source) = source {
                let mut chunk = [0; 8192];
                while let Ok(len @ 1..) = source.read(&mut chunk) {
                    writer.append(&chunk[..len]);
                }
            }
            lock(&writer.state).closed = true;
            writer.closed.notify_all();
        });
        stream
    }

    fn append(&self, chunk: &[u8]) {
        let bytes = &mut lock(&self.state).bytes;
        bytes.extend_from_slice(chunk);
        if bytes.len() > MAX_OUTPUT {
            let excess = bytes.len() - MAX_OUTPUT;
            bytes.drain(..excess);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.state).bytes).into_owned()
    }

    /// Waits until everything was read; grandchildren may hold the stream open, so not for ever.
    fn wait_closed(&self, limit: Duration) {
        let state = lock(&self.state);
        drop(self.closed.wait_timeout_while(state, limit, |state| !state.closed));
    }
}

#[cfg(test)]
mod tests;

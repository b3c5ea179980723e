// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network namespaces, each entered by one thread of its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle, ThreadId};

use nix::sched::{CloneFlags, unshare};

mod userns;

pub use userns::{Privilege, acquire, enter_user_namespace};

/// Why a namespace cannot be had or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The kernel refuses to make a network namespace.
    #[error(
        "the kernel does not let this process make a network namespace ({0}); run as root or allow user namespaces"
    )]
    Forbidden(#[source] io::Error),
    /// The kernel refuses to make a user namespace.
    #[error(
        "the kernel does not let this user make a user namespace ({0}); run as root, or see the sysctls \
         user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns"
    )]
    UserNamespaceForbidden(#[source] io::Error),
    /// A user namespace can be entered only before the process has threads.
    #[error("cannot enter a user namespace with {0} threads running; do it first thing in main")]
    Threads(usize),
    /// A file of /proc could not be read or written.
    #[error("{path}: {error}")]
    Proc {
        /// Which file.
        path: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The thread of the namespace could not be started or has ended.
    #[error("the thread of namespace {name} is not running")]
    Gone {
        /// The namespace's name.
        name: String,
    },
    /// Bringing the loopback interface up failed.
    #[error("loopback of namespace {name}: {error}")]
    Loopback {
        /// The namespace's name.
        name: String,
        /// What netlink said.
        error: String,
    },
    /// A process could not be started.
    #[error("cannot start {program}: {error}")]
    Spawn {
        /// The program asked for.
        program: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. Clones share it; it ends with the last clone, thread and process in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    /// Open /proc/thread-self/ns/net of the thread: keeps the namespace alive and names it to netlink.
    file: File,
    /// Taken on drop, which ends the thread.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
}

impl Namespace {
    /// Makes an empty namespace with its loopback up. `name` appears in errors and thread names only.
    ///
    /// # Errors
    /// [`NetnsError::Forbidden`] without the privilege (see [`acquire`]), others when the machine is out of order.
    pub fn create(name: &str) -> Result<Self, NetnsError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("ns-{name}"))
            .spawn(move || {
                let made = make_namespace();
                let usable = made.is_ok();
                if ready.send(made).is_ok() && usable {
                    inbox.into_iter().for_each(|job| job());
                }
            })
            .map_err(|error| NetnsError::Spawn { program: format!("thread ns-{name}"), error })?;
        let file = made.recv().map_err(|_| NetnsError::Gone { name: name.to_owned() })??;
        let id = thread.thread().id();
        let inner = Inner { name: name.to_owned(), file, jobs: Some(jobs), thread: Some(thread), id };
        let namespace = Self { inner: Arc::new(inner) };
        crate::topology::loopback_up(&namespace)
            .map_err(|error| NetnsError::Loopback { name: name.to_owned(), error: error.to_string() })?;
        Ok(namespace)
    }

    /// The name given at creation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs a closure on the namespace's thread and returns its result; a panic in it goes on in the caller.
    ///
    /// Sockets and processes made inside belong to the namespace for ever. Jobs of one namespace run one at a time:
    /// for what takes long, use [`Namespace::thread`].
    ///
    /// # Errors
    /// [`NetnsError::Gone`] when the thread has ended.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, NetnsError> {
        if thread::current().id() == self.inner.id {
            return Ok(work());
        }
        let (done, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // The receiver is the waiting caller; it cannot be gone.
            _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        let gone = || NetnsError::Gone { name: self.inner.name.clone() };
        self.inner.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        match result.recv().map_err(|_| gone())? {
            Ok(result) => Ok(result),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Starts a thread inside the namespace.
    ///
    /// # Errors
    /// [`NetnsError`] when the thread cannot be started.
    pub fn thread<R: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>, NetnsError> {
        let builder = thread::Builder::new().name(name.to_owned());
        let program = format!("thread {name}");
        self.run(move || builder.spawn(work))?.map_err(|error| NetnsError::Spawn { program, error })
    }

    /// Starts a process inside the namespace. Whoever calls this reaps it; [`crate::process::Daemon`] does it for you.
    ///
    /// # Errors
    /// [`NetnsError::Spawn`] with the program's name.
    pub fn spawn(&self, mut command: Command) -> Result<Child, NetnsError> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(move || command.spawn())?.map_err(|error| NetnsError::Spawn { program, error })
    }

    /// Writes a network sysctl of this namespace, e.g. `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// [`NetnsError::Proc`] with the file's name.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), NetnsError> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = value.to_owned();
        self.run(move || fs::write(&path, value).map_err(|error| NetnsError::Proc { path, error }))?
    }

    /// The raw file descriptor of the namespace, for netlink messages sent while `self` is alive.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.inner.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.file.as_fd()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last clone may die inside one of the namespace's own jobs.
        if thread::current().id() != self.id {
            // A job's panic was handed to its caller already.
            _ = thread.join();
        }
    }
}

/// Moves this thread into a new network namespace and opens it.
fn make_namespace() -> Result<File, NetnsError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| NetnsError::Forbidden(error.into()))?;
    let path = Path::new("/proc/thread-self/ns/net");
    File::open(path).map_err(|error| NetnsError::Proc { path: path.display().to_string(), error })
}

#[cfg(test)]
pub(crate) mod tests;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! From one plan to another while the node runs: only what differs is touched.
//!
//! New addresses and routes first, old ones after: whatever both plans route is routed at every moment, so nothing for
//! the mesh leaves in clear in between.

use ipnet::IpNet;

use super::{
    Change, HostChange, HostError, Plan, Report, Stop, checks,
    journal::{self, Journal},
    kernel::Kernel,
};

impl HostChange {
    /// Brings the host from the plan in force to another one of the same interface.
    ///
    /// # Errors
    /// As [`HostChange::apply`]; the host is then as the plan before wanted it. When something old could not be undone,
    /// everything new is in force and the journal keeps the old.
    pub async fn change_to(&mut self, plan: &Plan) -> Result<(), HostError> {
        self.change_until(plan, Stop::Never).await
    }

    pub(super) async fn change_until(&mut self, plan: &Plan, stop: Stop) -> Result<(), HostError> {
        let kernel = Kernel::open()?;
        let (link, additions, report) = checks::changes(&kernel, plan).await?;
        let index = self.journal.index;
        if link.index != index {
            return Err(HostError::NoInterface { name: self.journal.interface.clone() });
        }
        let obsolete = self.obsolete(plan, &report);
        let before = self.journal.clone();
        let mut steps = Steps { kernel, index, stop, done: 0 };
        if !additions.is_empty() {
            // What somebody took away is set again, and is in it already.
            self.journal.changes.retain(|change| !additions.contains(change));
            self.journal.changes.extend(additions.iter().cloned());
            self.journal.store(&self.state_dir).await.inspect_err(|_| self.journal = before.clone())?;
        }
        for (made, change) in additions.iter().enumerate() {
            match steps.perform(change).await {
                Ok(()) => {}
                Err(Halt::Died) => return Err(HostError::injected()),
                Err(Halt::Failed(error)) => {
                    let cause = self.back_to(before, &steps, &additions[..made], error).await;
                    return Err(cause);
                }
            }
        }
        self.report = report;
        self.strike_off(&mut steps, &obsolete, &additions).await
    }

    /// What is in force and no longer planned, or now left to a connected subnet: routes before the addresses they were
    /// made for.
    fn obsolete(&self, plan: &Plan, report: &Report) -> Vec<Change> {
        let wanted = |change: &Change| match change {
            Change::Address { net } => plan.addresses.contains(net),
            Change::Route { net, .. } => {
                let of_address = plan.addresses.iter().any(|own| own.trunc() == *net);
                !report.leaves_out(*net) && (of_address || plan.routes.iter().any(|route| route.net == *net))
            }
            Change::Device | Change::NoLinkLocal { .. } | Change::Mtu { .. } | Change::Up => true,
        };
        self.journal.changes.iter().filter(|change| !wanted(change)).rev().cloned().collect()
    }

    /// Undoes what is no longer planned and what has been replaced, and then takes it off the journal.
    async fn strike_off(&mut self, steps: &mut Steps, obsolete: &[Change], made: &[Change]) -> Result<(), HostError> {
        let (mut failed, mut undone) = (Vec::new(), Vec::new());
        for change in obsolete {
            match steps.revert(change).await {
                Ok(()) => undone.push(change.clone()),
                Err(Halt::Died) => return Err(HostError::injected()),
                Err(Halt::Failed(error)) => {
                    failed.push(format!("{}: {error}", change.describe(&self.journal.interface)));
                }
            }
        }
        let replaced: Vec<IpNet> = made.iter().filter_map(Change::replaces).collect();
        if !obsolete.is_empty() || !replaced.is_empty() {
            let mut journal = self.journal.clone();
            // Of a route that was replaced the journal names the newer one.
            let old = journal.changes.len() - made.len();
            let mut at = 0..;
            journal.changes.retain(|change| {
                let is_old = at.next().is_some_and(|at| at < old);
                let is_replaced = is_old && change.route().is_some_and(|net| replaced.contains(&net));
                !undone.contains(change) && !is_replaced
            });
            journal.store(&self.state_dir).await?;
            self.journal = journal;
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(HostError::Undo { failed: failed.join("; "), path: journal::path(&self.state_dir) })
    }

    /// Undoes what was made of a plan that failed and says why it failed.
    async fn back_to(&mut self, before: Journal, steps: &Steps, made: &[Change], cause: HostError) -> HostError {
        let mut failed = Vec::new();
        for change in made.iter().rev() {
            let undone = if let Change::Route { net, source, before: Some(old) } = change {
                let back = Change::Route { net: *net, source: *old, before: Some(*source) };
                steps.kernel.perform(steps.index, &back).await
            } else {
                steps.kernel.revert(steps.index, change).await.map(drop)
            };
            if let Err(error) = undone {
                failed.push(format!("{}: {error}", change.describe(&before.interface)));
            }
        }
        if failed.is_empty() {
            self.journal = before;
            return match self.journal.store(&self.state_dir).await {
                Ok(()) => cause,
                Err(error) => HostError::HalfSet { cause: Box::new(cause), undo: Box::new(error) },
            };
        }
        let undo = HostError::Undo { failed: failed.join("; "), path: journal::path(&self.state_dir) };
        HostError::HalfSet { cause: Box::new(cause), undo: Box::new(undo) }
    }
}

/// Changes made one after the other, with the place where a test stops them.
struct Steps {
    kernel: Kernel,
    index: u32,
    stop: Stop,
    done: usize,
}

/// Why it did not go on.
enum Halt {
    Failed(HostError),
    /// The process died here, in a test.
    Died,
}

impl Steps {
    async fn perform(&mut self, change: &Change) -> Result<(), Halt> {
        self.step()?;
        self.kernel.perform(self.index, change).await.map_err(Halt::Failed)
    }

    async fn revert(&mut self, change: &Change) -> Result<(), Halt> {
        self.step()?;
        self.kernel.revert(self.index, change).await.map(drop).map_err(Halt::Failed)
    }

    fn step(&mut self) -> Result<(), Halt> {
        let at = self.done;
        self.done += 1;
        match self.stop {
            Stop::Fail(stop) if stop == at => Err(Halt::Failed(HostError::injected())),
            Stop::Crash(stop) if stop == at => Err(Halt::Died),
            Stop::Never | Stop::Fail(_) | Stop::Crash(_) => Ok(()),
        }
    }
}

impl Change {
    fn route(&self) -> Option<IpNet> {
        if let Self::Route { net, .. } = self { Some(*net) } else { None }
    }

    /// The route that takes the place of an earlier one of ours.
    fn replaces(&self) -> Option<IpNet> {
        if let Self::Route { net, before: Some(_), .. } = self { Some(*net) } else { None }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may control the daemon: root, the daemon's own user, and members of the operator group.
//!
//! The mode of the socket says the same; this check holds when somebody widens the mode.

use nix::unistd::{Gid, Group, Uid, User, geteuid};

/// Group whose members may control a system daemon.
pub const OPERATOR_GROUP: &str = "pqvpn";

/// The rule, fixed when the daemon starts.
#[derive(Debug, Clone)]
pub struct Access {
    own: Uid,
    operators: Option<Gid>,
}

/// Credentials of a connected process, from the kernel (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl Access {
    /// The rule for this process: its own user, and [`OPERATOR_GROUP`] where that exists.
    #[must_use]
    pub fn of_this_process() -> Self {
        let operators = Group::from_name(OPERATOR_GROUP).ok().flatten().map(|group| group.gid);
        Self { own: geteuid(), operators }
    }

    /// A rule for the given user and group.
    #[must_use]
    pub fn new(own_uid: u32, operator_gid: Option<u32>) -> Self {
        Self { own: Uid::from_raw(own_uid), operators: operator_gid.map(Gid::from_raw) }
    }

    pub(super) fn operators(&self) -> Option<Gid> {
        self.operators
    }

    /// Whether it is the daemon's own user.
    pub(super) fn is_own(&self, uid: u32) -> bool {
        self.own.as_raw() == uid
    }

    /// Whether the caller may control the daemon. Reads the user database, so it may block.
    pub(super) fn permits(&self, caller: Caller) -> bool {
        self.permits_with(caller, is_member)
    }

    fn permits_with(&self, caller: Caller, is_member: impl FnOnce(Uid, Gid) -> bool) -> bool {
        let uid = Uid::from_raw(caller.uid);
        if uid.is_root() || uid == self.own {
            return true;
        }
        let Some(operators) = self.operators else { return false };
        Gid::from_raw(caller.gid) == operators || is_member(uid, operators)
    }
}

/// Whether the user database lists the user in the group, as its main group or as a further one.
fn is_member(uid: Uid, gid: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else {
        return false;
    };
    if user.gid == gid {
        return true;
    }
    let Ok(Some(group)) = Group::from_gid(gid) else {
        return false;
    };
    group.mem.contains(&user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 1000;
    const OPERATORS: u32 = 900;

    #[test]
    fn root_and_the_own_user_are_permitted() {
        let access = Access::new(OWN, None);
        assert!(access.permits_with(Caller { uid: 0, gid: 0 }, |_, _| false));
        assert!(access.permits_with(Caller { uid: OWN, gid: 5 }, |_, _| false));
    }

    #[test]
    fn a_foreign_user_is_refused() {
        let access = Access::new(OWN, Some(OPERATORS));
        assert!(!access.permits_with(Caller { uid: 1001, gid: 1001 }, |_, _| false));
    }

    #[test]
    fn operators_are_permitted_by_main_or_further_group() {
        let access = Access::new(OWN, Some(OPERATORS));
        assert!(access.permits_with(Caller { uid: 1001, gid: OPERATORS }, |_, _| false));
        assert!(access.permits_with(Caller { uid: 1001, gid: 1001 }, |_, gid| gid.as_raw() == OPERATORS));
    }

    #[test]
    fn without_an_operator_group_membership_is_never_asked() {
        let access = Access::new(OWN, None);
        assert!(!access.permits_with(Caller { uid: 1001, gid: 1001 }, |_, _| true));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for the networks in the state task: passed on, and answered when what they changed is in force here.

use tokio::sync::{mpsc, oneshot};

use super::State;
use crate::membership::{NetworkCommand, NetworkError, Order, Port, Reply};

/// Answered when every view told so far is in force.
pub(crate) type Barrier = oneshot::Sender<()>;

impl State {
    /// Passes a command on to the networks.
    pub(super) fn network(&self, command: NetworkCommand) {
        let command = match command {
            NetworkCommand::NetCreate(network, reply) => NetworkCommand::NetCreate(network, self.in_force(reply)),
            NetworkCommand::NetLeave(network, reply) => NetworkCommand::NetLeave(network, self.in_force(reply)),
            NetworkCommand::NetEnable(network, on, reply) => {
                NetworkCommand::NetEnable(network, on, self.in_force(reply))
            }
            NetworkCommand::Join(code, name, wait, reply) => {
                self.lan.look_again();
                NetworkCommand::Join(code, name, wait, self.in_force(reply))
            }
            NetworkCommand::Approve(network, who, reply) => NetworkCommand::Approve(network, who, self.in_force(reply)),
            NetworkCommand::Revoke(network, who, why, reply) => {
                NetworkCommand::Revoke(network, who, why, self.in_force(reply))
            }
            NetworkCommand::LockSign(network, id, reply) => NetworkCommand::LockSign(network, id, self.in_force(reply)),
            NetworkCommand::LockContest(network, ids, who, reply) => {
                NetworkCommand::LockContest(network, ids, who, self.in_force(reply))
            }
            NetworkCommand::LockDisable(network, secret, reply) => {
                NetworkCommand::LockDisable(network, secret, self.in_force(reply))
            }
            other @ (NetworkCommand::NetList(_)
            | NetworkCommand::InviteCreate(..)
            | NetworkCommand::InviteList(..)
            | NetworkCommand::InviteCancel(..)
            | NetworkCommand::JoinRequests(..)
            | NetworkCommand::Deny(..)
            | NetworkCommand::Members(..)
            | NetworkCommand::LockStatus(..)
            | NetworkCommand::LockLog(..)
            | NetworkCommand::AdminAdd(..)
            | NetworkCommand::AdminRemove(..)) => other,
        };
        // With no room the answer is dropped, and whoever asked is told that the node has stopped.
        self.context.networks.order(Order::Command(command));
    }

    /// Holds an answer back until peers, routes and host are as it says: whoever joined can ping at once.
    fn in_force<T: Send + 'static>(&self, reply: Reply<T>) -> Reply<T> {
        let (held, answer) = oneshot::channel::<Result<T, NetworkError>>();
        let (networks, barriers) = (self.context.networks.clone(), self.barriers.clone());
        tokio::spawn(async move {
            let Ok(answer) = answer.await else { return };
            if answer.is_ok() {
                views_in_force(&networks, &barriers).await;
            }
            let _nobody_waits = reply.send(answer);
        });
        held
    }
}

async fn views_in_force(networks: &Port, barriers: &mpsc::Sender<Barrier>) {
    // Views are told after each order: when this one is answered, those of the order before are on their way.
    let (done, listed) = oneshot::channel();
    if networks.order(Order::Command(NetworkCommand::NetList(done))) {
        let _stopped = listed.await;
    }
    let (barrier, taken) = oneshot::channel();
    if barriers.send(barrier).await.is_ok() {
        let _stopped = taken.await;
    }
}

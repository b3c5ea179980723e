// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people ask of the node's networks; answered by the task that owns them.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Command, NodeError, NodeHandle, PeerRef};
use crate::membership::{
    ActReport, ApproveReport, CreateNetwork, InviteOptions, InviteReport, JoinReport, LockReport, MemberReport, NetRef,
    NetworkCommand, NetworkReport, PendingReport, Reply, RevokeReport, StatementReport,
};

impl NodeHandle {
    /// Makes a network with this node as its first member and admin.
    ///
    /// # Errors
    /// A name or pool that cannot be, too many networks, or the store failed.
    pub async fn net_create(&self, network: CreateNetwork) -> Result<NetworkReport, NodeError> {
        self.network(|reply| NetworkCommand::NetCreate(network, reply)).await
    }

    /// Lists the networks of this node.
    ///
    /// # Errors
    /// [`NodeError::Stopped`] when the node has gone.
    pub async fn net_list(&self) -> Result<Vec<NetworkReport>, NodeError> {
        self.ask(|tx| Command::Network(NetworkCommand::NetList(tx))).await
    }

    /// Leaves a network and forgets it.
    ///
    /// # Errors
    /// No such network, or others would be left without an admin.
    pub async fn net_leave(&self, network: NetRef) -> Result<NetworkReport, NodeError> {
        self.network(|reply| NetworkCommand::NetLeave(network, reply)).await
    }

    /// Switches a network on or off; the node stays a member.
    ///
    /// # Errors
    /// No such network.
    pub async fn net_enable(&self, network: NetRef, enable: bool) -> Result<NetworkReport, NodeError> {
        self.network(|reply| NetworkCommand::NetEnable(network, enable, reply)).await
    }

    /// Makes an invite; the code is in the answer only.
    ///
    /// # Errors
    /// No such network, this node is no admin, or an option is out of bounds.
    pub async fn invite_create(&self, network: NetRef, options: InviteOptions) -> Result<InviteReport, NodeError> {
        self.network(|reply| NetworkCommand::InviteCreate(network, options, reply)).await
    }

    /// Lists the invites of a network.
    ///
    /// # Errors
    /// No such network.
    pub async fn invite_list(&self, network: NetRef) -> Result<Vec<InviteReport>, NodeError> {
        self.network(|reply| NetworkCommand::InviteList(network, reply)).await
    }

    /// Takes an invite back, named by its serial or a prefix of it.
    ///
    /// # Errors
    /// No such network or invite, or this node is no admin.
    pub async fn invite_cancel(&self, network: NetRef, serial: String) -> Result<ActReport, NodeError> {
        self.network(|reply| NetworkCommand::InviteCancel(network, serial, reply)).await
    }

    /// Joins the network of a code; gives up after `timeout`.
    ///
    /// # Errors
    /// The code is none, nobody answers, or the network refuses.
    pub async fn join(&self, code: String, name: Option<String>, timeout: Duration) -> Result<JoinReport, NodeError> {
        self.network(|reply| NetworkCommand::Join(code, name, timeout, reply)).await
    }

    /// Lists who waits for an admin's word.
    ///
    /// # Errors
    /// No such network.
    pub async fn join_requests(&self, network: NetRef) -> Result<Vec<PendingReport>, NodeError> {
        self.network(|reply| NetworkCommand::JoinRequests(network, reply)).await
    }

    /// Lets somebody in who waits, by name or PeerID.
    ///
    /// # Errors
    /// No such network, nobody of that name waits, or this node is no admin.
    pub async fn approve(&self, network: NetRef, who: PeerRef) -> Result<ApproveReport, NodeError> {
        self.network(|reply| NetworkCommand::Approve(network, who.0, reply)).await
    }

    /// Turns somebody away who waits, by name or PeerID.
    ///
    /// # Errors
    /// As [`Self::approve`].
    pub async fn deny(&self, network: NetRef, who: PeerRef) -> Result<PendingReport, NodeError> {
        self.network(|reply| NetworkCommand::Deny(network, who.0, reply)).await
    }

    /// Lists the members of a network.
    ///
    /// # Errors
    /// No such network.
    pub async fn members(&self, network: NetRef) -> Result<Vec<MemberReport>, NodeError> {
        self.network(|reply| NetworkCommand::Members(network, reply)).await
    }

    /// Revokes a member and says why; its sessions end here at once, and at every member that hears of it.
    ///
    /// # Errors
    /// No such network or member, or this node is no admin.
    pub async fn revoke(&self, network: NetRef, who: PeerRef, reason: String) -> Result<RevokeReport, NodeError> {
        self.network(|reply| NetworkCommand::Revoke(network, who.0, reason, reply)).await
    }

    /// How the constitution of a network stands.
    ///
    /// # Errors
    /// No such network.
    pub async fn lock_status(&self, network: NetRef) -> Result<LockReport, NodeError> {
        self.network(|reply| NetworkCommand::LockStatus(network, reply)).await
    }

    /// Shows at most `limit` statements of a network, newest first.
    ///
    /// # Errors
    /// No such network.
    pub async fn lock_log(&self, network: NetRef, limit: usize) -> Result<Vec<StatementReport>, NodeError> {
        self.network(|reply| NetworkCommand::LockLog(network, limit, reply)).await
    }

    /// Signs a proposal, named by its id or a prefix of it.
    ///
    /// # Errors
    /// No such network or proposal, or this node is no admin.
    pub async fn lock_sign(&self, network: NetRef, statement: String) -> Result<ActReport, NodeError> {
        self.network(|reply| NetworkCommand::LockSign(network, statement, reply)).await
    }

    /// Signs, beside statements named by their ids or prefixes of them and all that stands on those, that an admin may
    /// sign no more: `who`, else the one that signed them.
    ///
    /// # Errors
    /// No such network or statement, it is not clear who is meant, or this node is no admin beside them.
    pub async fn lock_contest(
        &self,
        network: NetRef,
        statements: Vec<String>,
        who: Option<PeerRef>,
    ) -> Result<ActReport, NodeError> {
        let who = who.map(|who| who.0);
        self.network(|reply| NetworkCommand::LockContest(network, statements, who, reply)).await
    }

    /// Makes a member an admin, or proposes it where several must sign.
    ///
    /// # Errors
    /// No such network or member, or this node is no admin.
    pub async fn admin_add(&self, network: NetRef, who: PeerRef) -> Result<ActReport, NodeError> {
        self.network(|reply| NetworkCommand::AdminAdd(network, who.0, reply)).await
    }

    /// Takes an admin's right to sign away, or proposes it where several must sign.
    ///
    /// # Errors
    /// As [`Self::admin_add`].
    pub async fn admin_remove(&self, network: NetRef, who: PeerRef) -> Result<ActReport, NodeError> {
        self.network(|reply| NetworkCommand::AdminRemove(network, who.0, reply)).await
    }

    /// Disables a network for good by the secret that was shown when it was made.
    ///
    /// # Errors
    /// No such network, or the secret is another one.
    pub async fn lock_disable(&self, network: NetRef, secret: String) -> Result<ActReport, NodeError> {
        self.network(|reply| NetworkCommand::LockDisable(network, secret, reply)).await
    }

    async fn network<T>(&self, command: impl FnOnce(Reply<T>) -> NetworkCommand) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Network(command(reply));
        self.commands.send(command).await.map_err(|_closed| NodeError::Stopped)?;
        Ok(answer.await.map_err(|_dropped| NodeError::Stopped)??)
    }
}

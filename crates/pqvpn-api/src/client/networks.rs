// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests about networks, their members and their lock.

use std::time::Duration;

use super::{Client, PATIENCE};
use crate::{
    error::ApiError,
    model::{
        Act, Approved, CancelRequest, ContestRequest, Denied, DisableRequest, Dns, InviteCreated, InviteRequest,
        Invites, JoinRequest, Joined, Lock, LockLog, LockLogRequest, Members, NetCreateRequest, NetRequest,
        NetworkAnswer, Networks, Requests, RevokeRequest, Revoked, SignRequest, WhoRequest,
    },
};

impl Client {
    /// The networks of the node.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn networks(&self) -> Result<Networks, ApiError> {
        self.get("/networks").await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn net_create(&self, request: &NetCreateRequest) -> Result<NetworkAnswer, ApiError> {
        self.post("/networks", request, PATIENCE).await
    }

    /// Leaves a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn net_leave(&self, request: &NetRequest) -> Result<NetworkAnswer, ApiError> {
        self.post("/networks/leave", request, PATIENCE).await
    }

    /// Carries the traffic of a network again.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn net_up(&self, request: &NetRequest) -> Result<NetworkAnswer, ApiError> {
        self.post("/networks/up", request, PATIENCE).await
    }

    /// Carries no traffic of a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn net_down(&self, request: &NetRequest) -> Result<NetworkAnswer, ApiError> {
        self.post("/networks/down", request, PATIENCE).await
    }

    /// Makes an invite; the answer holds its code.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn invite(&self, request: &InviteRequest) -> Result<InviteCreated, ApiError> {
        self.post("/invites", request, PATIENCE).await
    }

    /// The invites of a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn invites(&self, request: &NetRequest) -> Result<Invites, ApiError> {
        self.post("/invites/list", request, PATIENCE).await
    }

    /// Makes an invite useless.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn invite_cancel(&self, request: &CancelRequest) -> Result<Act, ApiError> {
        self.post("/invites/cancel", request, PATIENCE).await
    }

    /// Joins the network of a code; takes at most as long as the request allows.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, ApiError> {
        let wait = Duration::from_millis(request.timeout_ms);
        self.post("/join", request, wait.saturating_add(PATIENCE)).await
    }

    /// Who waits to be let into a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn requests(&self, request: &NetRequest) -> Result<Requests, ApiError> {
        self.post("/requests", request, PATIENCE).await
    }

    /// Lets in who waits.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn approve(&self, request: &WhoRequest) -> Result<Approved, ApiError> {
        self.post("/requests/approve", request, PATIENCE).await
    }

    /// Turns away who waits.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn deny(&self, request: &WhoRequest) -> Result<Denied, ApiError> {
        self.post("/requests/deny", request, PATIENCE).await
    }

    /// The members of a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn members(&self, request: &NetRequest) -> Result<Members, ApiError> {
        self.post("/members", request, PATIENCE).await
    }

    /// Throws a member out.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<Revoked, ApiError> {
        self.post("/members/revoke", request, PATIENCE).await
    }

    /// Who may sign for a network.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_status(&self, request: &NetRequest) -> Result<Lock, ApiError> {
        self.post("/lock/status", request, PATIENCE).await
    }

    /// What was signed, newest first.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_log(&self, request: &LockLogRequest) -> Result<LockLog, ApiError> {
        self.post("/lock/log", request, PATIENCE).await
    }

    /// Signs what another admin has proposed.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_sign(&self, request: &SignRequest) -> Result<Act, ApiError> {
        self.post("/lock/sign", request, PATIENCE).await
    }

    /// Signs beside statements that took authority away.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_contest(&self, request: &ContestRequest) -> Result<Act, ApiError> {
        self.post("/lock/contest", request, PATIENCE).await
    }

    /// Lets a member sign as well.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_add(&self, request: &WhoRequest) -> Result<Act, ApiError> {
        self.post("/lock/add", request, PATIENCE).await
    }

    /// Lets an admin sign no longer.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_remove(&self, request: &WhoRequest) -> Result<Act, ApiError> {
        self.post("/lock/remove", request, PATIENCE).await
    }

    /// Ends a network for everybody.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn lock_disable(&self, request: &DisableRequest) -> Result<Act, ApiError> {
        self.post("/lock/disable", request, PATIENCE).await
    }

    /// Which names of members are answered, and where.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn dns(&self) -> Result<Dns, ApiError> {
        self.get("/dns").await
    }
}

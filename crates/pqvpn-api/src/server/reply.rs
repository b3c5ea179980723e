// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers and refusals as HTTP: every body is JSON, every failure an [`ApiError`].

mod network;

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use pqvpn_node::{dht::DhtError, handle::NodeError, membership::RotationError};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code};

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// A request body; a body that does not parse is refused with an [`ApiError`].
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(bad_body(&rejection)),
        }
    }
}

fn bad_body(rejection: &JsonRejection) -> ApiError {
    ApiError::new(
        Code::BadRequest,
        "the request was not read",
        rejection.body_text(),
        "send one JSON object with `content-type: application/json`",
    )
}

pub(super) async fn no_such_resource(uri: Uri) -> ApiError {
    ApiError::new(
        Code::NotFound,
        format!("no resource {}", uri.path()),
        "this daemon does not know it",
        "compare `pqvpn version` with the version of the daemon",
    )
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        Code::BadRequest,
        format!("{method} {} did nothing", uri.path()),
        "the resource does not have that method",
        "GET reads, POST changes",
    )
}

pub(super) fn forbidden() -> ApiError {
    ApiError::new(
        Code::Forbidden,
        "the daemon did not listen",
        "this user may not control it",
        format!("run the command as root or join the group `{}`", super::OPERATOR_GROUP),
    )
}

/// Says what did not happen; the node's error says why.
pub fn because(what: &str) -> impl FnOnce(NodeError) -> ApiError {
    let what = what.to_owned();
    move |error| {
        let (code, hint) = code_and_hint(&error);
        ApiError::new(code, what, error.to_string(), hint)
    }
}

fn code_and_hint(error: &NodeError) -> (Code, &'static str) {
    match error {
        NodeError::UnknownPeer(_) => (Code::UnknownPeer, "`pqvpn peers` lists the names"),
        NodeError::AmbiguousPeer(..) => (Code::AmbiguousPeer, "give more digits of the PeerID"),
        NodeError::NoAnswer { .. } => (Code::NoAnswer, "`pqvpn status` shows the path and the last error"),
        NodeError::Refused { .. } => {
            (Code::Refused, "check that each side's config names the other's PeerID (`pqvpn id`)")
        }
        NodeError::Down => (Code::NodeDown, "`pqvpn up`"),
        NodeError::NoSession(_) => (Code::NoSession, "`pqvpn ping` makes a session"),
        NodeError::BadSetting(_) => (Code::BadSetting, "`pqvpn config show` lists the settings"),
        NodeError::Host(_) => (Code::Host, "`pqvpn status` shows the node's health"),
        NodeError::Dht(error) => dht_code_and_hint(error),
        NodeError::Network(error) => network::code_and_hint(error),
        NodeError::Rotation(error) => rotation_code_and_hint(error),
        NodeError::Stopped => (Code::NoDaemon, "`pqvpn up` starts it"),
        _ => (Code::Failed, "the daemon's log says more"),
    }
}

fn rotation_code_and_hint(error: &RotationError) -> (Code, &'static str) {
    match error {
        RotationError::NotKept => (Code::EphemeralKey, "start the daemon without `--ephemeral`"),
        RotationError::OtherKey => (Code::NotAllowed, "start the daemon again, then rotate the key it has then"),
        RotationError::Keystore(error) if error.is_passphrase() => {
            (Code::Passphrase, "give the passphrase of the keystore: `--passphrase-file FILE`, or run in a terminal")
        }
        RotationError::Network(error) => network::code_and_hint(error),
        RotationError::Keystore(_) | RotationError::Store(_) => {
            (Code::Host, "free some space, or check the state directory")
        }
        RotationError::Busy => (Code::Busy, "try again in a second"),
        RotationError::Undecided => {
            (Code::Failed, "check the disk of the state directory, then end the daemon and start it again")
        }
        RotationError::Restart(_) => (Code::Failed, "`pqvpn up` starts the daemon again"),
        RotationError::Signing(_) | _ => (Code::Failed, "the daemon's log says more"),
    }
}

fn dht_code_and_hint(error: &DhtError) -> (Code, &'static str) {
    match error {
        DhtError::Off => (Code::DhtOff, "`pqvpn set dht.enabled true`, then start the daemon again"),
        DhtError::Alone => (Code::DhtAlone, "`pqvpn bootstrap add ENTRY` names a node to start from"),
        DhtError::NoAnswer => (Code::NoAnswer, "`pqvpn bootstrap list` shows which nodes failed, and why"),
        DhtError::Busy => (Code::Busy, "try again in a second"),
        DhtError::BadName { .. } | DhtError::ValueTooLong { .. } => {
            (Code::BadRequest, "shorten it, or keep the value elsewhere and publish where")
        }
        DhtError::BadDoor(_) => (Code::BadRequest, "an entry is `pqvpn://<64 hex digits of the PeerID>@host:port`"),
        DhtError::TooManyValues(_) => (Code::Failed, "publish under a name that is in use already"),
        DhtError::TooManyDoors(_) => (Code::Failed, "`pqvpn bootstrap list` shows them"),
        DhtError::Disk(_) => (Code::Host, "free some space, or check the state directory"),
        DhtError::Signing => (Code::Failed, "the daemon's log says more"),
        _ => (Code::Failed, "`pqvpn dht status` shows how it stands"),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The caller's side of the control API: one connection per request, because the socket is local.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::{
    PREFIX,
    error::{ApiError, Code},
    model::{
        Bootstrap, BootstrapAddRequest, BootstrapAdded, BootstrapRemoveRequest, BootstrapRemoved, DhtFound,
        DhtGetRequest, DhtGot, DhtLookupRequest, DhtPut, DhtPutRequest, DhtStatus, DhtTable, Done, Identity, Metrics,
        NetCheck, PeerRequest, Peers, Ping, PingRequest, Relaying, RotateRequest, Rotated, SetRequest, Setting,
        Started, State, Status, Version,
    },
};

mod networks;

/// Largest answer accepted in bytes: a status with some ten thousand peers.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// How long an answer may take beyond what the request itself asks for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Speaks to the daemon at one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon at `socket`; nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket this client speaks to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Version of the daemon.
    ///
    /// # Errors
    /// As every request: no daemon, not allowed, or the daemon's own typed error.
    pub async fn version(&self) -> Result<Version, ApiError> {
        self.get("/version").await
    }

    /// Identity the daemon runs under.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn identity(&self) -> Result<Identity, ApiError> {
        self.get("/id").await
    }

    /// What the daemon was started with.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn started(&self) -> Result<Started, ApiError> {
        self.get("/started").await
    }

    /// The whole node at this moment.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn status(&self) -> Result<Status, ApiError> {
        self.get("/status").await
    }

    /// Every figure at this moment, for Prometheus.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn metrics(&self) -> Result<Metrics, ApiError> {
        self.get("/metrics").await
    }

    /// Every peer at this moment.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn peers(&self) -> Result<Peers, ApiError> {
        self.get("/peers").await
    }

    /// What the network around the node allows.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn netcheck(&self) -> Result<NetCheck, ApiError> {
        self.get("/netcheck").await
    }

    /// What the node forwards for others.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn relaying(&self) -> Result<Relaying, ApiError> {
        self.get("/relay").await
    }

    /// Brings the interface up.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn up(&self) -> Result<State, ApiError> {
        self.post("/up", &(), PATIENCE).await
    }

    /// Takes the interface down; the daemon stays.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn down(&self) -> Result<State, ApiError> {
        self.post("/down", &(), PATIENCE).await
    }

    /// One in-tunnel round trip.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn ping(&self, peer: &str, wait: Duration) -> Result<Ping, ApiError> {
        let timeout_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.post("/ping", &PingRequest { peer: peer.into(), timeout_ms }, wait.saturating_add(PATIENCE)).await
    }

    /// Applies a setting.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn set(&self, key: &str, value: &str) -> Result<Setting, ApiError> {
        self.post("/set", &SetRequest { key: key.into(), value: value.into() }, PATIENCE).await
    }

    /// Goes on with another key.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn keys_rotate(&self, request: &RotateRequest) -> Result<Rotated, ApiError> {
        self.post("/keys/rotate", request, PATIENCE).await
    }

    /// Steps the ratchet of the peer's session now.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn rekey(&self, peer: &str) -> Result<Done, ApiError> {
        self.post("/rekey", &PeerRequest { peer: peer.into() }, PATIENCE).await
    }

    /// Ends the peer's session.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn disconnect(&self, peer: &str) -> Result<Done, ApiError> {
        self.post("/disconnect", &PeerRequest { peer: peer.into() }, PATIENCE).await
    }

    /// How the node stands in the DHT.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn dht_status(&self) -> Result<DhtStatus, ApiError> {
        self.get("/dht/status").await
    }

    /// The routing table of the DHT.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn dht_table(&self) -> Result<DhtTable, ApiError> {
        self.get("/dht/table").await
    }

    /// Looks for a record.
    ///
    /// # Errors
    /// As [`Client::version`]; that nobody has it is no error.
    pub async fn dht_get(&self, request: &DhtGetRequest) -> Result<DhtGot, ApiError> {
        self.post("/dht/get", request, PATIENCE).await
    }

    /// Publishes a value of this node.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn dht_put(&self, request: &DhtPutRequest) -> Result<DhtPut, ApiError> {
        self.post("/dht/put", request, PATIENCE).await
    }

    /// Looks for the nodes nearest to a point.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn dht_lookup(&self, request: &DhtLookupRequest) -> Result<DhtFound, ApiError> {
        self.post("/dht/lookup", request, PATIENCE).await
    }

    /// The nodes discovery starts from.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn bootstrap(&self) -> Result<Bootstrap, ApiError> {
        self.get("/bootstrap").await
    }

    /// Adds nodes discovery starts from.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn bootstrap_add(&self, request: &BootstrapAddRequest) -> Result<BootstrapAdded, ApiError> {
        self.post("/bootstrap", request, PATIENCE).await
    }

    /// Removes nodes discovery was told to start from.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn bootstrap_remove(&self, request: &BootstrapRemoveRequest) -> Result<BootstrapRemoved, ApiError> {
        self.post("/bootstrap/remove", request, PATIENCE).await
    }

    /// Stops the daemon; answers once the host is as it was before.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn shutdown(&self) -> Result<Done, ApiError> {
        self.post("/shutdown", &(), PATIENCE).await
    }

    async fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<T, ApiError> {
        self.request(Method::GET, resource, Bytes::new(), PATIENCE).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        resource: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.request(Method::POST, resource, body.into(), patience).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        resource: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ApiError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        match timeout(patience, self.exchange(stream, method, resource, body)).await {
            Ok(Err(broken)) if broken.code == Code::Failed && self.is_deserted().await => Err(ApiError::new(
                Code::NoDaemon,
                "no daemon answers",
                format!("the daemon at {} ended before it answered", self.socket.display()),
                "`pqvpn up` starts one",
            )),
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.broken(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    /// Whether nobody listens there any more.
    async fn is_deserted(&self) -> bool {
        let gone = UnixStream::connect(&self.socket).await.err();
        gone.is_some_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        stream: UnixStream,
        method: Method,
        resource: &str,
        body: Bytes,
    ) -> Result<T, ApiError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{resource}"))
            .header(header::HOST, "pqvpn")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| self.broken(error))?;
            // The sender ends here, and with it the connection below.
            drop(sender);
            Ok::<_, ApiError>((head.status, body.to_bytes()))
        };
        let (answer, _closed) = tokio::join!(answer, connection);
        let (status, body) = answer?;
        if status.is_success() {
            serde_json::from_slice(&body).map_err(|error| self.broken(error))
        } else {
            Err(serde_json::from_slice(&body).unwrap_or_else(|_| self.broken(format!("HTTP status {status}"))))
        }
    }

    /// The socket cannot be connected to.
    fn unreachable(&self, error: &io::Error) -> ApiError {
        let socket = self.socket.display();
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of IO errors are endless")]
        match error.kind() {
            io::ErrorKind::PermissionDenied => ApiError::new(
                Code::Forbidden,
                format!("not allowed to open {socket}"),
                error.to_string(),
                "run the command as root or join the group `pqvpn`",
            ),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ApiError::new(
                Code::NoDaemon,
                "no daemon answers",
                format!("nobody listens at {socket}"),
                "`pqvpn up` starts one; `--socket PATH` names another",
            ),
            _ => ApiError::new(
                Code::NoDaemon,
                "no daemon answers",
                format!("{socket}: {error}"),
                "check the path given by `--socket` or PQVPN_SOCKET",
            ),
        }
    }

    /// Somebody listens, but does not speak this protocol to the end.
    fn broken(&self, cause: impl std::fmt::Display) -> ApiError {
        ApiError::new(
            Code::Failed,
            format!("the daemon at {} gave no usable answer", self.socket.display()),
            cause.to_string(),
            "compare `pqvpn version` with the daemon's version, or restart the daemon",
        )
    }
}

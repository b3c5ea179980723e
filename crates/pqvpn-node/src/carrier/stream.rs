// SPDX-License-Identifier: MIT OR Apache-2.0
//! One WebSocket in use: what waits goes out, what comes in is handed to the data plane.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use pqvpn_dataplane::way::WayId;
use pqvpn_wire::carrier::{self as frame, MAX_MESSAGE, Malformed};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::{Plane, queue::Sink};

/// A peer that takes nothing for so long is not there, or wants us to hold memory for it.
const SLOW: Duration = Duration::from_secs(10);
/// A peer that says nothing for so long is gone: its end asks more often than that.
const SILENT: Duration = Duration::from_secs(50);
/// How often the dialling end shows that it is there, and keeps what is in between from forgetting it.
const PING: Duration = Duration::from_secs(15);

/// Why a stream has ended.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("the other end closed it")]
    Closed,
    #[error("the other end says nothing")]
    Silent,
    #[error("the other end takes nothing")]
    Slow,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a message that carries no datagrams")]
    Foreign,
    #[error(transparent)]
    WebSocket(Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for StreamError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

/// Bounds of what is read and buffered.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Carries until one end fails. `dialled`: whether it is ours to show that we are there.
pub(super) async fn carry<S>(
    stream: WebSocketStream<S>,
    way: WayId,
    sink: &Sink,
    plane: &Arc<dyn Plane>,
    dialled: bool,
) -> StreamError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut out, mut inward) = stream.split();
    let send = async {
        let mut ping = interval_at(Instant::now() + PING, PING);
        loop {
            let message = tokio::select! {
                batch = sink.next() => Message::Binary(batch.into()),
                _ = ping.tick(), if dialled => Message::Ping(Vec::new().into()),
            };
            match timeout(SLOW, out.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_elapsed) => return StreamError::Slow,
            }
        }
    };
    let receive = async {
        loop {
            let Ok(next) = timeout(SILENT, inward.next()).await else { return StreamError::Silent };
            match next {
                None | Some(Ok(Message::Close(_))) => return StreamError::Closed,
                Some(Ok(Message::Binary(message))) => match frame::parse(&message) {
                    Ok(datagrams) => {
                        // What finds no room is counted by the data plane.
                        plane.inject(way, &datagrams);
                    }
                    Err(malformed) => return malformed.into(),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => return StreamError::Foreign,
                Some(Err(error)) => return error.into(),
            }
        }
    };
    tokio::select! {
        error = send => error,
        error = receive => error,
    }
}

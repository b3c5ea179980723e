// SPDX-License-Identifier: MIT OR Apache-2.0
//! One WebSocket in use: what waits goes out, what comes in is handed to the data plane.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use pqvpn_dataplane::way::WayId;
use pqvpn_wire::carrier::{self as frame, MAX_MESSAGE, Malformed};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::yield_now,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::{Plane, queue::Sink};

/// A peer that takes nothing for so long is not there, or wants us to hold memory for it.
const SLOW: Duration = Duration::from_secs(10);
/// A peer that says nothing for so long is gone: its end asks more often than that.
pub(super) const SILENT: Duration = Duration::from_secs(50);
/// How often the dialling end shows that it is there, and keeps what is in between from forgetting it.
const PING: Duration = Duration::from_secs(15);

/// Where nothing comes so long after something was sent, the other end is asked whether it is there.
const ASK: Duration = Duration::from_secs(1);
/// And where nothing has come so long after that, what is sent goes nowhere: a TCP connection would not tell for minutes, and
/// a proxy never.
const NOWHERE: Duration = Duration::from_secs(5);

/// Why a stream has ended.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("the other end closed it")]
    Closed,
    #[error("the other end says nothing")]
    Silent,
    #[error("what is sent gets nowhere")]
    Nowhere,
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

/// Whether what is sent arrives, as far as the dialling end can tell: datagrams are not answered by the carrier.
#[derive(Debug, Default)]
pub(super) struct Signs(Mutex<Unanswered>);

/// Since the other end was last heard.
#[derive(Debug, Default)]
struct Unanswered {
    /// When something was first sent.
    sent: Option<Instant>,
    /// When it was first asked.
    asked: Option<Instant>,
    /// How often it was heard before.
    heard: u64,
    /// And when it was.
    heard_at: Option<Instant>,
}

/// What silence asks for.
enum Due {
    Ask,
    End,
}

impl Signs {
    fn on_sent(&self) {
        self.with(|unanswered| unanswered.sent = unanswered.sent.or_else(|| Some(Instant::now())));
    }

    /// It was asked, and had been heard so often when that began: the answer may have been quicker than we.
    fn on_asked(&self, heard: u64) {
        self.with(|unanswered| {
            if unanswered.heard == heard {
                unanswered.asked = unanswered.asked.or_else(|| Some(Instant::now()));
            }
        });
    }

    fn on_heard(&self) {
        self.with(|unanswered| {
            let (heard, heard_at) = (unanswered.heard + 1, Some(Instant::now()));
            *unanswered = Unanswered { heard, heard_at, ..Unanswered::default() };
        });
    }

    fn heard(&self) -> u64 {
        self.with(|unanswered| unanswered.heard)
    }

    /// When the other end was last heard, if it ever was.
    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.with(|unanswered| unanswered.heard_at)
    }

    /// What is due, when it is: asked again after each message that was sent. Cancel-safe.
    async fn due(&self) -> Due {
        while let Some((at, due)) = self.next() {
            if at <= Instant::now() {
                return due;
            }
            sleep_until(at).await;
        }
        pending().await
    }

    fn next(&self) -> Option<(Instant, Due)> {
        self.with(|unanswered| match *unanswered {
            Unanswered { sent: None, .. } => None,
            Unanswered { sent: Some(sent), asked: None, .. } => Some((sent + ASK, Due::Ask)),
            // The question may be older than what was sent.
            Unanswered { sent: Some(sent), asked: Some(asked), .. } => Some((asked.max(sent) + NOWHERE, Due::End)),
        })
    }

    /// Whether the end is due also when what came meanwhile is read: this process may have stood still.
    async fn is_over(&self) -> bool {
        // One turn for the sockets to be looked at, and one for what is in them.
        yield_now().await;
        yield_now().await;
        matches!(self.next(), Some((at, Due::End)) if at <= Instant::now())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Unanswered) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Carries until one end fails. `dialled`: it is ours to show that we are there, and to see whether the other end is.
pub(super) async fn carry<S>(
    stream: WebSocketStream<S>,
    way: WayId,
    sink: &Sink,
    plane: &Arc<dyn Plane>,
    dialled: Option<&Signs>,
) -> StreamError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut out, mut inward) = stream.split();
    let accepted = Signs::default();
    let (signs, dialled) = (dialled.unwrap_or(&accepted), dialled.is_some());
    let send = async {
        let mut ping = interval_at(Instant::now() + PING, PING);
        loop {
            let message = tokio::select! {
                batch = sink.next() => Message::Binary(batch.into()),
                _ = ping.tick(), if dialled => Message::Ping(Vec::new().into()),
                due = signs.due(), if dialled => match due {
                    Due::Ask => Message::Ping(Vec::new().into()),
                    Due::End if signs.is_over().await => return StreamError::Nowhere,
                    Due::End => continue,
                },
            };
            let (is_question, heard) = (message.is_ping(), signs.heard());
            match timeout(SLOW, out.send(message)).await {
                Ok(Ok(())) if is_question => signs.on_asked(heard),
                Ok(Ok(())) => signs.on_sent(),
                Ok(Err(error)) => return error.into(),
                Err(_elapsed) => return StreamError::Slow,
            }
            // What was sent shows it too.
            ping.reset();
        }
    };
    let receive = async {
        loop {
            let Ok(next) = timeout(SILENT, inward.next()).await else { return StreamError::Silent };
            if matches!(next, Some(Ok(_))) {
                signs.on_heard();
            }
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

#[cfg(test)]
mod tests {
    use pqvpn_dataplane::way::CarrierSink as _;
    use tokio::{
        io::{DuplexStream, duplex},
        time::sleep,
    };
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::{super::fake::FakePlane, *};

    /// What happens at the other end of a stream that carries `sent` datagrams, one each so often; when it ended, why, and
    /// the questions that were asked.
    async fn carried<F: Future<Output = u32>>(
        (sent, every): (u32, Duration),
        other: impl FnOnce(WebSocketStream<DuplexStream>) -> F,
    ) -> (Duration, Option<StreamError>, u32) {
        let (ours, theirs) = duplex(1 << 20);
        let ours = WebSocketStream::from_raw_socket(ours, Role::Client, Some(config())).await;
        let theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, Some(config())).await;
        let (sink, plane, start) = (Arc::new(Sink::default()), FakePlane::default(), Instant::now());
        let plane: Arc<dyn Plane> = Arc::new(plane);
        let filling = async {
            for _ in 0..sent {
                sink.send(b"a datagram that somebody may read");
                sleep(every).await;
            }
            None
        };
        let carrying = async { Some(carry(ours, WayId(1 << 63), &sink, &plane, Some(&Signs::default())).await) };
        let both = async {
            tokio::select! {
                ended = carrying => (start.elapsed(), ended),
                ended = filling => (start.elapsed(), ended),
            }
        };
        let ((took, ended), asked) = tokio::join!(both, other(theirs));
        (took, ended, asked)
    }

    async fn answers(mut stream: WebSocketStream<DuplexStream>) -> u32 {
        let mut asked = 0;
        while let Some(Ok(message)) = stream.next().await {
            asked += u32::from(message.is_ping());
        }
        asked
    }

    /// Takes bytes, and says nothing.
    async fn swallows(stream: WebSocketStream<DuplexStream>) -> u32 {
        let mut inner = stream.into_inner();
        drop(tokio::io::copy(&mut inner, &mut tokio::io::sink()).await);
        0
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_into_nowhere_ends_the_stream_soon() {
        let (took, ended, _) = carried((100, SECOND / 5), swallows).await;
        assert!(matches!(ended, Some(StreamError::Nowhere)), "{ended:?}");
        assert_eq!(took.as_secs(), 6);
        let (took, ended, _) = carried((1, SECOND * 60), swallows).await;
        assert!(matches!(ended, Some(StreamError::Nowhere)) && took.as_secs() == 6, "one datagram is enough: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_only_takes_is_asked_now_and_then_and_one_that_rests_no_more_than_before() {
        let (_, ended, asked) = carried((600, SECOND / 5), answers).await;
        assert!(ended.is_none(), "{ended:?}");
        assert!((60..=120).contains(&asked), "each second of two minutes at most: {asked}");
        let (_, ended, asked) = carried((1, SECOND * 125), answers).await;
        assert!(ended.is_none(), "{ended:?}");
        assert_eq!(asked, 8 + 1, "every 15 s, and once for the datagram");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_to_be_read_is_one() {
        let signs = Signs::default();
        signs.on_sent();
        signs.on_asked(0);
        tokio::time::advance(SECOND * 4).await;
        assert!(!signs.is_over().await);
        tokio::time::advance(SECOND * 60).await;
        let (is_over, ()) = tokio::join!(signs.is_over(), async { signs.on_heard() });
        assert!(!is_over, "this process stood still");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_quicker_than_we_answers_the_question() {
        let signs = Signs::default();
        signs.on_sent();
        // It is heard between the question and our note that it was asked.
        let heard = signs.heard();
        signs.on_heard();
        signs.on_asked(heard);
        signs.on_sent();
        assert!(matches!(signs.next(), Some((_, Due::Ask))), "it is asked anew before it is given up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_from_before_it_was_sent_is_not_held_against_it() {
        let (signs, start) = (Signs::default(), Instant::now());
        signs.on_asked(0);
        tokio::time::advance(SECOND * 4).await;
        signs.on_sent();
        assert!(matches!(signs.due().await, Due::End));
        assert_eq!(start.elapsed(), SECOND * 4 + NOWHERE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_talks_is_not_asked() {
        let talks = |mut stream: WebSocketStream<DuplexStream>| async move {
            let mut asked = 0;
            while let Some(Ok(message)) = stream.next().await {
                asked += u32::from(message.is_ping());
                let mut batch = Vec::new();
                frame::append(&mut batch, b"a datagram that answers one");
                let _gone = stream.send(Message::Binary(batch.into())).await;
            }
            asked
        };
        let (_, ended, asked) = carried((620, SECOND / 5), talks).await;
        assert!(ended.is_none(), "{ended:?}");
        assert_eq!(asked, 0, "what is sent shows that we are there");
    }
}

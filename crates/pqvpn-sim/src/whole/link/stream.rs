// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control streams of a link of the world.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use pqvpn_node::link::{ControlRecv, ControlSend};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, sleep_until},
};

use super::{AGAIN, Core, STREAM_QUEUE, lock, now};

/// One direction of a stream.
pub(super) struct Pipe {
    pub(super) core: Weak<Core>,
    /// Who writes.
    pub(super) end: usize,
    pub(super) state: Mutex<PipeState>,
}

#[derive(Default)]
pub(super) struct PipeState {
    /// What is on its way, with the time when it arrives; an empty piece ends the stream. None: it did not pass yet.
    pieces: VecDeque<(Option<Instant>, Vec<u8>)>,
    writer_gone: bool,
    pub(super) reader: Option<Waker>,
    resending: bool,
}

pub(super) struct Writer {
    pub(super) pipe: Arc<Pipe>,
    /// The other end's half of the stream, until the first byte.
    pub(super) opens: Option<(ControlSend, ControlRecv)>,
}

impl Writer {
    fn push(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let Some(core) = self.pipe.core.upgrade() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if lock(&core.state).closed[self.pipe.end].is_some() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(stream) = self.opens.take() {
            let mut state = lock(&core.state);
            let waiting = &mut state.waiting[1 - self.pipe.end];
            if waiting.len() < STREAM_QUEUE {
                waiting.push_back(stream);
            }
        }
        let blocked = lock(&self.pipe.state).pieces.back().is_some_and(|(at, _)| at.is_none());
        let at = if blocked { None } else { core.passes(self.pipe.end) };
        let mut state = lock(&self.pipe.state);
        state.pieces.push_back((at, bytes));
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        let resend = at.is_none() && !state.resending;
        state.resending |= resend;
        drop(state);
        core.changed.notify_waiters();
        if resend {
            tokio::spawn(resend_until_it_passes(Arc::downgrade(&self.pipe)));
        }
        Ok(())
    }
}

/// Sends what did not pass again and again, as long as somebody reads and the link is there.
async fn resend_until_it_passes(pipe: Weak<Pipe>) {
    let mut wait = AGAIN.0;
    loop {
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
        let Some((pipe, core)) = pipe.upgrade().and_then(|pipe| Some((Arc::clone(&pipe), pipe.core.upgrade()?))) else {
            return;
        };
        if lock(&core.state).closed[pipe.end].is_some() {
            return;
        }
        let Some(at) = core.passes(pipe.end) else { continue };
        let mut state = lock(&pipe.state);
        state.pieces.iter_mut().filter(|(at, _)| at.is_none()).for_each(|(arrives, _)| *arrives = Some(at));
        state.resending = false;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        return;
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(self.push(bytes.to_vec()).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.push(Vec::new()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = lock(&self.pipe.state);
        state.writer_gone = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

pub(super) struct Reader {
    pipe: Arc<Pipe>,
    end: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Reader {
    pub(super) const fn new(pipe: Arc<Pipe>, end: usize) -> Self {
        Self { pipe, end, sleep: None, ended: false }
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let pipe = Arc::clone(&self.pipe);
        loop {
            let mut state = lock(&pipe.state);
            state.reader = Some(cx.waker().clone());
            let arrives = match state.pieces.front_mut() {
                Some((Some(at), bytes)) if *at <= now() => {
                    if bytes.is_empty() {
                        drop(state);
                        self.ended = true;
                        return Poll::Ready(Ok(()));
                    }
                    let count = bytes.len().min(buf.remaining());
                    let rest = bytes.split_off(count);
                    buf.put_slice(bytes);
                    *bytes = rest;
                    if bytes.is_empty() {
                        state.pieces.pop_front();
                    }
                    return Poll::Ready(Ok(()));
                }
                Some((at, _)) => *at,
                None => None,
            };
            let gone = state.writer_gone && state.pieces.is_empty();
            drop(state);
            let core = pipe.core.upgrade();
            let closed = core.as_ref().is_none_or(|core| lock(&core.state).closed[self.end].is_some());
            if closed || gone {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let Some(at) = arrives else { return Poll::Pending };
            let mut sleep = Box::pin(sleep_until(at.into()));
            if sleep.as_mut().poll(cx).is_pending() {
                self.sleep = Some(sleep);
                return Poll::Pending;
            }
        }
    }
}

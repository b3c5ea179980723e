// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the data plane does with a path, compared with what was told of it: events may be lost.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Paths;

/// So long a move may be on its way here: a session that comes up moves the path before anybody is told of it.
const MOVE_TAKES: Duration = Duration::from_secs(2);

impl Paths {
    /// Where packets go, as far as is known here.
    pub(crate) const fn current(&self) -> Option<SocketAddr> {
        self.current
    }

    /// Where the data plane sends at this moment. Gives where packets went before, when nobody has told of the move for so
    /// long that nobody will; nothing of it is taken over here.
    pub(crate) fn on_seen(&mut self, now: Instant, path: SocketAddr) -> Option<SocketAddr> {
        let known = self.current.filter(|known| *known != path);
        let since = self.stray.filter(|(stray, _)| *stray == path).map_or(now, |(_, since)| since);
        self.stray = known.map(|_| (path, since));
        known.filter(|_| now.saturating_duration_since(since) >= MOVE_TAKES)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What relaying asks of the data plane.

use pqvpn_dataplane::way::{Forward, ForwardStats, Way, WayError, WayId};

/// The data plane as relaying needs it.
pub(crate) trait Forwarder: Send + Sync {
    /// Sends and receives a way of ours.
    ///
    /// # Errors
    /// [`WayError`].
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError>;
    /// Ends a way.
    fn remove_way(&self, id: WayId);
    /// Forwards what comes on a channel.
    ///
    /// # Errors
    /// [`WayError`].
    fn set_forward(&self, channel: u64, forward: Forward) -> Result<(), WayError>;
    /// Ends that.
    fn remove_forward(&self, channel: u64);
    /// What went through it.
    fn forward_stats(&self, channel: u64) -> Option<ForwardStats>;
}

impl Forwarder for pqvpn_dataplane::Control {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        Self::set_way(self, id, way)
    }

    fn remove_way(&self, id: WayId) {
        Self::remove_way(self, id);
    }

    fn set_forward(&self, channel: u64, forward: Forward) -> Result<(), WayError> {
        Self::set_forward(self, channel, forward)
    }

    fn remove_forward(&self, channel: u64) {
        Self::remove_forward(self, channel);
    }

    fn forward_stats(&self, channel: u64) -> Option<ForwardStats> {
        Self::forward_stats(self, channel)
    }
}

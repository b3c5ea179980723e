// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that was killed and started again: its peers learn at their next packet that their links are gone.

use std::time::Duration;

use pqvpn_node::link::{Backend, Connection, LinkError};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::pair::{Admits, Pair, Party, RTT, SERVER};

/// Says something on a link whose other end has another life or another owner by now; how the link ends, if it does soon.
async fn said_after(pair: &Pair, again: &Party) -> Option<LinkError> {
    let (dialed, accepted) = pair.linked().await;
    // From here on another endpoint has the address; the first one is not told, and cannot say anything any more.
    let second = Backend::Noq.endpoint(pair.wire.socket(SERVER), again.config()).unwrap();
    let ended = timeout(RTT * 2, say(&*dialed)).await.ok();
    drop((accepted, second));
    ended
}

async fn say(link: &dyn Connection) -> LinkError {
    match link.open_control().await {
        Ok((mut send, _recv)) => {
            if send.write_all(&[7; 100]).await.is_err() {
                return link.closed().await;
            }
            link.closed().await
        }
        Err(error) => error,
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_started_again_resets_the_links_of_its_earlier_life_at_once() {
    let pair = Pair::new(Backend::Noq);
    assert_eq!(said_after(&pair, &pair.listener).await, Some(LinkError::Reset));
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_reset_a_link() {
    let pair = Pair::with(Backend::Noq, Admits::Everybody, Admits::Everybody, |config| {
        config.idle_timeout = Some(Duration::from_secs(60));
    });
    assert_eq!(said_after(&pair, &Party::new(Admits::Everybody)).await, None);
}

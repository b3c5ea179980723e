// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket under any bytes, in front of a node that has stopped: whatever is asked, every answer is HTTP, and every
//! failure an [`ApiError`](crate::error::ApiError).

use std::cell::OnceCell;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::handle::NodeHandle;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use super::Service;
use crate::{error::ApiError, model};

/// More than one connection holds of what it is sent.
const ROOM: usize = 1 << 20;

thread_local! {
    static RIG: OnceCell<(Runtime, Router)> = const { OnceCell::new() };
}

/// Serves one connection on which a caller sends `data` and no more.
///
/// # Panics
/// When what is answered is none.
pub fn control_socket(data: &[u8]) {
    RIG.with(|rig| {
        let (runtime, router) = rig.get_or_init(make);
        runtime.block_on(one_connection(router.clone(), data));
    });
}

fn make() -> (Runtime, Router) {
    let identity = model::Identity {
        schema: 1,
        peer_id: PeerId::from_bytes([7; 32]).to_string(),
        name: "laptop".into(),
        addresses: vec![],
        fingerprint: "ab".into(),
        state_dir: None,
    };
    let (commands, _nobody) = mpsc::channel(1);
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    (runtime, Service::new(NodeHandle::new(commands), identity).router())
}

async fn one_connection(router: Router, data: &[u8]) {
    let (mut caller, served) = duplex(ROOM);
    let sent = async move {
        // The server hangs up on what it does not understand.
        let _sent = caller.write_all(data).await;
        let _ended = caller.shutdown().await;
        let mut answer = Vec::new();
        let _cut_off = caller.read_to_end(&mut answer).await;
        answer
    };
    let connection = http1::Builder::new().serve_connection(TokioIo::new(served), TowerToHyperService::new(router));
    let (answer, _ended) = tokio::join!(sent, connection);
    if !answer.is_empty() {
        is_answer(&answer);
    }
}

/// The first of the answers: one that failed in a resource says why.
fn is_answer(answer: &[u8]) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the head of an answer ends");
    let head = str::from_utf8(&answer[..end]).expect("a head is text").to_ascii_lowercase();
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let body = length.and_then(|length| answer.get(end + 4..end + 4 + length)).unwrap_or_default();
    if status >= 400 && head.contains("application/json") && !body.is_empty() {
        serde_json::from_slice::<ApiError>(body).expect("a failure says why");
    }
    assert!(status < 500 || status == 503 || !body.is_empty(), "{head}");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_is_harmless() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/control_socket");
        for file in fs::read_dir(folder).expect("the target has a corpus") {
            super::control_socket(&fs::read(file.unwrap().path()).unwrap());
        }
        super::control_socket(&[]);
    }
}

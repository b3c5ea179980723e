// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes: no panic, and what is read of them is all there was. Shared with the fuzz targets.

use pqvpn_wire::carrier::{MAX_ANSWER, ProxyAnswer, append, parse};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 2] = [("carrier_message", message), ("proxy_answer", answer)];

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

fn message(data: &[u8]) {
    if let Ok(datagrams) = parse(data) {
        let mut again = Vec::new();
        datagrams.iter().for_each(|datagram| assert!(append(&mut again, datagram)));
        assert_eq!(again, data);
    }
}

fn answer(data: &[u8]) {
    let mut answer = ProxyAnswer::default();
    for (read, byte) in data.iter().enumerate() {
        match answer.push(*byte) {
            Ok(None) => assert!(read < MAX_ANSWER),
            Ok(Some(status)) => {
                assert!(status <= 999 && data[..=read].ends_with(b"\r\n\r\n"));
                return;
            }
            Err(_none_of_a_proxy) => return,
        }
    }
}

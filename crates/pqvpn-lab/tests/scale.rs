// SPDX-License-Identifier: MIT OR Apache-2.0
//! One daemon with many peers: all have sessions, and all are back after it was killed.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod lab_support;

#[test]
fn every_peer_is_up_and_back_after_a_kill() {
    let swarm = std::path::Path::new(env!("CARGO_BIN_EXE_pqvpn-lab")).with_file_name("examples/swarm");
    let swarm = swarm.to_str().unwrap();
    let Some((_, report)) = lab_support::run(&["scale", "--peers", "20", "--quick"], &[swarm]) else { return };
    let figures = &report["figures"];
    for figure in ["start_verified", "idle_sessions", "restart_verified"] {
        assert_eq!(figures[figure], 20, "{figure}: {report}");
    }
    // What it costs is told by optimised builds.
    assert!(figures["all_gbit_s"].as_f64().unwrap() > 0.0, "{report}");
    assert!(figures["restart_last_s"].as_f64().unwrap() <= 10.0, "{report}");
}

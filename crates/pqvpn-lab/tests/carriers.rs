// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members in networks that let no UDP out, with real daemons: they meet by the carriers, in time, and leave them again.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod lab_support;

#[test]
fn members_meet_where_no_udp_gets_out_and_go_back_to_it() {
    let run = lab_support::run(&["ladder", "--only", "carriers", "--repeat", "2"], &[]);
    let Some((_throughput_is_for_quiet_machines, report)) = run else { return };
    for rung in ["tcp_443", "udp_443", "proxy"] {
        let figure = |what: &str| report["figures"][format!("{rung}_{what}")].as_f64().unwrap();
        assert_eq!(report["figures"][format!("{rung}_connected")], 2, "{report}");
        assert!(figure("connected_max_s") < 5.0 && figure("back_s") < 60.0, "{report}");
    }
}

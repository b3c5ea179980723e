// SPDX-License-Identifier: MIT OR Apache-2.0
//! One cell of the NAT matrix with real daemons: the lab finds a direct path where there is one, and says so where not.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod lab_support;

fn run(arguments: &[&str]) -> Option<(Option<i32>, serde_json::Value)> {
    lab_support::run(&[&["nat-matrix", "--seed", "5"], arguments].concat(), &[])
}

#[test]
fn a_forwarded_port_is_a_direct_path() {
    let Some((code, report)) = run(&["--nat", "home,full-cone", "--pinned"]) else { return };
    assert_eq!(code, Some(0), "{report}");
    let row = &report["rows"][0];
    assert_eq!((&row["from"], &row["to"]), (&"home".into(), &"full-cone".into()), "{report}");
    assert_eq!((&row["n"], &row["direct"], &row["relay"], &row["fail"]), (&1.into(), &1.into(), &0.into(), &0.into()));
    assert!(row["first_p50_s"].as_f64().unwrap() > 0.0 && row["direct_p50_s"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn every_meeting_is_counted_once_whatever_came_of_it() {
    // No direct path can be expected here, however well the daemons punch.
    let Some((code, report)) = run(&["--nat", "symmetric,symmetric", "--window", "2"]) else { return };
    let row = &report["rows"][0];
    let count = |name: &str| row[name].as_u64().unwrap();
    assert_eq!(row["expected"], "relay");
    assert_eq!(count("direct"), 0, "{report}");
    assert_eq!(count("relay") + count("fail"), 1, "{report}");
    assert_eq!(code, Some(i32::from(count("fail") == 1)), "{report}");
    assert_eq!(report["figures"]["fail"], count("fail"));
}

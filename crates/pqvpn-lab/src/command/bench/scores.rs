// SPDX-License-Identifier: MIT OR Apache-2.0
//! What everybody showed, round by round, and the bars it is held against.

use std::collections::BTreeMap;

use pqvpn_lab::report::{Op, Report};

use super::contender::RAW;
use super::figures::Series;
use super::mode::Mode;
use super::turn::Values;
use super::{RIVAL, ceiling, ours};

/// All series, by mode, measure and contender.
#[derive(Debug, Default)]
pub(super) struct Scores(BTreeMap<(Mode, String, &'static str), Series>);

impl Scores {
    /// Takes what a contender showed in a round, counted from 0.
    pub(super) fn add(&mut self, mode: Mode, contender: &'static str, round: usize, values: Values) {
        for (measure, value) in values {
            self.0.entry((mode, measure, contender)).or_default().set(round, value);
        }
    }

    fn series(&self, mode: Mode, measure: &str, contender: &'static str) -> Series {
        self.0.get(&(mode, measure.to_owned(), contender)).cloned().unwrap_or_default()
    }

    /// A row per mode, measure and contender, with the ratio of our tunnel (AES-256-GCM) to it, round by round.
    pub(super) fn rows(&self, report: &mut Report) {
        for ((mode, measure, contender), series) in &self.0 {
            let ours = self.series(*mode, measure, ours::AES).ratio(series);
            report.row([
                ("mode", mode.name().into()),
                ("measure", measure.as_str().into()),
                ("tunnel", (*contender).into()),
                ("median", series.median()),
                ("min", series.min()),
                ("max", series.max()),
                ("ours_to_it", ours.median()),
                ("ours_to_it_min", ours.min()),
                ("ours_to_it_max", ours.max()),
            ]);
        }
    }

    /// The bars of what was measured in `modes`; one whose figure is missing is missed.
    pub(super) fn bars(&self, report: &mut Report, modes: &[Mode]) {
        for bar in BARS.iter().filter(|bar| modes.contains(&bar.mode)) {
            let name = bar.name();
            let figure = self.figure(bar);
            if !figure.median().is_null() {
                report.figure(&name, figure.median());
                report.figure(&format!("{name}_min"), figure.min());
                report.figure(&format!("{name}_max"), figure.max());
            }
            report.bar(&name, bar.op, bar.value);
        }
    }

    fn figure(&self, bar: &Bar) -> Series {
        let own = self.series(bar.mode, bar.measure, bar.of);
        match bar.against {
            Against::Nothing => own,
            Against::Ratio(other) => own.ratio(&self.series(bar.mode, bar.measure, other)),
            Against::Difference(other) => own.difference(&self.series(bar.mode, bar.measure, other)),
        }
    }
}

/// What a measure is set in relation to, in the same round.
#[derive(Debug, Clone, Copy)]
enum Against {
    Nothing,
    Ratio(&'static str),
    Difference(&'static str),
}

#[derive(Debug)]
struct Bar {
    mode: Mode,
    measure: &'static str,
    of: &'static str,
    against: Against,
    op: Op,
    value: f64,
}

impl Bar {
    const fn new(mode: Mode, of: &'static str, measure: &'static str, against: Against, op: Op, value: f64) -> Self {
        Self { mode, measure, of, against, op, value }
    }

    fn name(&self) -> String {
        let (of, mode) = (self.of.replace('-', "_"), self.mode.name());
        let relation = match self.against {
            Against::Nothing => String::new(),
            Against::Ratio(other) => format!("_to_{other}"),
            Against::Difference(other) => format!("_less_{other}"),
        };
        format!("{mode}_{of}_{}{relation}", self.measure)
    }
}

/// What our tunnel has to reach on a quiet machine with two cores for everything (docs/performance.md).
const BARS: [Bar; 26] = {
    use Against::{Difference, Nothing, Ratio};
    use Mode::{Default, Gro, Off};
    use Op::{AtLeast, AtMost};
    use ours::{AES, CHACHA};
    [
        Bar::new(Default, AES, "tcp1_gbit_s", Nothing, AtLeast, 7.5),
        Bar::new(Default, AES, "tcp1_gbit_s", Ratio(RIVAL), AtLeast, 12.0),
        Bar::new(Gro, AES, "tcp1_gbit_s", Ratio(RAW), AtLeast, 0.47),
        Bar::new(Off, AES, "tcp1_gbit_s", Ratio(RAW), AtLeast, 0.50),
        Bar::new(Default, AES, "tcp4_gbit_s", Nothing, AtLeast, 8.5),
        Bar::new(Default, CHACHA, "tcp1_gbit_s", Nothing, AtLeast, 5.6),
        Bar::new(Default, CHACHA, "tcp1_gbit_s", Ratio(RIVAL), AtLeast, 9.0),
        Bar::new(Gro, CHACHA, "tcp1_gbit_s", Ratio(RAW), AtLeast, 0.40),
        Bar::new(Off, CHACHA, "tcp1_gbit_s", Ratio(RAW), AtLeast, 0.35),
        Bar::new(Gro, AES, "tcp4_gbit_s", Ratio(RAW), AtLeast, 0.47),
        Bar::new(Off, AES, "tcp4_gbit_s", Ratio(RAW), AtLeast, 0.45),
        Bar::new(Default, AES, "tcp1_gbit_s", Ratio(ceiling::NAME), AtLeast, 0.75),
        Bar::new(Gro, AES, "tcp1_gbit_s", Ratio(ceiling::NAME), AtLeast, 0.75),
        Bar::new(Off, AES, "tcp1_gbit_s", Ratio(ceiling::NAME), AtLeast, 0.75),
        Bar::new(Default, AES, "tcp_cpu_s_per_gb", Nothing, AtMost, 1.6),
        Bar::new(Default, AES, "udp500_cpu_s_per_gb", Nothing, AtMost, 4.5),
        Bar::new(Default, AES, "idle_rtt_avg_ms", Nothing, AtMost, 0.15),
        Bar::new(Default, AES, "idle_rtt_p99_ms", Nothing, AtMost, 0.30),
        Bar::new(Default, AES, "loaded_rtt_avg_ms", Nothing, AtMost, 1.0),
        Bar::new(Default, AES, "loaded_rtt_max_ms", Nothing, AtMost, 3.0),
        Bar::new(Default, AES, "udp500_lost_percent", Difference(RAW), AtMost, 0.05),
        Bar::new(Default, AES, "udp1000_lost_percent", Difference(RAW), AtMost, 0.2),
        Bar::new(Default, AES, "rss_mb", Nothing, AtMost, 30.0),
        Bar::new(Default, CHACHA, "idle_rtt_avg_ms", Nothing, AtMost, 0.15),
        Bar::new(Default, CHACHA, "idle_rtt_p99_ms", Nothing, AtMost, 0.30),
        Bar::new(Default, CHACHA, "rss_mb", Nothing, AtMost, 30.0),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn values(measure: &str, value: f64) -> Values {
        Values::from([(measure.to_owned(), value)])
    }

    fn json(scores: &Scores, modes: &[Mode]) -> Value {
        let mut report = Report::new("bench");
        scores.rows(&mut report);
        scores.bars(&mut report, modes);
        serde_json::to_value(&report).unwrap()
    }

    #[test]
    fn ratios_are_of_the_same_round_of_the_same_mode() {
        let mut scores = Scores::default();
        for (mode, round, own, raw) in [(Mode::Gro, 0, 5.0, 10.0), (Mode::Gro, 1, 4.0, 5.0), (Mode::Off, 0, 1.0, 4.0)] {
            scores.add(mode, ours::AES, round, values("tcp1_gbit_s", own));
            scores.add(mode, RAW, round, values("tcp1_gbit_s", raw));
        }
        let json = json(&scores, &[Mode::Gro, Mode::Off]);
        assert_eq!(json["figures"]["gro_pqvpn_aes_tcp1_gbit_s_to_raw"], 0.65);
        assert_eq!(json["figures"]["gro_pqvpn_aes_tcp1_gbit_s_to_raw_max"], 0.8);
        let bars = json["bars"].as_array().unwrap();
        let verdict = |figure: &str| bars.iter().find(|bar| bar["figure"] == figure).unwrap()["ok"].as_bool().unwrap();
        assert!(verdict("gro_pqvpn_aes_tcp1_gbit_s_to_raw") && !verdict("off_pqvpn_aes_tcp1_gbit_s_to_raw"));
        let rows = json["rows"].as_array().unwrap();
        let raw = rows.iter().find(|row| row["tunnel"] == RAW && row["mode"] == "gro").unwrap();
        assert_eq!(
            (&raw["median"], &raw["ours_to_it"], &raw["ours_to_it_min"]),
            (&7.5.into(), &0.65.into(), &0.5.into())
        );
    }

    #[test]
    fn what_was_not_measured_misses_its_bar_and_a_mode_left_out_has_none() {
        let json = json(&Scores::default(), &[Mode::Gro]);
        let bars = json["bars"].as_array().unwrap();
        assert_eq!(bars.len(), BARS.iter().filter(|bar| bar.mode == Mode::Gro).count());
        assert!(bars.iter().all(|bar| bar["ok"] == false && bar["figure"].as_str().unwrap().starts_with("gro_")));
        assert_eq!(json["pass"], false);
    }

    #[test]
    fn no_two_bars_have_one_name() {
        let names: std::collections::BTreeSet<String> = BARS.iter().map(Bar::name).collect();
        assert_eq!(names.len(), BARS.len());
    }
}

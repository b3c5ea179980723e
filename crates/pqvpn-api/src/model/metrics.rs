// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `metrics` answers: families of samples, as JSON and as Prometheus reads them.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
};

use serde::{Deserialize, Serialize};

/// Media type of [`Metrics::to_text`].
pub const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every figure at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Schema number, 1.
    pub schema: u32,
    /// Families in the order in which they are shown; none is empty.
    pub families: Vec<MetricFamily>,
}

/// All samples of one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricFamily {
    /// Name, with its unit.
    pub name: String,
    /// Whether it only ever grows.
    pub kind: MetricKind,
    /// What it says.
    pub help: String,
    /// One for each set of labels.
    pub samples: Vec<MetricSample>,
}

/// Kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Grows until the daemon ends.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSample {
    /// What it is of.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How much.
    pub value: f64,
}

impl Metrics {
    /// The text exposition format, version 0.0.4.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.families.iter().map(ToString::to_string).collect()
    }
}

impl Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

impl Display for MetricFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, help, samples } = self;
        writeln!(f, "# HELP {name} {}", Escaped { text: help, quoted: false })?;
        writeln!(f, "# TYPE {name} {kind}")?;
        samples.iter().try_for_each(|sample| writeln!(f, "{name}{sample}"))
    }
}

impl Display for MetricSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (label, text)) in self.labels.iter().enumerate() {
            let open = if position == 0 { '{' } else { ',' };
            write!(f, "{open}{label}=\"{}\"", Escaped { text, quoted: true })?;
        }
        if !self.labels.is_empty() {
            f.write_char('}')?;
        }
        write!(f, " {}", self.value)
    }
}

/// Text that stays in its place: on its line, or between its quotes. Other control characters, which a terminal would
/// obey, are made visible.
struct Escaped<'a> {
    text: &'a str,
    quoted: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '"' if self.quoted => f.write_str("\\\""),
            c if c.is_control() => f.write_char(char::REPLACEMENT_CHARACTER),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(samples: Vec<MetricSample>) -> Metrics {
        let (name, help) = ("pqvpn_x_total".to_owned(), "A back\\slash,\na line, a \"quote\".".to_owned());
        let family = MetricFamily { name, kind: MetricKind::Counter, help, samples };
        Metrics { schema: 1, families: vec![family] }
    }

    fn sample(labels: &[(&str, &str)], value: f64) -> MetricSample {
        let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        MetricSample { labels, value }
    }

    #[test]
    fn a_family_has_help_type_and_one_line_for_each_sample() {
        let text = family(vec![sample(&[], 3.0), sample(&[("b", "2"), ("a", "1")], 0.0125)]).to_text();
        let expected = "# HELP pqvpn_x_total A back\\\\slash,\\na line, a \"quote\".\n\
                        # TYPE pqvpn_x_total counter\n\
                        pqvpn_x_total 3\n\
                        pqvpn_x_total{a=\"1\",b=\"2\"} 0.0125\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_label_leaves_its_quotes_or_its_line_or_speaks_to_a_terminal() {
        let evil = "a\"} 1\npqvpn_up 0\\\r\x1b[31m\u{85}ü";
        let text = family(vec![sample(&[("name", evil)], 1.0)]).to_text();
        let last = "pqvpn_x_total{name=\"a\\\"} 1\\npqvpn_up 0\\\\\u{fffd}\u{fffd}[31m\u{fffd}ü\"} 1";
        assert_eq!(text.lines().collect::<Vec<_>>()[2..], [last]);
    }

    #[test]
    fn large_counters_are_written_in_full() {
        let text = family(vec![sample(&[], 9_007_199_254_740_992.0)]).to_text();
        assert!(text.ends_with(" 9007199254740992\n"), "{text}");
    }
}

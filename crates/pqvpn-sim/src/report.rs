// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of a simulation: figures, the bars they must clear, the tables behind them; as JSON or for people.
//!
//! The JSON is that of every lab run (cli.md "Lab and simulator"); rows of several tables follow each other.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// One run's result, in the JSON shape of cli.md "Lab and simulator".
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    name: String,
    pass: bool,
    figures: BTreeMap<String, Value>,
    bars: Vec<Bar>,
    rows: Vec<Row>,
}

/// A row of the table: columns and cells, in the order they were given.
#[derive(Debug, Clone)]
struct Row(Vec<(String, Value)>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(column, value)| (column, value)))
    }
}

impl Row {
    fn columns(&self) -> Vec<&str> {
        self.0.iter().map(|(column, _)| column.as_str()).collect()
    }

    fn cell(&self, column: &str) -> String {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| cell(value)).unwrap_or_default()
    }
}

/// A limit and whether its figure keeps it.
#[derive(Debug, Clone, Serialize)]
pub struct Bar {
    figure: String,
    op: Op,
    bar: f64,
    ok: bool,
}

/// How a figure is compared with its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Op {
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// Below.
    #[serde(rename = "<")]
    Below,
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// Above.
    #[serde(rename = ">")]
    Above,
    /// Equal.
    #[serde(rename = "==")]
    Equal,
}

impl Op {
    /// Whether `figure` keeps `bar`. Nothing does that is not a number.
    #[must_use]
    pub fn holds(self, figure: f64, bar: f64) -> bool {
        match self {
            Self::AtMost => figure <= bar,
            Self::Below => figure < bar,
            Self::AtLeast => figure >= bar,
            Self::Above => figure > bar,
            Self::Equal => figure == bar,
        }
    }

    /// The operator as written in the report.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::Below => "<",
            Self::AtLeast => ">=",
            Self::Above => ">",
            Self::Equal => "==",
        }
    }
}

impl Report {
    /// An empty report of the run `name`; it passes until a bar is missed.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), pass: true, figures: BTreeMap::new(), bars: Vec::new(), rows: Vec::new() }
    }

    /// Records a measured figure.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Holds a figure recorded before against its bar. A figure that is missing or no number misses the bar.
    pub fn bar(&mut self, figure: &str, op: Op, bar: f64) {
        let measured = self.figures.get(figure).and_then(Value::as_f64);
        let ok = measured.is_some_and(|measured| op.holds(measured, bar));
        self.pass &= ok;
        self.bars.push(Bar { figure: figure.to_owned(), op, bar, ok });
    }

    /// Adds a row of the table behind the figures.
    pub fn row<const N: usize>(&mut self, cells: [(&str, Value); N]) {
        self.rows.push(Row(cells.map(|(column, value)| (column.to_owned(), value)).into()));
    }

    /// A figure recorded before.
    #[must_use]
    pub fn get(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).and_then(Value::as_f64)
    }

    /// Whether every bar was kept.
    #[must_use]
    pub const fn pass(&self) -> bool {
        self.pass
    }

    /// 0 when it passed, 1 when not. (2 is for runs that could not happen and have no report.)
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.pass { 0 } else { 1 }
    }

    /// Writes the report: one line of JSON, or tables for people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return writeln!(out);
        }
        for rows in self.rows.chunk_by(|a, b| a.columns() == b.columns()) {
            let columns = rows[0].columns();
            let mut table = Table::new(columns.iter().map(|column| (*column).to_owned()).collect());
            for row in rows {
                table.row(columns.iter().map(|column| row.cell(column)).collect());
            }
            writeln!(out, "{table}")?;
        }
        let mut table = Table::new(["figure", "measured", "bar", ""].map(str::to_owned).to_vec());
        for (name, value) in &self.figures {
            let bars: Vec<&Bar> = self.bars.iter().filter(|bar| bar.figure == *name).collect();
            let limits: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.op.symbol(), bar.bar)).collect();
            let verdict = match (bars.is_empty(), bars.iter().all(|bar| bar.ok)) {
                (true, _) => "",
                (false, true) => "ok",
                (false, false) => "MISSED",
            };
            table.row(vec![name.clone(), cell(value), limits.join(", "), verdict.to_owned()]);
        }
        for bar in self.bars.iter().filter(|bar| !self.figures.contains_key(&bar.figure)) {
            let limit = format!("{} {}", bar.op.symbol(), bar.bar);
            table.row(vec![bar.figure.clone(), "-".to_owned(), limit, "MISSED".to_owned()]);
        }
        writeln!(out, "{table}\n{}: {}", self.name, if self.pass { "pass" } else { "FAIL" })
    }
}

/// Text in columns; columns of numbers are right-aligned.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    #[must_use]
    pub fn new(columns: Vec<String>) -> Self {
        Self { rows: vec![columns] }
    }

    /// Adds a row; cells beyond the titles are left out.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let numeric = |column: usize| {
            let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
            cells.all(|cell| cell == "-" || cell.parse::<f64>().is_ok())
        };
        let layout: Vec<(usize, bool)> = (0..columns).map(|column| (width(column), numeric(column))).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &(width, numeric)) in row.iter().zip(&layout) {
                line += &if numeric { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value for people: text without quotes, numbers with at most three decimals.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let text = format!("{:.3}", number.as_f64().unwrap_or(f64::NAN));
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Value::Null => "-".to_owned(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(report: &Report, json: bool) -> String {
        let mut out = Vec::new();
        report.write(&mut out, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_published_shape() {
        let mut report = Report::new("nat-matrix");
        report.figure("cells", 49);
        report.figure("direct_p95_s", 1.9);
        report.bar("cells", Op::AtLeast, 49.0);
        report.row([("nat", "cone".into()), ("ok", true.into())]);
        assert_eq!(
            text(&report, true),
            "{\"name\":\"nat-matrix\",\"pass\":true,\"figures\":{\"cells\":49,\"direct_p95_s\":1.9},\"bars\":\
             [{\"figure\":\"cells\",\"op\":\">=\",\"bar\":49.0,\"ok\":true}],\"rows\":[{\"nat\":\"cone\",\"ok\":true}]}\n"
        );
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn pass_is_the_conjunction_of_the_bars() {
        let mut report = Report::new("x");
        report.figure("a", 1);
        report.bar("a", Op::Below, 2.0);
        assert!(report.pass());
        report.bar("a", Op::Equal, 2.0);
        report.bar("a", Op::Above, 0.0);
        assert!(!report.pass());
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn a_missing_or_odd_figure_misses_its_bar() {
        for value in [None, Some(Value::from("many")), Some(Value::from(f64::NAN))] {
            let mut report = Report::new("x");
            if let Some(value) = value {
                report.figure("a", value);
            }
            report.bar("a", Op::AtMost, 1e9);
            assert!(!report.pass());
            assert!(text(&report, false).contains("MISSED"));
        }
    }

    #[test]
    fn people_see_aligned_tables() {
        let mut report = Report::new("bench");
        report.figure("gbit_s", 6.1);
        report.bar("gbit_s", Op::AtLeast, 5.0);
        report.row([("peer", "ours".into()), ("rate", 6.1234.into())]);
        report.row([("peer", "another one".into()), ("rate", Value::Null)]);
        assert_eq!(
            text(&report, false),
            "peer          rate\nours         6.123\nanother one      -\n\n\
             figure  measured  bar\ngbit_s       6.1  >= 5  ok\n\nbench: pass\n"
        );
    }
}

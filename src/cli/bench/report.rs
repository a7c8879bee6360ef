//! Figures of repeated runs: medians, a table, JSON.

use serde_json::{Map, Value, json};

/// One figure of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Metric {
    /// Ends in its unit.
    pub(super) name: &'static str,
    pub(super) value: f64,
}

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) metrics: Vec<Metric>,
    pub(super) problems: Vec<String>,
}

impl Sample {
    pub(super) fn put(&mut self, name: &'static str, value: f64) {
        self.metrics.push(Metric { name, value });
    }

    pub(super) fn put_some(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

/// The runs of one scenario on one broker.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    runs: Vec<Sample>,
}

/// A figure over all runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) name: &'static str,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) runs: Vec<f64>,
}

impl Series {
    pub(super) fn push(&mut self, sample: Sample) {
        self.runs.push(sample);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let runs = self.runs.iter().enumerate();
        runs.flat_map(|(run, sample)| sample.problems.iter().map(move |problem| format!("run {}: {problem}", run + 1)))
            .collect()
    }

    /// One summary a metric, in the order of the first run.
    pub(super) fn summaries(&self) -> Vec<Summary> {
        let names = self.runs.first().into_iter().flat_map(|run| run.metrics.iter().map(|metric| metric.name));
        names
            .map(|name| {
                let of = |run: &Sample| run.metrics.iter().find(|metric| metric.name == name).map(|m| m.value);
                let runs: Vec<f64> = self.runs.iter().filter_map(of).collect();
                Summary {
                    name,
                    median: median(&runs),
                    min: runs.iter().copied().fold(f64::INFINITY, f64::min),
                    max: runs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    runs,
                }
            })
            .collect()
    }

    fn json(&self) -> Value {
        let metrics: Map<String, Value> = self
            .summaries()
            .into_iter()
            .map(|summary| {
                let figures = json!({
                    "median": summary.median, "min": summary.min, "max": summary.max, "runs": summary.runs,
                });
                (summary.name.to_owned(), figures)
            })
            .collect();
        json!({ "metrics": metrics, "problems": self.problems() })
    }
}

/// The middle value, or the mean of the two middle ones; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (len, half) if len.is_multiple_of(2) => f64::midpoint(sorted[half - 1], sorted[half]),
        (_, half) => sorted[half],
    }
}

/// Everything that a command prints.
pub(super) struct Report {
    pub(super) scenario: &'static str,
    /// The settings that matter for comparing.
    pub(super) settings: Value,
    pub(super) url: String,
    pub(super) target: Series,
    pub(super) null: Series,
}

impl Report {
    pub(super) fn has_problems(&self) -> bool {
        !self.target.problems().is_empty() || !self.null.problems().is_empty()
    }

    pub(super) fn json(&self) -> Value {
        let mut report = json!({ "scenario": self.scenario, "settings": self.settings });
        if !self.target.is_empty() {
            report["url"] = json!(self.url);
            report["target"] = self.target.json();
        }
        if !self.null.is_empty() {
            report["null"] = self.null.json();
        }
        if !self.target.is_empty() && !self.null.is_empty() {
            let ratios: Map<String, Value> = self
                .rows()
                .into_iter()
                .filter_map(|(name, target, null)| {
                    let ratio = ratio(target.as_ref()?, null.as_ref()?)?;
                    Some((name.to_owned(), json!(ratio)))
                })
                .collect();
            report["ratio"] = Value::Object(ratios);
        }
        report["verified"] = json!(!self.has_problems());
        report
    }

    /// A metric with its summaries of target and null broker.
    fn rows(&self) -> Vec<(&'static str, Option<Summary>, Option<Summary>)> {
        let (target, null) = (self.target.summaries(), self.null.summaries());
        let longer = if target.is_empty() { &null } else { &target };
        let find = |all: &[Summary], name| all.iter().find(|summary| summary.name == name).cloned();
        longer.iter().map(|row| (row.name, find(&target, row.name), find(&null, row.name))).collect()
    }

    pub(super) fn table(&self) -> String {
        let mut out = format!("{}  {}\n", self.scenario, self.settings_line());
        if !self.target.is_empty() {
            out += &format!("target: {}\n", self.url);
        }
        let both = !self.target.is_empty() && !self.null.is_empty();
        let mut header = vec!["".to_owned()];
        if !self.target.is_empty() {
            header.push("target".to_owned());
        }
        if !self.null.is_empty() {
            header.push("null broker".to_owned());
        }
        if both {
            header.push("ratio".to_owned());
        }
        let mut lines = vec![header];
        for (name, target, null) in self.rows() {
            let mut line = vec![name.to_owned()];
            let ratio = target.as_ref().zip(null.as_ref()).and_then(|(target, null)| ratio(target, null));
            if !self.target.is_empty() {
                line.push(target.as_ref().map_or_else(|| "-".to_owned(), cell));
            }
            if !self.null.is_empty() {
                line.push(null.as_ref().map_or_else(|| "-".to_owned(), cell));
            }
            if both {
                line.push(ratio.map_or_else(|| "-".to_owned(), number));
            }
            lines.push(line);
        }
        let columns = lines[0].len();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &lines {
            for (column, text) in line.iter().enumerate() {
                out += &match column {
                    0 => format!("  {text:<0$}", widths[0]),
                    _ => format!("  {text:>0$}", widths[column]),
                };
            }
            out.push('\n');
        }
        for (who, series) in [("target", &self.target), ("null broker", &self.null)] {
            for problem in series.problems() {
                out += &format!("WRONG  {who}, {problem}\n");
            }
        }
        out
    }

    fn settings_line(&self) -> String {
        let Some(settings) = self.settings.as_object() else {
            return String::new();
        };
        let show = |(name, value): (&String, &Value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        };
        settings.iter().filter(|(_, value)| !value.is_null()).map(show).collect::<Vec<_>>().join(" ")
    }
}

/// Target to null; nothing where a figure is too small to divide by, or memory went down.
fn ratio(target: &Summary, null: &Summary) -> Option<f64> {
    (null.median > 0.0 && target.median >= 0.0).then(|| target.median / null.median)
}

/// A median with its spread.
fn cell(summary: &Summary) -> String {
    if summary.runs.len() < 2 {
        return number(summary.median);
    }
    format!("{} ({} .. {})", number(summary.median), number(summary.min), number(summary.max))
}

/// Three significant digits or the whole number.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    match () {
        () if magnitude >= 1000.0 => thousands(value.round() as i64),
        () if magnitude >= 100.0 => format!("{value:.0}"),
        () if magnitude >= 10.0 => format!("{value:.1}"),
        () if magnitude >= 1.0 => format!("{value:.2}"),
        () if magnitude == 0.0 => "0".to_owned(),
        () => format!("{value:.3}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        for value in values {
            let mut sample = Sample::default();
            sample.put("msgs_per_sec", *value);
            series.push(sample);
        }
        series
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_report_has_medians_and_ratios() {
        let report = Report {
            scenario: "throughput",
            settings: json!({ "size": 16 }),
            url: "amqp://h/".to_owned(),
            target: series(&[10.0, 30.0, 20.0]),
            null: series(&[40.0]),
        };
        let json = report.json();
        assert_eq!(json["target"]["metrics"]["msgs_per_sec"]["median"], 20.0);
        assert_eq!(json["ratio"]["msgs_per_sec"], 0.5);
        assert_eq!(json["verified"], true);
        let table = report.table();
        assert!(table.contains("size=16") && table.contains("20.0 (10.0 .. 30.0)"), "{table}");
        assert!(table.contains("0.500"), "{table}");
    }

    #[test]
    fn problems_name_their_run() {
        let mut series = series(&[1.0]);
        series.push(Sample { problems: vec!["2 messages lost".to_owned()], ..Sample::default() });
        assert_eq!(series.problems(), ["run 2: 2 messages lost"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(999.4), "999");
        assert_eq!(number(0.1234), "0.123");
        assert_eq!(number(12.34), "12.3");
    }
}

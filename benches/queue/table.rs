//! What a scenario prints: one table, a row for each variant, medians over its runs.

use serde_json::{Map, Value, json};

/// What one run gave: columns by name, the figure that the scenario is about first.
pub(crate) type Sample = Vec<(&'static str, f64)>;

/// All runs of all variants of a scenario.
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
}

struct Row {
    variant: String,
    /// The variant that this one is compared with.
    base: Option<String>,
    samples: Vec<Sample>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// Adds a run, and says so: a benchmark is long.
    pub(crate) fn add(&mut self, variant: &str, sample: Sample) {
        self.add_run(variant, None, sample);
    }

    /// Adds a run whose first figure is to be compared with that of another variant in the same round.
    pub(crate) fn add_beside(&mut self, base: &str, variant: &str, sample: Sample) {
        self.add_run(variant, Some(base), sample);
    }

    fn add_run(&mut self, variant: &str, base: Option<&str>, sample: Sample) {
        let (name, figure) = sample[0];
        eprintln!("  {variant}: {} {name}", number(figure));
        match self.rows.iter_mut().find(|row| row.variant == variant) {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                variant: variant.to_owned(),
                base: base.map(str::to_owned),
                samples: vec![sample],
            }),
        }
    }

    /// Prints it for people or, with `json`, for programs.
    pub(crate) fn print(&self, json: bool) {
        match json {
            true => println!("{}", self.json()),
            false => println!("{}", self.text()),
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { variant, samples, .. }| {
            let runs: Vec<Value> = samples
                .iter()
                .map(|sample| sample.iter().map(|(name, value)| ((*name).to_owned(), json!(value))))
                .map(|fields| Value::Object(fields.collect::<Map<_, _>>()))
                .collect();
            json!({ "variant": variant, "runs": runs })
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let columns = self.columns();
        let compared = self.rows.iter().any(|row| row.base.is_some());
        let mut lines = vec![vec!["variant".to_owned()]];
        lines[0].extend(columns.iter().map(|column| (*column).to_owned()));
        lines[0].extend(compared.then(|| "ratio to".to_owned()));
        for row in &self.rows {
            let mut line = vec![row.variant.clone()];
            let cells = columns.iter().enumerate();
            line.extend(cells.map(|(index, column)| cell(&row.samples, column, index == 0)));
            line.extend(compared.then(|| self.ratio(row).unwrap_or_default()));
            lines.push(line);
        }
        format!("\n{}\n\n{}", self.title, aligned(&lines))
    }

    /// In the order in which they first appear.
    fn columns(&self) -> Vec<&'static str> {
        let mut columns = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| row.samples.iter().flatten()) {
            if !columns.contains(name) {
                columns.push(*name);
            }
        }
        columns
    }

    /// The median over the rounds, of what ran close to each other.
    fn ratio(&self, row: &Row) -> Option<String> {
        let base = self.rows.iter().find(|other| Some(&other.variant) == row.base.as_ref())?;
        let ratios = row.samples.iter().zip(&base.samples).map(|(sample, base)| sample[0].1 / base[0].1);
        median(ratios.collect()).map(|ratio| format!("{ratio:.2} {}", base.variant))
    }
}

/// The median and, where it is asked for, what it lies between.
fn cell(samples: &[Sample], column: &str, range: bool) -> String {
    let values: Vec<f64> =
        samples.iter().flatten().filter(|(name, _)| *name == column).map(|(_, value)| *value).collect();
    let (low, high) = (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max));
    match (median(values), low, high) {
        (Some(median), Some(low), Some(high)) if range && samples.len() > 1 => {
            format!("{} ({}–{})", number(median), number(low), number(high))
        }
        (Some(median), ..) => number(median),
        _ => "–".to_owned(),
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// With as many digits as can be meant.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.1 => format!("{value:.4}"),
        small if small < 10.0 => format!("{value:.2}"),
        small if small < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A Markdown table that can be read as it is.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut rows: Vec<String> = lines.iter().map(|line| aligned_row(line, &widths)).collect();
    let rules = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(width + 2),
        _ => format!("{}:", "-".repeat(width + 1)),
    });
    rows.insert(1, format!("|{}|\n", rules.collect::<Vec<_>>().join("|")));
    rows.concat()
}

fn aligned_row(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

//! One line of the result.

use crate::measure::Spread;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;

/// What the numbers of a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Micros,
    Bytes,
}

/// A figure that shall be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Ours divided by the reference.
    Ratio(f64),
    /// Ours itself, in the row's unit.
    Ours(f64),
    /// Ours is the time of one; so many a second.
    Rate(f64),
}

#[derive(Clone, Debug)]
pub struct Row {
    /// A path; its first part is the family.
    pub what: String,
    /// Tasks.
    pub n: usize,
    /// Bytes that each task gives.
    pub payload: usize,
    pub unit: Unit,
    pub ours: Spread,
    pub reference: Option<(&'static str, Spread)>,
    pub bar: Option<Bar>,
    pub note: String,
}

impl Row {
    pub fn new(what: impl Into<String>, n: usize, ours: Spread) -> Self {
        let what = what.into();
        let (payload, unit, note) = (0, Unit::Micros, String::new());
        Row { what, n, payload, unit, ours, reference: None, bar: None, note }
    }

    pub fn payload(self, payload: usize) -> Self {
        Row { payload, ..self }
    }

    pub fn unit(self, unit: Unit) -> Self {
        Row { unit, ..self }
    }

    pub fn against(self, name: &'static str, spread: Spread) -> Self {
        Row { reference: Some((name, spread)), ..self }
    }

    pub fn bar(self, bar: impl Into<Option<Bar>>) -> Self {
        Row { bar: bar.into(), ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Row { note: note.into(), ..self }
    }

    pub fn ratio(&self) -> Option<f64> {
        self.reference.map(|(_, spread)| self.ours.p50 / spread.p50)
    }

    /// Whether the bar is reached; `None` if there is none.
    pub fn is_met(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::Ratio(limit) => self.ratio().is_some_and(|ratio| ratio <= limit),
            Bar::Ours(limit) => self.ours.p50 <= limit,
            Bar::Rate(limit) => 1e6 / self.ours.p50 >= limit,
        })
    }

    /// The cells of a table: what, n, payload, ours p50 and p99, reference, its p50 and p99, ratio,
    /// bar, met, note.
    pub fn cells(&self) -> [String; 12] {
        let show = |value| self.unit.show(value);
        let (name, p50, p99) = match self.reference {
            Some((name, spread)) => (name, show(spread.p50), show(spread.p99)),
            None => ("", String::new(), String::new()),
        };
        [
            self.what.clone(),
            count(self.n),
            if self.payload == 0 { String::new() } else { bytes(self.payload as f64) },
            show(self.ours.p50),
            show(self.ours.p99),
            name.to_owned(),
            p50,
            p99,
            self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
            self.bar.map_or(String::new(), |bar| bar.text(self.unit)),
            self.is_met().map_or("", |met| if met { "met" } else { "not met" }).to_owned(),
            self.note.clone(),
        ]
    }
}

impl Bar {
    pub fn text(self, unit: Unit) -> String {
        match self {
            Bar::Ratio(limit) => format!("≤ {limit}×"),
            Bar::Ours(limit) => format!("≤ {}", unit.show(limit)),
            Bar::Rate(limit) => format!("≥ {}/s", count(limit as usize)),
        }
    }
}

impl Unit {
    fn key(self) -> &'static str {
        match self {
            Unit::Micros => "us",
            Unit::Bytes => "bytes",
        }
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Micros if value < 10_000.0 => format!("{} µs", digits(value)),
            Unit::Micros => format!("{} ms", digits(value / 1e3)),
            Unit::Bytes => format!("{value:.0} B"),
        }
    }
}

/// The keys of a row are named after its unit: `ours_us_p50`, or `ours_bytes_p50`.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unit = self.unit.key();
        let reference = self.reference.map(|(_, spread)| spread);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", &self.what)?;
        map.serialize_entry("n", &self.n)?;
        map.serialize_entry("payload", &self.payload)?;
        map.serialize_entry(&format!("ours_{unit}_p50"), &rounded(self.ours.p50))?;
        map.serialize_entry(&format!("ours_{unit}_p99"), &rounded(self.ours.p99))?;
        map.serialize_entry("ref", &self.reference.map(|(name, _)| name))?;
        map.serialize_entry(&format!("ref_{unit}_p50"), &reference.map(|it| rounded(it.p50)))?;
        map.serialize_entry(&format!("ref_{unit}_p99"), &reference.map(|it| rounded(it.p99)))?;
        map.serialize_entry("ratio_p50", &self.ratio().map(rounded))?;
        map.serialize_entry("bar", &self.bar.map(|bar| bar.text(self.unit)))?;
        map.serialize_entry("met", &self.is_met())?;
        map.serialize_entry("note", &self.note)?;
        map.end()
    }
}

/// A line of the table on the terminal.
pub fn line(cells: [impl fmt::Display; 12]) -> String {
    let [what, n, payload, p50, p99, name, ref50, ref99, ratio, bar, met, note] = cells;
    format!(
        "{what:<30} {n:>8} {payload:>8} {p50:>11} {p99:>11}  {name:<28} {ref50:>11} {ref99:>11} \
         {ratio:>8} {bar:>11} {met:<8} {note}"
    )
}

/// The words above the columns of [`Row::cells`].
pub const TITLES: [&str; 12] = [
    "what",
    "n",
    "payload",
    "ours p50",
    "ours p99",
    "reference",
    "ref p50",
    "ref p99",
    "ratio",
    "bar",
    "met",
    "note",
];

/// Thousands apart: `100,000`.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn bytes(number: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let power = units.len().min((number.max(1.0).log2() / 10.0) as usize + 1) - 1;
    format!("{} {}", number / 1024_f64.powi(power as i32), units[power])
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

//! Cost curves, both axes logarithmic.

use crate::measure::Fallible;
use plotters::prelude::*;
use std::path::Path;

/// A line of the plot: its name, and (n, microseconds).
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 89, 40), RGBColor(44, 140, 60), RGBColor(130, 90, 170)];

/// Draws the curves into an SVG file. Curves without points are left away.
pub fn draw(path: &Path, title: &str, x: &str, mut curves: Vec<Curve>) -> Fallible<()> {
    curves.retain(|curve| !curve.points.is_empty());
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let least = |axis: fn(&(f64, f64)) -> f64| points().map(axis).fold(f64::MAX, f64::min);
    let most = |axis: fn(&(f64, f64)) -> f64| points().map(axis).fold(f64::MIN, f64::max);
    let columns = least(|it| it.0)..most(|it| it.0) * 1.3;
    let rows = least(|it| it.1) / 2.0..most(|it| it.1) * 2.0;
    let area = SVGBackend::new(path, (760, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(columns.log_scale(), rows.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc("median")
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| time(*y))
        .light_line_style(RGBColor(235, 235, 235))
        .bold_line_style(RGBColor(215, 215, 215))
        .draw()?;
    for (curve, colour) in curves.into_iter().zip(COLOURS.into_iter().cycle()) {
        let line = LineSeries::new(curve.points, colour.stroke_width(2)).point_size(3);
        let label = chart.draw_series(line)?.label(curve.name);
        label.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let mut legend = chart.configure_series_labels();
    let legend = legend.position(SeriesLabelPosition::UpperLeft);
    legend.background_style(WHITE).border_style(RGBColor(200, 200, 200)).draw()?;
    area.present()?;
    Ok(())
}

fn short(number: f64) -> String {
    match number.round() {
        million if million >= 1e6 => format!("{} M", million / 1e6),
        thousand if thousand >= 1e3 => format!("{} k", thousand / 1e3),
        other => other.to_string(),
    }
}

fn time(micros: f64) -> String {
    match micros {
        seconds if seconds >= 1e6 => format!("{} s", seconds / 1e6),
        millis if millis >= 1e3 => format!("{} ms", millis / 1e3),
        other => format!("{other} µs"),
    }
}

//! Values of some contestants: lines over a few settings, or bars in the only one.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::log::{Family, Outcome};
use crate::results::{Entry, Spread};
use crate::table::short;

#[derive(Debug)]
pub struct Picture<'a> {
    pub title: String,
    pub unit: String,
    /// What the settings are.
    pub axis: &'static str,
    pub settings: Vec<String>,
    pub series: Vec<Series<'a>>,
}

/// A contestant, with its value in each setting.
#[derive(Debug)]
pub struct Series<'a> {
    pub name: &'a str,
    color: RGBColor,
    values: Vec<Option<Spread>>,
}

impl<'a> Series<'a> {
    pub fn new(entry: &'a Entry, values: Vec<Option<Spread>>) -> Self {
        Self { name: &entry.name, color: color(&entry.name, entry.family), values }
    }

    fn last(&self) -> Option<f64> {
        Some(self.values.iter().flatten().last()?.median)
    }

    fn points(&self) -> impl Iterator<Item = (SegmentValue<i32>, Spread)> {
        let places = (0..).map(SegmentValue::CenterOf);
        places.zip(&self.values).filter_map(|(place, value)| Some((place, (*value)?)))
    }
}

const OURS: &[(&str, u32)] = &[
    ("ringlog writer", 0xfab005),
    ("small segments", 0xff8787),
    ("ringlog", 0x800f2f),
    ("writer, growing", 0x862e9c),
    ("writer", 0xf08c00),
    ("growing", 0xe64980),
    ("zero-filled", 0x795548),
    ("tasks", 0xffc078),
];

/// The same contestant has the same colour everywhere: ours are warm, limits grey.
fn color(name: &str, family: Family) -> RGBColor {
    let pick = |parts: &[(&str, u32)], other: u32| {
        let found = parts.iter().find(|(part, _)| name.contains(part)).map_or(other, |(_, color)| *color);
        RGBColor((found >> 16) as u8, (found >> 8) as u8, found as u8)
    };
    match family {
        Family::Limit => pick(&[], 0x868e96),
        Family::Ours => pick(OURS, 0xd9480f),
        Family::Baseline => pick(&[("mutex", 0x1971c2)], 0x1098ad),
        Family::Rival => {
            pick(&[("raft", 0x7048e8), ("okaywal", 0xae3ec9), ("Rocks", 0x2f9e44), ("glommio", 0x5c7a29)], 0xa0522d)
        }
    }
}

const WIDTH: u32 = 900;
const TEXT: (&str, u32) = ("sans-serif", 13);

/// What belongs at a place of an axis.
fn at<'a>(place: &SegmentValue<i32>, name: impl Fn(usize) -> &'a str) -> String {
    if let SegmentValue::CenterOf(index) = place { name(*index as usize).to_owned() } else { String::new() }
}

impl Picture<'_> {
    /// Writes it as SVG.
    pub fn draw(&self, path: &Path) -> Outcome<()> {
        let mut series: Vec<_> = self.series.iter().filter(|one| one.last().is_some()).collect();
        series.sort_by(|one, other| other.last().partial_cmp(&one.last()).expect("numbers"));
        if self.settings.len() > 1 { self.lines(&series, path) } else { self.bars(&series, path) }
    }

    /// On a logarithmic scale: equal distances are equal ratios. Names stand in the order of the last values.
    fn lines(&self, series: &[&Series<'_>], path: &Path) -> Outcome<()> {
        let root = SVGBackend::new(path, (WIDTH, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let (plot, names) = root.split_horizontally(WIDTH - 280);
        let all = series.iter().flat_map(|one| one.values.iter().flatten());
        let (low, high) = all
            .filter(|value| value.low > 0.0)
            .fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value.low), high.max(value.high)));
        let mut chart = ChartBuilder::on(&plot)
            .caption(format!("{} ({})", self.title, self.unit), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (0..self.settings.len() as i32 - 1).into_segmented(),
                (low / 1.15..high * 1.15).log_scale(),
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .label_style(TEXT)
            .x_label_formatter(&|place| at(place, |index| &self.settings[index]))
            .y_label_formatter(&|value| short(*value))
            .x_desc(self.axis)
            .y_desc(&self.unit)
            .draw()?;
        for (at, one) in (50..).step_by(20).zip(series) {
            chart.draw_series(LineSeries::new(
                one.points().map(|(x, value)| (x, value.median)),
                one.color.stroke_width(2),
            ))?;
            chart.draw_series(one.points().map(|(x, Spread { low, median, high })| {
                ErrorBar::new_vertical(x, low, median, high, one.color.filled(), 6)
            }))?;
            names.draw(&Rectangle::new([(4, at), (18, at + 10)], one.color.filled()))?;
            let text = format!("{}: {}", one.name, short(one.last().unwrap_or_default()));
            names.draw(&Text::new(text, (26, at - 2), TEXT.into_font()))?;
        }
        root.present()?;
        Ok(())
    }

    /// From zero, the largest on top, each with the range of its repetitions.
    fn bars(&self, series: &[&Series<'_>], path: &Path) -> Outcome<()> {
        let count = series.len();
        let style = TEXT.into_text_style(&(WIDTH, WIDTH)).pos(Pos::new(HPos::Left, VPos::Center));
        let root = SVGBackend::new(path, (WIDTH, 90 + 30 * count as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let values = || series.iter().flat_map(|one| one.points().map(|(_, value)| value));
        let top = values().map(|value| value.high).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("{} ({})", self.title, self.unit), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(240)
            .build_cartesian_2d(0.0..1.15 * top, (0..count as i32 - 1).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .x_max_light_lines(1)
            .label_style(TEXT)
            .x_label_formatter(&|value| short(*value))
            .y_labels(count)
            .y_label_formatter(&|place| at(place, |index| series[count - 1 - index].name))
            .draw()?;
        let rows = (0..count as i32).rev().map(SegmentValue::CenterOf);
        for ((row, one), Spread { low, median, high }) in rows.zip(series).zip(values()) {
            let bar = [(0.0, row.clone()), (median, row.clone())];
            chart.draw_series([PathElement::new(bar, one.color.mix(0.7).stroke_width(18))])?;
            // Beside the end of the range, not at it.
            let text = Text::new(short(median), (8, 0), style.clone());
            chart.draw_series([EmptyElement::at((high, row.clone())) + text])?;
            chart.draw_series([ErrorBar::new_horizontal(row, low, median, high, BLACK.filled(), 6)])?;
        }
        root.present()?;
        Ok(())
    }
}

//! Two kinds of charts, as SVG text: lines over a few settings, and bars side by side. Colours come from the page's style, by
//! class, so that the same drawing serves light and dark.

use core::fmt::Write;

use crate::results::Spread;
use crate::table::short;

/// Something with a name, a colour, and a value in each setting (or none).
#[derive(Debug)]
pub struct Series<'a> {
    pub name: &'a str,
    /// Class of the style sheet.
    pub class: String,
    pub values: Vec<Option<Spread>>,
}

/// One bar.
#[derive(Debug)]
pub struct Bar<'a> {
    pub name: &'a str,
    pub class: String,
    pub value: Spread,
    /// What is said behind the value.
    pub note: String,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
/// Room for the numbers on the left and the names on the right.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 205.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 38.0;
/// Between two names.
const LINE: f64 = 14.0;

/// A logarithmic axis over what is shown.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = values
            .filter(|&value| value > 0.0)
            .fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        (low <= high).then(|| Self { low: low / 1.15, high: high * 1.15 })
    }

    /// 0 at the lower end, 1 at the upper.
    fn place(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// Round numbers, few enough to read.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = if decades < 1.3 {
            &[1.0, 2.0, 3.0, 5.0, 7.0]
        } else if decades < 2.5 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let all = (first..=last).flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// Lines over `settings`, on a logarithmic scale: equal distances are equal ratios.
pub fn lines(title: &str, unit: &str, settings: &[String], series: &[Series<'_>]) -> String {
    let medians = series.iter().flat_map(|one| &one.values).flatten().map(|spread| spread.median);
    let Some(axis) = Axis::over(medians) else { return String::new() };
    let x = |index: usize| LEFT + (index as f64 + 0.5) * (WIDTH - LEFT - RIGHT) / settings.len() as f64;
    let y = |value: f64| HEIGHT - BOTTOM - axis.place(value.clamp(axis.low, axis.high)) * (HEIGHT - TOP - BOTTOM);

    let mut svg = open(HEIGHT, title, unit);
    for tick in axis.ticks() {
        let (left, right, at) = (LEFT, WIDTH - RIGHT, y(tick));
        _ = write!(svg, r#"<line class="grid" x1="{left}" x2="{right}" y1="{at:.1}" y2="{at:.1}"/>"#);
        _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 6.0,
            at + 4.0,
            short_tick(tick)
        );
    }
    for (index, setting) in settings.iter().enumerate() {
        _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{setting}</text>"#,
            x(index),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let mut labels = Vec::new();
    for one in series {
        let points: Vec<_> =
            one.values.iter().enumerate().filter_map(|(index, value)| Some((index, (*value)?))).collect();
        let path: Vec<_> =
            points.iter().map(|(index, spread)| format!("{:.1},{:.1}", x(*index), y(spread.median))).collect();
        _ = write!(svg, r#"<g class="{}"><polyline points="{}"/>"#, one.class, path.join(" "));
        for (index, spread) in &points {
            let (cx, low, high) = (x(*index), y(spread.low), y(spread.high));
            _ = write!(svg, r#"<line class="range" x1="{cx:.1}" x2="{cx:.1}" y1="{low:.1}" y2="{high:.1}"/>"#);
            let (at, told) = (y(spread.median), short(spread.median));
            _ = write!(
                svg,
                r#"<circle cx="{cx:.1}" cy="{at:.1}" r="3.5"><title>{}: {told} {unit}</title></circle>"#,
                one.name
            );
        }
        svg.push_str("</g>");
        if let Some((index, spread)) = points.last() {
            labels.push((y(spread.median), x(*index), one, spread.median));
        }
    }
    names(&mut svg, labels);
    svg.push_str("</svg>");
    svg
}

/// Names at the right, each as near to the end of its line as its neighbours allow.
fn names(svg: &mut String, mut labels: Vec<(f64, f64, &Series<'_>, f64)>) {
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut places: Vec<f64> = labels.iter().map(|label| label.0).collect();
    for index in 1..places.len() {
        places[index] = places[index].max(places[index - 1] + LINE);
    }
    let lowest = HEIGHT - BOTTOM + 8.0;
    for index in (0..places.len()).rev() {
        let limit = if index + 1 < places.len() { places[index + 1] - LINE } else { lowest };
        places[index] = places[index].min(limit);
    }
    for ((end, x, one, value), at) in labels.into_iter().zip(places) {
        let (start, stop, class) = (x + 6.0, WIDTH - RIGHT + 8.0, &one.class);
        _ = write!(svg, r#"<path class="leader" d="M{start:.1},{end:.1} L{:.1},{at:.1} H{:.1}"/>"#, stop - 4.0, stop);
        _ = write!(
            svg,
            r#"<text class="name {class}" x="{:.1}" y="{:.1}">{} <tspan class="value">{}</tspan></text>"#,
            stop + 4.0,
            at + 4.0,
            one.name,
            short(value)
        );
    }
}

/// Bars from zero, with the range of the repetitions on top, and perhaps a line to be measured against.
pub fn bars(title: &str, unit: &str, bars: &[Bar<'_>], reference: Option<f64>) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 190.0;
    const NOTES: f64 = 130.0;
    let top = bars.iter().map(|bar| bar.value.high).fold(reference.unwrap_or(0.0), f64::max);
    let x = |value: f64| NAMES + value / top * (WIDTH - NAMES - NOTES);
    let height = TOP + ROW * bars.len() as f64 + 8.0;
    let mut svg = open(height, title, unit);
    for (row, bar) in bars.iter().enumerate() {
        let at = TOP + ROW * row as f64;
        let Bar { name, class, value, note } = bar;
        _ = write!(
            svg,
            r#"<g class="{class}"><text class="name {class}" x="{:.1}" y="{:.1}" text-anchor="end">{name}</text>"#,
            NAMES - 8.0,
            at + 15.0
        );
        _ = write!(
            svg,
            r#"<rect x="{NAMES}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2"/>"#,
            at + 3.0,
            (x(value.median) - NAMES).max(1.0),
            ROW - 9.0
        );
        let middle = at + 3.0 + (ROW - 9.0) / 2.0;
        _ = write!(
            svg,
            r#"<line class="whisker" x1="{:.1}" x2="{:.1}" y1="{middle:.1}" y2="{middle:.1}"/></g>"#,
            x(value.low),
            x(value.high)
        );
        _ = write!(
            svg,
            r#"<text class="value" x="{:.1}" y="{:.1}">{} <tspan class="note">{note}</tspan></text>"#,
            x(value.high.max(value.median)) + 6.0,
            at + 15.0,
            short(value.median)
        );
    }
    if let Some(reference) = reference {
        let at = x(reference);
        _ = write!(
            svg,
            r#"<line class="reference" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            TOP - 4.0,
            height - 4.0
        );
    }
    svg.push_str("</svg>");
    svg
}

fn open(height: f64, title: &str, unit: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}"><text class="title" x="0" y="15">{title} <tspan class="unit">{unit}</tspan></text>"#
    )
}

fn short_tick(value: f64) -> String {
    match value {
        large if large >= 1e6 => format!("{}M", large / 1e6),
        large if large >= 1e3 => format!("{}k", (large / 1e3 * 10.0).round() / 10.0),
        value => format!("{}", (value * 1e4).round() / 1e4),
    }
}

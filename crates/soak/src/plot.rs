//! Latency over time, with the phases behind it and failures below, as SVG.

use std::fmt::Write as _;

use crate::report::{Figures, Report};

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 110.0;
const BOTTOM: f64 = 50.0;
/// Milliseconds of the axis, from the lowest to the highest, logarithmic.
const AXIS: (f64, f64) = (1.0, 10_000.0);

/// Draws it.
pub(crate) fn svg(report: &Report) -> String {
    let begin = report.phases.first().map_or(0, |phase| phase.begin);
    let end = report.phases.last().map_or(1, |phase| phase.end).max(begin + 1);
    #[expect(clippy::cast_precision_loss, reason = "a place on a picture")]
    let x = |at: u64| {
        let share = at.saturating_sub(begin) as f64 / (end - begin) as f64;
        LEFT + share.min(1.0) * (WIDTH - LEFT - RIGHT)
    };
    let y = |ms: f64| {
        let (low, high) = (AXIS.0.log10(), AXIS.1.log10());
        let share = (ms.clamp(AXIS.0, AXIS.1).log10() - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let floor = HEIGHT - BOTTOM;
    for (at, phase) in report.phases.iter().enumerate() {
        let (from, to) = (x(phase.begin), x(phase.end));
        let shade = if at % 2 == 0 { "#f2f4f7" } else { "#e4e8ee" };
        let (width, height, label) = (to - from, floor - TOP, from + 12.0);
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{shade}\"/>\n\
             <text x=\"{label:.1}\" y=\"{:.1}\" transform=\"rotate(-45 {label:.1} {:.1})\">{}</text>",
            TOP - 6.0,
            TOP - 6.0,
            phase.name
        );
    }
    for ms in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let at = y(ms);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#bbb\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (name, colour, of) in [
        ("p50", "#1b6ca8", (|f: Figures| f.p50) as fn(Figures) -> f64),
        ("p99", "#d98000", |f| f.p99),
        ("max", "#999999", |f| f.max),
    ] {
        let points = seconds(report, begin)
            .into_iter()
            .map(|(at, figures)| format!("{:.1},{:.1}", x(at), y(of(figures))));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"><title>{name}</title></polyline>"
        );
    }
    for failed in &report.said.failed {
        let at = x(failed.1);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{floor}\" y2=\"{:.1}\" stroke=\"#c00\"/>",
            floor + 10.0
        );
    }
    for (at, colour, name) in [
        (0.0, "#1b6ca8", "p50"),
        (60.0, "#d98000", "p99"),
        (120.0, "#999999", "max"),
        (180.0, "#c00", "failed"),
    ] {
        let (from, base) = (LEFT + at, HEIGHT - 14.0);
        let _ = writeln!(
            out,
            "<rect x=\"{from}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"{base}\">{name}</text>",
            base - 9.0,
            from + 14.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// The figures of each second.
fn seconds(report: &Report, begin: u64) -> Vec<(u64, Figures)> {
    let mut by = std::collections::BTreeMap::<u64, Vec<u64>>::new();
    for done in &report.said.done {
        by.entry(done.1.saturating_sub(begin) / 1000)
            .or_default()
            .push(done.2);
    }
    let all = by.into_iter();
    all.map(|(second, micros)| (begin + second * 1000 + 500, Figures::of(micros)))
        .collect()
}

//! A plot over time as SVG, made by hand: one panel for each curve, one below the other.

use std::fmt::Write;

use crate::table::number;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 140.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 30.0;

/// One curve: what it shows, and its points at seconds.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The curves in panels that share the axis of time. Each is drawn from zero, so that flat looks flat.
pub(crate) fn svg(title: &str, curves: &[Curve]) -> String {
    let mut text = String::new();
    let mut top = TOP;
    for curve in curves {
        panel(&mut text, curve, top);
        top += PANEL;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}</text>\n{text}</svg>\n"
    )
}

fn panel(text: &mut String, curve: &Curve, top: f64) {
    let (right, bottom) = (WIDTH - 20.0, top + PANEL - 30.0);
    let end = curve.points.iter().map(|(time, _)| *time).fold(1.0, f64::max);
    let most = curve.points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let points: Vec<String> = curve
        .points
        .iter()
        .map(|(time, value)| {
            let x = LEFT + time / end * (right - LEFT);
            let y = bottom - value / most * (bottom - top - 20.0);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let highest = top + 20.0;
    let parts = [
        format!("<text x=\"{LEFT}\" y=\"{}\">{}</text>", top + 12.0, curve.name),
        format!("<path d=\"M{LEFT} {highest}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>"),
        format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            highest + 4.0,
            number(most)
        ),
        format!("<text x=\"{}\" y=\"{bottom}\" text-anchor=\"end\">0</text>", LEFT - 5.0),
        format!("<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{end:.0} s</text>", bottom + 15.0),
        format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"1.5\"/>",
            points.join(" ")
        ),
    ];
    for part in parts {
        writeln!(text, "{part}").expect("memory takes everything");
    }
}

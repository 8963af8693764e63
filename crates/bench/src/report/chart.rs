//! Bar charts as SVG, written by hand: readable on light and on dark pages.

use super::{Table, text::number};

const WIDTH: f64 = 760.0;
const BAR: f64 = 18.0;
const STEP: f64 = 28.0;
const TOP: f64 = 44.0;
/// Below the bars: the axis with its numbers and its name.
const BOTTOM: f64 = 48.0;
/// Width of a character of the labels, nearly.
const CHARACTER: f64 = 7.0;

impl Table {
    /// A bar for each row that has a figure in the column, with a line from the smallest to the largest run; none if no
    /// row has one.
    pub(crate) fn chart(&self, column: &str) -> Option<String> {
        let at = self.columns.iter().position(|known| known.name == column)?;
        let bars: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| match row.cells[at] {
                super::Cell::Figure(spread) => Some((row.name.as_str(), spread)),
                super::Cell::Nothing | super::Cell::Text(_) => None,
            })
            .collect();
        let most = bars.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
        if bars.is_empty() || most <= 0.0 {
            return None;
        }
        let longest = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let left = 16.0 + CHARACTER * to_f64(longest);
        // Room for the number after the longest bar.
        let right = WIDTH - 90.0;
        let (step, end) = axis(most);
        let x = |value: f64| left + (right - left) * value / end;
        let floor = TOP + STEP * to_f64(bars.len());
        let height = floor + BOTTOM;
        let heading = self.columns[at].heading();
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12" role="img">
<title>{title}: {name}</title>
<style>
.t {{ fill: #1f2328 }} .s {{ fill: #59636e }} .g {{ stroke: #d1d9e0 }} .b {{ fill: #5b8def }} .p {{ fill: #1a7f5a }} .w {{ stroke: #1f2328 }}
@media (prefers-color-scheme: dark) {{ .t {{ fill: #f0f6fc }} .s {{ fill: #9198a1 }} .g {{ stroke: #3d444d }} .b {{ fill: #4577d6 }} .p {{ fill: #2ea97a }} .w {{ stroke: #f0f6fc }} }}
</style>
<text class="t" x="8" y="22" font-size="15" font-weight="600">{title}</text>
"#,
            title = escaped(&self.title),
            name = escaped(&heading),
        );
        let mut tick = 0.0;
        while tick <= end * 1.0001 {
            svg += &format!(
                "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{floor}\"/><text class=\"s\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>\n",
                x = x(tick),
                y = floor + 16.0,
                label = tick_label(tick),
            );
            tick += step;
        }
        svg += &format!(
            "<text class=\"s\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            left.midpoint(right),
            floor + 36.0,
            escaped(&heading)
        );
        for (number_of_bar, (name, spread)) in bars.iter().enumerate() {
            let y = TOP + STEP * to_f64(number_of_bar) + (STEP - BAR) / 2.0;
            let middle = y + BAR / 2.0;
            let class = if name.to_lowercase().starts_with("pilot") { "p" } else { "b" };
            svg += &format!(
                "<text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n",
                left - 8.0,
                middle + 4.0,
                escaped(name),
                (x(spread.median) - left).max(1.0),
            );
            if spread.max > spread.min {
                svg += &format!(
                    "<line class=\"w\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke-width=\"1.5\"/>\n",
                    x(spread.min),
                    x(spread.max)
                );
            }
            svg += &format!(
                "<text class=\"t\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                x(spread.max) + 6.0,
                middle + 4.0,
                number(spread.median)
            );
        }
        svg += "</svg>\n";
        Some(svg)
    }
}

/// Steps of 1, 2 or 5 times a power of ten, about five of them, and the end of the axis.
fn axis(most: f64) -> (f64, f64) {
    let rough = most / 5.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (step, (most / step).ceil() * step)
}

fn tick_label(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", trimmed(value / 1e6))
    } else if value >= 1e4 {
        format!("{} k", trimmed(value / 1e3))
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "rows of a chart are few")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    #[test]
    fn a_chart_has_a_bar_for_every_figure_its_unit_and_no_raw_markup() {
        let svg = sample().chart("rate").unwrap();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains(">rate, MB/s</text>"));
        assert!(svg.contains("&lt;quinn&gt;") && !svg.contains("<quinn>"));
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn longer_bars_are_larger_figures() {
        let svg = sample().chart("rate").unwrap();
        let widths: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .map(|bar| bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[1] / widths[0] - 1217.25 / 410.0).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn a_column_without_figures_has_no_chart() {
        assert_eq!(sample().chart("remark"), None);
        assert_eq!(sample().chart("unknown"), None);
    }

    #[test]
    fn the_axis_ends_above_the_largest_figure_in_round_steps() {
        assert_eq!(axis(1234.5), (500.0, 1500.0));
        assert_eq!(axis(100.0), (20.0, 100.0));
        assert_eq!(tick_label(1_500_000.0), "1.5 M");
    }
}

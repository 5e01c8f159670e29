//! Axes and marks, drawn through plotters' SVG backend.
//!
//! Colours are placeholders that become CSS classes, so that a picture follows the page into dark mode. No text is
//! measured: there are no fonts to measure it with. Titles stand above the axes and legends in the page instead.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::{escape, tick};
use crate::export::ExportError;

/// Width in units of the picture; the page scales it.
const WIDTH: u32 = 960;
const LEFT: i32 = 130;
const RIGHT: i32 = 40;
const TOP: i32 = 62;
const BOTTOM: i32 = 108;
const TEXT: i32 = 34;
/// Height of a row of a legend.
const LEGEND: u32 = 46;

/// The colours, as the page has them.
const COLORS: &str = include_str!("colors.css");

/// Placeholder of axes and text.
const INK: RGBColor = RGBColor(1, 2, 3);
/// Placeholder of grid lines.
const GRID: RGBColor = RGBColor(1, 2, 4);

/// Placeholders of the two sides of zero.
const MORE: RGBColor = RGBColor(1, 2, 5);
const LESS: RGBColor = RGBColor(1, 2, 6);

/// Placeholder of a line's colour.
fn color(line: usize) -> RGBColor {
    RGBColor(2, 0, line as u8)
}

/// From values to pixels.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// Values of ticks, when they are not to be found.
    given: Option<Vec<f64>>,
}

impl Scale {
    /// A scale that shows these values with some room; none when there is no value it can show.
    pub fn of(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let shown = values.filter(|value| value.is_finite() && (!log || *value > 0.0));
        let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if log {
            let room = ((high / low).ln() * 0.06).max(0.1);
            return Some(Self {
                low: (low.ln() - room).exp(),
                high: (high.ln() + room).exp(),
                log,
                given: None,
            });
        }
        let room = ((high - low) * 0.05).max(high.abs() * 0.01).max(1e-9);
        // A spread begins at zero.
        let low = if low >= 0.0 { 0.0 } else { low - room };
        Some(Self { low, high: high + room, log, given: None })
    }

    /// The same scale with these ticks, if they are few.
    pub fn with_ticks(mut self, mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        // Neighbours that would stand on one another's toes are no ticks.
        let apart =
            values.windows(2).all(|pair| matches!(pair, [a, b] if self.share(*b) - self.share(*a) > 0.09));
        if values.len() <= 7 && apart {
            self.given = Some(values);
        }
        self
    }

    /// Place of a value in [0, 1].
    fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Whether a value is within the axis.
    fn shows(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The same scale, showing this value as well.
    pub fn including(self, value: f64) -> Self {
        Self { low: self.low.min(value), high: self.high.max(value), ..self }
    }

    /// The same scale without a line at zero where its values are far from it.
    pub fn tight(values: impl Iterator<Item = f64>) -> Option<Self> {
        let shown = values.filter(|value| value.is_finite());
        let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
        (low <= high).then_some(Self { low: low - room, high: high + room, log: false, given: None })
    }

    /// Values of ticks, at most about `most`.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        if let Some(given) = &self.given {
            return given.clone();
        }
        if !self.log {
            return linear_ticks(self.low, self.high, most);
        }
        let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
        let decades = (last - first + 1).max(0) as usize;
        let inside = |value: &f64| *value >= self.low && *value <= self.high;
        if decades > most {
            let step = decades.div_ceil(most);
            return (first..=last).step_by(step).map(|power| 10f64.powi(power)).collect();
        }
        // The finest of these that has not too many: a decade's 1, 2, 5, or its 1 alone.
        let with = |digits: &[f64]| -> Vec<f64> {
            let powers = first - 1..=last;
            powers.flat_map(|p| digits.iter().map(move |d| d * 10f64.powi(p))).filter(|v| inside(v)).collect()
        };
        let fine = with(&[1.0, 2.0, 5.0]);
        if fine.len() > most {
            with(&[1.0])
        } else if fine.len() < 2 {
            linear_ticks(self.low, self.high, most.min(4))
        } else {
            fine
        }
    }
}

fn linear_ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let raw = (high - low) / most.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    // Multiplied, not added up, so that 0.3 stays 0.3.
    let ticks = (first..first + 100).map(|k| k as f64 * step).take_while(|tick| *tick <= high);
    ticks.map(|tick| (tick * 1e12).round() / 1e12).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), ExportError>;

fn failed(error: impl std::fmt::Display) -> ExportError {
    ExportError::Plot(error.to_string())
}

/// A picture with two axes.
pub(super) struct Chart<'a> {
    area: Area<'a>,
    x: Scale,
    y: Option<Scale>,
    height: i32,
}

/// A picture in two forms: for the page, which has the legend and the colours, and as a file, which has its own.
pub(crate) struct Drawing {
    pub inline: String,
    pub file: String,
}

/// Lines that a file's legend names: number and label.
pub(super) type Legend<'a> = [(usize, &'a str)];

impl Chart<'_> {
    /// Draws a picture: axes with titles, then what `marks` draws. Without `y` the vertical place is in pixels.
    pub fn draw(
        label: &str,
        height: u32,
        x: (Scale, &str),
        y: Option<(Scale, &str)>,
        legend: &Legend<'_>,
        marks: impl Fn(&Chart<'_>) -> Drawn,
    ) -> Result<Drawing, ExportError> {
        let total = height + LEGEND * legend.len() as u32;
        let file = Self::render((height, total), &x, y.as_ref(), legend, &marks)?;
        Ok(Drawing {
            inline: Self::inline(label, height, x, y, marks)?,
            file: finish(&file, label, total, Some(COLORS)),
        })
    }

    /// The form for a page alone.
    pub fn inline(
        label: &str,
        height: u32,
        x: (Scale, &str),
        y: Option<(Scale, &str)>,
        marks: impl Fn(&Chart<'_>) -> Drawn,
    ) -> Result<String, ExportError> {
        let svg = Self::render((height, height), &x, y.as_ref(), &[], &marks)?;
        Ok(finish(&svg, label, height, None))
    }

    fn render(
        (height, total): (u32, u32),
        x: &(Scale, &str),
        y: Option<&(Scale, &str)>,
        legend: &Legend<'_>,
        marks: &impl Fn(&Chart<'_>) -> Drawn,
    ) -> Result<String, ExportError> {
        let (y, y_title) = y.map_or((None, ""), |(scale, title)| (Some(scale.clone()), *title));
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, total)).into_drawing_area();
            let chart = Chart { area, x: x.0.clone(), y, height: height as i32 };
            chart.axes(x.1, y_title)?;
            marks(&chart)?;
            chart.legend(legend)?;
            chart.area.present().map_err(failed)?;
        }
        Ok(svg)
    }

    /// A row for each line, below the axes.
    fn legend(&self, legend: &Legend<'_>) -> Drawn {
        for (row, (line, label)) in legend.iter().enumerate() {
            let y = self.height + LEGEND as i32 * row as i32 + LEGEND as i32 / 2;
            self.mark(*line, (self.left() + 12, y), 11)?;
            self.text(label, (self.left() + 40, y), INK, (HPos::Left, VPos::Center))?;
        }
        Ok(())
    }

    fn left(&self) -> i32 {
        if self.y.is_some() { LEFT } else { RIGHT }
    }

    pub fn x(&self, value: f64) -> i32 {
        let width = f64::from(WIDTH as i32 - self.left() - RIGHT);
        self.left() + (width * self.x.share(value)).round() as i32
    }

    fn y(&self, value: f64) -> i32 {
        let room = f64::from(self.height - TOP - BOTTOM);
        let share = self.y.as_ref().map_or(0.0, |scale| scale.share(value));
        self.height - BOTTOM - (room * share).round() as i32
    }

    fn axes(&self, x_title: &str, y_title: &str) -> Drawn {
        let (left, right, bottom) = (self.left(), WIDTH as i32 - RIGHT, self.height - BOTTOM);
        let top = if self.y.is_some() { TOP } else { 0 };
        for value in self.x.ticks(6) {
            let at = self.x(value);
            self.path(vec![(at, top), (at, bottom)], GRID.stroke_width(2))?;
            self.text(&tick(value), (at, bottom + 12), INK, (HPos::Center, VPos::Top))?;
        }
        let middle = (left + right) / 2;
        self.text(x_title, (middle, self.height - 8), INK, (HPos::Center, VPos::Bottom))?;
        if let Some(scale) = &self.y {
            for value in scale.ticks(6) {
                let at = self.y(value);
                self.path(vec![(left, at), (right, at)], GRID.stroke_width(2))?;
                self.text(&tick(value), (left - 12, at), INK, (HPos::Right, VPos::Center))?;
            }
            self.text(y_title, (8, 4), INK, (HPos::Left, VPos::Top))?;
            self.path(vec![(left, top), (left, bottom)], INK.stroke_width(2))?;
        }
        self.path(vec![(left, bottom), (right, bottom)], INK.stroke_width(2))
    }

    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle) -> Drawn {
        self.area.draw(&PathElement::new(points, style)).map_err(failed)
    }

    fn text(&self, text: &str, at: (i32, i32), color: RGBColor, (h, v): (HPos, VPos)) -> Drawn {
        let style = ("sans-serif", TEXT).into_font().color(&color).pos(Pos::new(h, v));
        self.area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
    }

    /// A text above a row.
    pub fn row_label(&self, text: &str, y: i32) -> Drawn {
        self.text(text, (self.left(), y), INK, (HPos::Left, VPos::Top))
    }

    /// A line through (x, y), with its marks and the band between the least and greatest of each point.
    pub fn band(&self, line: usize, points: &[(f64, f64, f64, f64)]) -> Drawn {
        if points.len() > 1 {
            let upper = points.iter().map(|(x, _, _, high)| (self.x(*x), self.y(*high)));
            let lower = points.iter().rev().map(|(x, _, low, _)| (self.x(*x), self.y(*low)));
            let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), color(line).mix(0.15));
            self.area.draw(&band).map_err(failed)?;
        }
        Ok(())
    }

    /// The line itself, above all bands.
    pub fn line(&self, line: usize, points: &[(f64, f64, f64, f64)]) -> Drawn {
        let places: Vec<(i32, i32)> = points.iter().map(|(x, y, ..)| (self.x(*x), self.y(*y))).collect();
        self.path(places.clone(), color(line).stroke_width(5))?;
        places.into_iter().try_for_each(|at| self.mark(line, at, 11))
    }

    /// A line through (x, y) with one mark, at its end.
    pub fn curve(&self, line: usize, points: &[(f64, f64)]) -> Drawn {
        let places: Vec<(i32, i32)> = points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect();
        let last = places.last().copied();
        self.path(places, color(line).stroke_width(4))?;
        last.map_or(Ok(()), |at| self.mark(line, at, 10))
    }

    /// A mark whose shape, beside its colour, tells lines apart.
    fn mark(&self, line: usize, (x, y): (i32, i32), r: i32) -> Drawn {
        let corners = match line % 4 {
            0 => return self.area.draw(&Circle::new((x, y), r, color(line).filled())).map_err(failed),
            1 => vec![(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)],
            2 => vec![(x, y - r - 3), (x + r + 3, y), (x, y + r + 3), (x - r - 3, y)],
            _ => vec![(x, y - r - 3), (x + r + 2, y + r), (x - r - 2, y + r)],
        };
        self.area.draw(&Polygon::new(corners, color(line).filled())).map_err(failed)
    }

    /// A horizontal box: (low, q1, median, q3, high) at a row.
    pub fn horizontal_box(&self, line: usize, [low, q1, median, q3, high]: [f64; 5], y: i32) -> Drawn {
        let (half, stroke) = (17, color(line).stroke_width(4));
        self.path(vec![(self.x(low), y), (self.x(q1), y)], stroke)?;
        self.path(vec![(self.x(q3), y), (self.x(high), y)], stroke)?;
        let corners = [(self.x(q1), y - half), (self.x(q3), y + half)];
        self.area.draw(&Rectangle::new(corners, color(line).mix(0.25).filled())).map_err(failed)?;
        self.area.draw(&Rectangle::new(corners, stroke)).map_err(failed)?;
        self.path(vec![(self.x(median), y - half), (self.x(median), y + half)], color(line).stroke_width(8))
    }

    /// An interval with its middle at a row; ends that are infinite leave the picture.
    pub fn interval(&self, line: usize, [low, middle, high]: [f64; 3], y: i32) -> Drawn {
        let (half, stroke) = (14, color(line).stroke_width(5));
        self.path(vec![(self.x(low), y), (self.x(high), y)], stroke)?;
        for end in [low, high].into_iter().filter(|end| self.x.shows(*end)) {
            self.path(vec![(self.x(end), y - half), (self.x(end), y + half)], stroke)?;
        }
        self.mark(line, (self.x(middle), y), 13)
    }

    /// A vertical line at x over all rows.
    pub fn upright(&self, x: f64) -> Drawn {
        let top = if self.y.is_some() { TOP } else { 0 };
        self.path(vec![(self.x(x), top), (self.x(x), self.height - BOTTOM)], INK.stroke_width(3))
    }

    /// The diagonal x = y, as far as both axes show it.
    pub fn diagonal(&self) -> Drawn {
        let Some(y) = &self.y else { return Ok(()) };
        let (low, high) = (self.x.low.max(y.low), self.x.high.min(y.high));
        if low >= high {
            return Ok(());
        }
        let ends = [low, high].map(|v| (self.x(v), self.y(v)));
        self.path(ends.to_vec(), INK.stroke_width(3))
    }

    /// A faint dot at (x, y).
    pub fn point(&self, line: usize, x: f64, y: f64) -> Drawn {
        let dot = Circle::new((self.x(x), self.y(y)), 6, color(line).mix(0.45).filled());
        self.area.draw(&dot).map_err(failed)
    }

    /// A density along x: its width (0 to 1) at points, mirrored at a row.
    pub fn violin(&self, line: usize, points: &[(f64, f64)], y: i32, half: i32) -> Drawn {
        let place = |sign: f64| {
            move |(x, width): &(f64, f64)| (self.x(*x), y + (sign * width * f64::from(half)).round() as i32)
        };
        let outline: Vec<(i32, i32)> =
            points.iter().map(place(-1.0)).chain(points.iter().rev().map(place(1.0))).collect();
        let shape = Polygon::new(outline.clone(), color(line).mix(0.25).filled());
        self.area.draw(&shape).map_err(failed)?;
        self.path(outline, color(line).stroke_width(2))
    }

    /// A cell of a heat map at pixels: stronger colour for a greater |share|, which is in [−1, 1].
    pub fn cell(&self, share: f64, (left, top): (i32, i32), (right, bottom): (i32, i32)) -> Drawn {
        let hue = if share < 0.0 { LESS } else { MORE };
        // Two digits are more than an eye tells apart, and keep the file small.
        let strength = (share.abs().min(1.0) * 50.0).round() / 50.0;
        let cell = Rectangle::new([(left, top), (right, bottom)], hue.mix(strength).filled());
        self.area.draw(&cell).map_err(failed)
    }

    /// A text with its upper left corner at a place.
    pub fn label(&self, text: &str, at: (i32, i32)) -> Drawn {
        self.text(text, at, INK, (HPos::Left, VPos::Top))
    }

    /// A thin frame.
    pub fn frame(&self, (left, top): (i32, i32), (right, bottom): (i32, i32)) -> Drawn {
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        self.path(corners.to_vec(), GRID.stroke_width(2))
    }

    /// Left and right end of the axes in pixels.
    pub fn ends(&self) -> (i32, i32) {
        (self.left(), WIDTH as i32 - RIGHT)
    }

    /// A faint dot.
    pub fn dot(&self, line: usize, value: f64, y: i32) -> Drawn {
        self.area.draw(&Circle::new((self.x(value), y), 4, color(line).mix(0.35).filled())).map_err(failed)
    }
}

/// Turns placeholders into classes. In the page the picture takes the size it is given; a file has a size and colours of its own.
fn finish(svg: &str, label: &str, height: u32, colors: Option<&str>) -> String {
    let size = format!("width=\"{WIDTH}\" height=\"{height}\" viewBox");
    let named = format!("role=\"img\" aria-label=\"{}\" viewBox", escape(label));
    let mut svg = svg.replace(" font-family=\"sans-serif\"", "");
    svg = match colors {
        None => svg.replace(&size, &named),
        Some(colors) => {
            let background = "svg{background:var(--bg)}svg text{font-family:system-ui,sans-serif}";
            let style = format!("<style>{colors}{background}</style>");
            svg.replace(&size, &format!("width=\"{WIDTH}\" height=\"{height}\" {named}")).replacen(
                ">",
                &format!(">{style}"),
                1,
            )
        }
    };
    let names = [(INK, "ink".to_owned()), (GRID, "grid".to_owned())];
    let signs = [(MORE, "more".to_owned()), (LESS, "less".to_owned())];
    let lines = (0..super::plots::COLORS).map(|line| (color(line), line.to_string()));
    for (placeholder, name) in names.into_iter().chain(signs).chain(lines) {
        let RGBColor(r, g, b) = placeholder;
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        for (attribute, class) in [("fill", 'f'), ("stroke", 's')] {
            svg = svg.replace(&format!("{attribute}=\"{hex}\""), &format!("class=\"{class}-{name}\""));
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(low: f64, high: f64, log: bool) -> Vec<String> {
        let scale = Scale::of([low, high].into_iter(), log).expect("scale");
        scale.ticks(6).into_iter().map(tick).collect()
    }

    #[test]
    fn ticks_are_round_and_neither_few_nor_many() {
        assert_eq!(ticks(50.0, 400.0, true), ["50", "100", "200"]);
        assert_eq!(ticks(1e-5, 1.0, true), ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(ticks(0.0, 0.31, false), ["0", "0.1", "0.2", "0.3"]);
        for (low, high) in
            [(1.0, 1.0), (3.0, 3.2), (1e-12, 1e12), (0.011, 0.019), (1e-7, 3e-7), (25.0, 1600.0)]
        {
            for log in [true, false] {
                let found = ticks(low, high, log);
                assert!((2..=8).contains(&found.len()), "{low} to {high}, log {log}: {found:?}");
            }
        }
        assert!(Scale::of([0.0, -1.0, f64::NAN].into_iter(), true).is_none());
    }
}

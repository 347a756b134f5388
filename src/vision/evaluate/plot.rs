//! An evaluation as an SVG plot: one panel per metric, one colour per model.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Curve, Evaluation, Perturbation};
use crate::Error;

/// Width and height of a panel in pixels.
const PANEL: (u32, u32) = (400, 380);

/// Height of a model's line above the panels.
const LINE: u32 = 24;

/// Space around everything.
const MARGIN: u32 = 12;

/// A palette that is safe for colour blindness (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

const GREY: RGBColor = RGBColor(120, 120, 120);

/// The drawing area of a panel.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Axes of a panel.
type Axes<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws a panel.
type Panel = fn(&Evaluation, &Area<'_>) -> Result<(), Fault>;

type Fault = Box<dyn std::error::Error>;

impl Evaluation {
    /// The evaluation as an SVG picture: reliability, and what else was measured.
    ///
    /// # Errors
    /// [`Error::Encode`] if it cannot be drawn.
    pub fn plot(&self) -> Result<String, Error> {
        let mut panels: Vec<Panel> = vec![reliability];
        if self.models.iter().any(|m| m.perturbation.is_some()) {
            panels.extend([deletion as Panel, insertion]);
        }
        if self.models.iter().any(|m| !m.pointing.is_empty()) {
            panels.push(pointing);
        }
        let mut svg = String::new();
        self.draw(&panels, &mut svg)
            .map_err(|e| Error::encode("svg", e))?;
        Ok(svg)
    }

    fn draw(&self, panels: &[Panel], svg: &mut String) -> Result<(), Fault> {
        let head = LINE * self.models.len() as u32 + MARGIN;
        let size = (
            PANEL.0 * panels.len() as u32 + 2 * MARGIN,
            PANEL.1 + head + 2 * MARGIN,
        );
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.margin(MARGIN, MARGIN, MARGIN, MARGIN);
        let (top, below) = root.split_vertically(head);
        for (i, model) in self.models.iter().enumerate() {
            let y = (i as u32 * LINE + LINE / 2) as i32;
            let square = Rectangle::new([(8, y - 6), (20, y + 6)], colour(i).filled());
            top.draw(&square)?;
            let at = (28, y);
            top.draw(&Text::new(model.name.clone(), at, left(15)))?;
        }
        let areas = below.split_evenly((1, panels.len()));
        for (panel, area) in panels.iter().zip(&areas) {
            panel(self, area)?;
        }
        root.present()?;
        Ok(())
    }
}

fn colour(model: usize) -> RGBColor {
    COLOURS[model % COLOURS.len()]
}

fn left(size: u32) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_text_style(&(PANEL.0, PANEL.1))
        .pos(Pos::new(HPos::Left, VPos::Center))
}

fn centred(size: u32) -> TextStyle<'static> {
    left(size).pos(Pos::new(HPos::Center, VPos::Bottom))
}

/// Axes over [0, 1] both ways.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    [across, up]: [&str; 2],
) -> Result<Axes<'a, 'b>, Fault> {
    let mut axes = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    axes.configure_mesh()
        .x_desc(across)
        .y_desc(up)
        .x_labels(6)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.25))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    Ok(axes)
}

fn reliability(evaluation: &Evaluation, area: &Area<'_>) -> Result<(), Fault> {
    let mut axes = axes(area, "Reliability", ["confidence", "accuracy"])?;
    axes.draw_series(dashed([(0.0, 0.0), (1.0, 1.0)], GREY))?;
    for (i, model) in evaluation.models.iter().enumerate() {
        let bins = model.reliability.bins.iter();
        let points: Vec<(f64, f64)> = bins
            .filter_map(|bin| Some((bin.confidence?, bin.accuracy?)))
            .collect();
        axes.draw_series(LineSeries::new(points.clone(), colour(i).stroke_width(2)))?;
        let dots = points
            .into_iter()
            .map(|at| Circle::new(at, 3, colour(i).filled()));
        axes.draw_series(dots)?;
    }
    Ok(())
}

fn deletion(evaluation: &Evaluation, area: &Area<'_>) -> Result<(), Fault> {
    curves(evaluation, area, "Deletion (dashed: random)", |p| {
        [&p.deletion, &p.deletion_random]
    })
}

fn insertion(evaluation: &Evaluation, area: &Area<'_>) -> Result<(), Fault> {
    curves(evaluation, area, "Insertion (dashed: random)", |p| {
        [&p.insertion, &p.insertion_random]
    })
}

fn curves(
    evaluation: &Evaluation,
    area: &Area<'_>,
    title: &str,
    which: fn(&Perturbation) -> [&Curve; 2],
) -> Result<(), Fault> {
    let mut axes = axes(area, title, ["share of pixels", "probability"])?;
    for (i, model) in evaluation.models.iter().enumerate() {
        let Some(found) = &model.perturbation else {
            continue;
        };
        let [ordered, random] = which(found).map(|curve| {
            let points = found.shares.iter().copied();
            points.zip(curve.probabilities.iter().copied())
        });
        axes.draw_series(LineSeries::new(ordered, colour(i).stroke_width(2)))?;
        axes.draw_series(dashed(random, colour(i)))?;
    }
    Ok(())
}

fn dashed(
    points: impl IntoIterator<Item = (f64, f64)>,
    colour: RGBColor,
) -> DashedLineSeries<std::vec::IntoIter<(f64, f64)>, u32> {
    let points: Vec<(f64, f64)> = points.into_iter().collect();
    DashedLineSeries::new(points, 5, 4, colour.stroke_width(1))
}

/// Share of a group's width that its bars take.
const FILLED: f64 = 0.7;

fn pointing(evaluation: &Evaluation, area: &Area<'_>) -> Result<(), Fault> {
    let models = &evaluation.models;
    let mut sizes: Vec<usize> = models
        .iter()
        .flat_map(|m| m.pointing.iter().map(|p| p.cells))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.dedup();
    let mut axes = ChartBuilder::on(area)
        .caption("Grid pointing game (dashed: chance)", ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..sizes.len() as f64, 0.0..1.0)?;
    axes.configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc("share in the class's cell")
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.25))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    let bar = FILLED / models.len().max(1) as f64;
    for (group, &cells) in sizes.iter().enumerate() {
        let start = group as f64 + (1.0 - FILLED) / 2.0;
        for (i, model) in models.iter().enumerate() {
            let found = model.pointing.iter().find(|p| p.cells == cells);
            let Some((found, score)) = found.and_then(|p| Some((p, p.score?))) else {
                continue;
            };
            let from = start + i as f64 * bar;
            let middle = from + bar / 2.0;
            let corners = [(from + 0.05 * bar, 0.0), (from + 0.95 * bar, score)];
            axes.draw_series([Rectangle::new(corners, colour(i).filled())])?;
            let error = found.standard_error.unwrap_or_default();
            let whisker = [(middle, score - error), (middle, (score + error).min(1.0))];
            axes.draw_series([PathElement::new(whisker, BLACK.stroke_width(1))])?;
            let above = (middle, (score + error + 0.01).min(0.94));
            let digits = match models.len() * sizes.len() {
                0..=6 => 3,
                7..=9 => 2,
                _ => continue,
            };
            let text = format!("{score:.digits$}");
            axes.draw_series([Text::new(text, above, centred(12))])?;
        }
        let chance = 1.0 / (cells * cells) as f64;
        let line = [(group as f64 + 0.05, chance), (group as f64 + 0.95, chance)];
        axes.draw_series(dashed(line, BLACK))?;
    }
    // Names of the groups, under the axis.
    let (left, bottom) = axes.backend_coord(&(0.0, 0.0));
    let (right, _) = axes.backend_coord(&(sizes.len() as f64, 0.0));
    let (x, y) = area.get_base_pixel();
    let step = (right - left) / sizes.len().max(1) as i32;
    for (group, cells) in sizes.iter().enumerate() {
        let at = (left - x + step * group as i32 + step / 2, bottom - y + 24);
        area.draw(&Text::new(format!("{cells}x{cells}"), at, centred(14)))?;
    }
    Ok(())
}

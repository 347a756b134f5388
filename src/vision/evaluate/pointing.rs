//! The grid pointing game: are contributions inside the picture of the explained class?
//!
//! Pictures that the model gets right, and whose logit is above 0 (a sigmoid above 0.5), are laid out in grids
//! of n x n pictures of distinct classes, most confident first. Each class of a grid is explained on the whole
//! grid. Its contributions are averaged over a window, and
//!
//! ```text
//! score = sum of positive contributions in the class's own cell / sum of positive contributions
//! ```
//!
//! A map without positive contributions scores 0. A uniform map scores 1/n^2.

use bcosc_ir::Dim;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::progress::{ProgressReporter, Task};
use super::reliability::Prediction;
use crate::contract::Images;
use crate::load::File;
use crate::vision::data::Item;
use crate::vision::explain::{Explainer, SizedExplainer, smooth};
use crate::vision::images::{self, Frame};
use crate::vision::random::rng;
use crate::{Error, InputShape, PredictOptions, Predictor};

/// Options of the grid pointing game.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PointingOptions {
    /// Number of grids per size.
    pub grids: usize,
    /// Grid sizes, as pictures along a side; by default 3 and 2, if there are enough
    /// classes.
    pub cells: Option<Vec<usize>>,
    /// Side of the window that contributions are averaged over, in pixels; 0 for none.
    pub smooth: usize,
}

impl PointingOptions {
    /// Default grid sizes.
    pub const CELLS: [usize; 2] = [3, 2];
}

impl Default for PointingOptions {
    fn default() -> Self {
        PointingOptions {
            grids: 100,
            cells: None,
            smooth: 15,
        }
    }
}

/// The result of the grid pointing game for one grid size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pointing {
    /// Pictures along a side of a grid.
    pub cells: usize,
    /// Number of grids.
    pub grids: usize,
    /// Number of correctly and confidently classified pictures.
    pub candidates: usize,
    /// Mean score over the grids; `null` without any.
    pub score: Option<f64>,
    /// Its standard error; `null` with fewer than two grids.
    pub standard_error: Option<f64>,
    /// The score of a uniform map.
    pub chance: f64,
}

/// A grid: indices of pictures, row after row.
type Grid = Vec<usize>;

/// The pictures that grids are made of, most confident first.
pub(super) fn candidates(predictions: &[Prediction]) -> Vec<usize> {
    let confident = |i: &usize| predictions[*i].is_right() && predictions[*i].logit > 0.0;
    let mut found: Vec<usize> = (0..predictions.len()).filter(confident).collect();
    found.sort_by(|&a, &b| predictions[b].logit.total_cmp(&predictions[a].logit));
    found
}

/// At most `limit` grids without common pictures. Each grid takes the first remaining pictures of distinct
/// classes, in random positions.
pub(super) fn grids(
    candidates: &[usize],
    class: impl Fn(usize) -> usize,
    cells: usize,
    limit: usize,
    seed: u64,
) -> Vec<Grid> {
    let mut left = candidates.to_vec();
    let mut made = Vec::new();
    while made.len() < limit {
        let mut grid = Grid::new();
        left.retain(|&picture| {
            let free = grid.len() < cells * cells
                && grid.iter().all(|&other| class(other) != class(picture));
            if free {
                grid.push(picture);
            }
            !free
        });
        if grid.len() < cells * cells {
            break;
        }
        grid.shuffle(&mut rng(seed, &[cells as u64, made.len() as u64]));
        made.push(grid);
    }
    made
}

/// The share of positive contributions that is in a cell.
pub(super) fn score(map: &[f32], [height, width]: [usize; 2], cells: usize, cell: usize) -> f64 {
    let (cell_height, cell_width) = (height / cells, width / cells);
    let (top, left) = (cell / cells * cell_height, cell % cells * cell_width);
    let positive = |x: &f32| f64::from(x.max(0.0));
    let all: f64 = map.iter().map(positive).sum();
    let rows = map.chunks(width.max(1)).skip(top).take(cell_height);
    let inside: f64 = rows
        .flat_map(|row| &row[left..left + cell_width])
        .map(positive)
        .sum();
    match all > 0.0 {
        true => inside / all,
        false => 0.0,
    }
}

/// Lays pictures `[1, C, height, width]` out in a square.
fn tile(pictures: &[Images], cells: usize) -> Images {
    let side = |axis: usize| {
        let first = pictures.first().and_then(|p| p.dims.get(axis));
        first.copied().unwrap_or_default() as usize
    };
    let (channels, height, width) = (side(1), side(2), side(3));
    let mut data = Vec::with_capacity(pictures.iter().map(|p| p.data.len()).sum());
    for channel in 0..channels {
        for row in pictures.chunks(cells) {
            for y in 0..height {
                for picture in row {
                    let start = (channel * height + y) * width;
                    data.extend_from_slice(&picture.data[start..start + width]);
                }
            }
        }
    }
    let dims = [1, channels, height * cells, width * cells];
    Images {
        dims: dims.map(|d| d as u64).to_vec(),
        data,
    }
}

/// Explains grids of pictures.
pub(super) struct GridExplainer {
    explainer: SizedExplainer,
    frame: Frame,
    cells: usize,
}

impl GridExplainer {
    /// Prepares a model for pictures of the size of a grid, and tries whether it takes one.
    pub fn set_up(
        file: &File,
        options: &PredictOptions,
        predictor: &Predictor,
        frame: Frame,
        cells: usize,
    ) -> Result<Self, Error> {
        let size = [frame.height * cells, frame.width * cells];
        let [height, width] = size;
        let Predictor {
            intake,
            classes,
            label,
            ..
        } = predictor;
        let name = &intake.name;
        let shapes = intake.shapes(size, false);
        let dims = shapes.get(name).into_iter().flatten();
        let mut input_shapes = options.input_shapes.clone();
        input_shapes.retain(|shape| shape.input != *name);
        input_shapes.push(InputShape {
            input: name.clone(),
            dims: dims.map(|d| Dim::Known(*d)).collect(),
        });
        let options = PredictOptions {
            input_shapes,
            size: Some(size),
            ..options.clone()
        };
        let fail = |problem: String| Error::Grid {
            model: label.to_owned(),
            cells,
            height,
            width,
            problem,
        };
        let grey = Images {
            dims: [1, frame.channels, height, width]
                .map(|d| d as u64)
                .to_vec(),
            data: vec![0.5; frame.channels * height * width],
        };
        let open = || {
            let explainer = Explainer::from_file(file.clone(), &options)?;
            let found = explainer.predictor.classes;
            let sized = explainer.at(height, width)?;
            Ok((found, sized.explain(&grey, None)?.logits.len(), sized))
        };
        let (declared, found, explainer) = open().map_err(|e: Error| fail(with_causes(&e)))?;
        if declared != *classes || found != *classes {
            return Err(fail(format!("it has {found} logits there, not {classes}")));
        }
        Ok(GridExplainer {
            explainer,
            frame,
            cells,
        })
    }

    /// Runs the grid pointing game.
    pub fn play(
        &self,
        items: &[Item],
        predictions: &[Prediction],
        limit: usize,
        (window, seed): (usize, u64),
        progress: &ProgressReporter<'_>,
    ) -> Result<Pointing, Error> {
        let cells = self.cells;
        let candidates = candidates(predictions);
        let grids = grids(&candidates, |i| predictions[i].class, cells, limit, seed);
        let scores = progress.each(Task::Point { cells }, &grids, |_, grid| {
            let read = |&i: &usize| images::read(&items[i].path, self.frame);
            let pictures: Vec<Images> = grid.iter().map(read).collect::<Result<_, Error>>()?;
            let whole = tile(&pictures, cells);
            let seen = self.explainer.see(&whole)?;
            let mut sum = 0.0;
            for (cell, &picture) in grid.iter().enumerate() {
                let class = predictions[picture].class;
                let explained = self.explainer.explain_class(&seen, Some(class))?;
                let map = smooth(&explained.contributions, explained.size, window);
                sum += score(&map, explained.size, cells, cell);
            }
            Ok(sum / grid.len() as f64)
        })?;
        let count = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / count;
        let squares: f64 = scores.iter().map(|s| (s - mean).powi(2)).sum();
        Ok(Pointing {
            cells,
            grids: scores.len(),
            candidates: candidates.len(),
            score: (count > 0.0).then_some(mean),
            standard_error: (count > 1.0).then(|| (squares / (count - 1.0) / count).sqrt()),
            chance: 1.0 / (cells * cells) as f64,
        })
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some messages already include their cause.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(class: usize, logit: f64, right: bool) -> Prediction {
        Prediction {
            class,
            logit,
            confidence: 0.9,
            rank: usize::from(!right),
            surprise: 0.0,
        }
    }

    #[test]
    fn candidates_are_right_and_confident_and_sorted() {
        let predictions = [
            prediction(0, 1.0, true),
            prediction(1, 5.0, false),
            prediction(2, 3.0, true),
            prediction(3, -0.1, true),
            prediction(4, 1.0, true),
        ];
        assert_eq!(candidates(&predictions), [2, 0, 4]);
    }

    #[test]
    fn grids_have_distinct_classes_most_confident_first() {
        // Pictures 0 to 11, of classes 0 0 0 1 1 1 2 2 2 3 3 4.
        let classes = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4];
        let order: Vec<usize> = (0..12).collect();
        let made = grids(&order, |i| classes[i], 2, 10, 7);
        let sorted: Vec<Grid> = made
            .iter()
            .map(|grid| {
                let mut grid = grid.clone();
                grid.sort_unstable();
                grid
            })
            .collect();
        assert_eq!(sorted, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]);
        assert_eq!(made, grids(&order, |i| classes[i], 2, 10, 7));
        assert_ne!(made, grids(&order, |i| classes[i], 2, 10, 8));
        assert_eq!(grids(&order, |i| classes[i], 2, 1, 7), made[..1]);
        assert!(grids(&order, |i| classes[i], 3, 1, 7).is_empty());
    }

    #[test]
    fn a_score_is_the_share_of_what_is_positive() {
        // Two cells by two, of 1 x 2 pixels each.
        let map = [1.0, 2.0, 4.0, -9.0, 0.0, 0.0, -1.0, 1.0];
        let shares = [0, 1, 2, 3].map(|cell| score(&map, [2, 4], 2, cell));
        assert_eq!(shares, [3.0 / 8.0, 4.0 / 8.0, 0.0, 1.0 / 8.0]);
        assert_eq!(score(&[-1.0; 8], [2, 4], 2, 0), 0.0);
    }

    #[test]
    fn pictures_are_laid_out_row_after_row() {
        let picture = |x: f32| Images {
            dims: vec![1, 2, 1, 2],
            data: vec![x, x + 0.1, -x, -x - 0.1],
        };
        let whole = tile(&[1.0, 2.0, 3.0, 4.0].map(picture), 2);
        assert_eq!(whole.dims, [1, 2, 2, 4]);
        let first = [1.0, 1.1, 2.0, 2.1, 3.0, 3.1, 4.0, 4.1];
        assert_eq!(whole.data[..8], first);
        assert_eq!(whole.data[8..], first.map(|x| -x));
    }
}

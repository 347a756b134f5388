//! Preprocessing inside the graph: pixels are normalised before the first layer.
//!
//! ```text
//! x = ((Transpose (Cast (pixels)) / 255) - mean) / std
//! ```
//!
//! Any chain of casts, one transposition from channels last to channels first, and sums and products with constants
//! (per channel or scalar) is (pixel - mean) / std. White is 255 for bytes, and for floats if the mean or the
//! standard deviation is far above 1.

use bcosc_ir::ops::Trait;
use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Patch, Shape, TensorType, Use, Value};

use crate::analysis::layers::data_consumers;
use crate::analysis::weights;
use crate::{Normalization, PassError};

/// A mean or standard deviation above this is for pixels in [0, 255].
const LARGEST: f64 = 2.0;

/// A recognised chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    /// The normalisation of images in [0, 1].
    pub normalization: Normalization,
    /// The value of a white pixel: 1 or 255.
    pub white: f64,
    /// Whether images come as [N, H, W, C].
    pub channels_last: bool,
    /// Whether a constant is added or multiplied. Transpositions and casts alone are not a normalisation.
    pub normalizes: bool,
    /// The normalised image [N, C, H, W].
    pub result: Value,
    image: Value,
    dtype: DataType,
}

impl Preprocessing {
    /// Recognises preprocessing of an image input. `None` if there is none.
    pub fn of(graph: &Graph, image: Value) -> Option<Self> {
        let declared = graph.value_type(image)?;
        let shape = declared.shape.clone().filter(|shape| shape.len() == 4)?;
        let mut dtype = declared.dtype;
        let mut chain = Vec::new();
        let mut result = image;
        while let Some(node) = only_reader(graph, result) {
            let Some(step) = Step::of(graph, node, result) else {
                break;
            };
            if step == Step::ChannelsFirst && chain.contains(&step) {
                break;
            }
            result = graph.output(node, 0);
            chain.push(step);
        }
        let channels_last = chain.contains(&Step::ChannelsFirst);
        let channels = usize::try_from(shape[if channels_last { 3 } else { 1 }].known()?).ok()?;
        let (mut factor, mut shift) = (vec![1.0; channels], vec![0.0; channels]);
        let mut moved = !channels_last;
        for step in &chain {
            match step {
                Step::Cast(to) => dtype = to.unwrap_or(dtype),
                Step::ChannelsFirst => moved = true,
                Step::Affine { times, plus } => {
                    let (times, plus) = (
                        times.spread(channels, moved)?,
                        plus.spread(channels, moved)?,
                    );
                    for c in 0..channels {
                        factor[c] *= times[c];
                        shift[c] = shift[c] * times[c] + plus[c];
                    }
                }
            }
        }
        if result == image
            || !dtype.is_float()
            || factor.iter().any(|a| !(a.is_finite() && *a > 0.0))
        {
            return None;
        }
        if channels_last && graph.uses(image).len() > 1 {
            // Consumers of its shape would see a different one.
            return None;
        }
        let pairs = || factor.iter().zip(&shift);
        let large = |(a, b): (&f64, &f64)| 1.0 / a > LARGEST || (b / a).abs() > LARGEST;
        let counts_to_255 = declared.dtype == DataType::Uint8 || pairs().any(large);
        let white = if counts_to_255 { 255.0 } else { 1.0 };
        let (mean, std) = pairs()
            .map(|(a, b)| (-b / a / white, 1.0 / a / white))
            .unzip();
        Some(Preprocessing {
            normalization: Normalization { mean, std },
            white,
            channels_last,
            normalizes: chain.iter().any(|step| matches!(step, Step::Affine { .. })),
            result,
            image,
            dtype,
        })
    }

    /// Removes the preprocessing from the model, which then takes normalised images [N, C, H, W].
    ///
    /// # Errors
    /// An internal error.
    pub fn remove(&self, model: &mut Model) -> Result<(), PassError> {
        let graph = &mut model.graph;
        let found = graph.value_type(self.image);
        let shape = found.and_then(|t| t.shape).unwrap_or_default();
        let order: [usize; 4] = if self.channels_last {
            [0, 3, 1, 2]
        } else {
            [0, 1, 2, 3]
        };
        let shape: Shape = order
            .iter()
            .map(|&axis| shape.get(axis).cloned().unwrap_or(Dim::Unknown))
            .collect();
        let mut patch = Patch::at(self.result.node);
        patch.replace_retyped(self.result, self.image);
        graph.apply(patch)?;
        graph.retype_input(
            self.image,
            TensorType {
                dtype: self.dtype,
                shape: Some(shape),
            },
        );
        graph.remove_dead();
        Ok(())
    }
}

/// The only consumer of a value's elements; `None` if the value is also an output.
fn only_reader(graph: &Graph, value: Value) -> Option<NodeId> {
    let is_output = |usage: &Use| matches!(usage, Use::Output(_));
    let &[node] = &data_consumers(graph, value)[..] else {
        return None;
    };
    (!graph.uses(value).iter().any(is_output)).then_some(node)
}

/// One operator of the chain.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A cast; `None` if it keeps the type.
    Cast(Option<DataType>),
    ChannelsFirst,
    /// `times * x + plus`.
    Affine {
        times: Numbers,
        plus: Numbers,
    },
}

/// A constant: a scalar, or a vector along an axis counted from the end.
#[derive(Clone, Debug, PartialEq)]
enum Numbers {
    One(f64),
    Many { behind: usize, numbers: Vec<f64> },
}

impl Step {
    fn of(graph: &Graph, node: NodeId, x: Value) -> Option<Self> {
        let op = graph.op(node).filter(|op| op.domain().is_empty())?;
        let name = op.op_type();
        match name {
            _ if op.has(Trait::Copy) => return Some(Step::Cast(None)),
            "Cast" => {
                let to = op.get("to").and_then(DataType::from_i32)?;
                return to.is_float().then_some(Step::Cast(Some(to)));
            }
            "Transpose" => {
                return (op.get::<&[i64]>("perm")? == [0, 3, 1, 2]).then_some(Step::ChannelsFirst);
            }
            "Add" | "Sub" | "Mul" | "Div" => {}
            _ => return None,
        }
        let (constant, reversed) = match graph.inputs_of(node)[..] {
            [Some(a), Some(b)] if a == x && b != x => (b, false),
            [Some(a), Some(b)] if b == x && a != x => (a, true),
            _ => return None,
        };
        let numbers = Numbers::of(graph, constant)?;
        let (one, zero) = (Numbers::One(1.0), Numbers::One(0.0));
        let (times, plus) = match (name, reversed) {
            ("Add", _) => (one, numbers),
            ("Sub", false) => (one, numbers.map(|x| -x)),
            ("Mul", _) => (numbers, zero),
            ("Div", false) => (numbers.map(|x| 1.0 / x), zero),
            _ => return None,
        };
        Some(Step::Affine { times, plus })
    }
}

impl Numbers {
    fn of(graph: &Graph, constant: Value) -> Option<Self> {
        let floats = weights::floats(graph, constant).ok()?;
        if let [one] = floats.elements[..] {
            return Some(Numbers::One(one));
        }
        let mut wide = floats
            .dims
            .iter()
            .rev()
            .enumerate()
            .filter(|(_, d)| **d > 1);
        let (behind, _) = wide.next()?;
        let numbers = floats.elements;
        wide.next()
            .is_none()
            .then_some(Numbers::Many { behind, numbers })
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        match self {
            Numbers::One(x) => Numbers::One(f(x)),
            Numbers::Many { behind, numbers } => Numbers::Many {
                behind,
                numbers: numbers.into_iter().map(f).collect(),
            },
        }
    }

    /// One number per channel, if the constant is per channel or scalar.
    fn spread(&self, channels: usize, channels_first: bool) -> Option<Vec<f64>> {
        match self {
            Numbers::One(x) => Some(vec![*x; channels]),
            Numbers::Many { behind, numbers } => {
                let fits =
                    *behind == if channels_first { 2 } else { 0 } && numbers.len() == channels;
                fits.then(|| numbers.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests;

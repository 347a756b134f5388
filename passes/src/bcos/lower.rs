//! Lowers B-cos layers to standard ONNX.
//!
//! The squared norm of a patch is a sum over channels, then over the window; both are convolutions with
//! ones, and the window runs on one channel per group:
//!
//! ```text
//! n = bcosc.PatchNorm (x)
//! n = Sqrt (Conv <window> (Conv (x * x, ones [G, C/G, 1, 1]), ones [G, 1, k, k]) + 1e-6)
//!
//! z = bcosc.Scale <b = 2> (y, n)          z = Mul (y, Div (Abs (y), n))
//! z = bcosc.Scale <b> (y, n)              z = Mul (y, Pow (Div (Abs (y), n) + 1e-6, b - 1))
//!
//! n = bcosc.VectorNorm <axis> (x)         n = ReduceL2 <axis> (x) + 1e-12
//! ```
//!
//! With a constant channel, which carries the bias of the layer:
//!
//! ```text
//! n = bcosc.PatchNorm <constant = 1> (x)             n = Sqrt (... + 1)
//! n = bcosc.VectorNorm <axis, constant = 1> (x)      n = Sqrt (ReduceSumSquare <axis> (x) + 1)
//! ```

use std::collections::BTreeMap;

use bcosc_ir::views::{AxesOp, Window, reduce};
use bcosc_ir::{DataType, Model, Op, Operand, Patch, Value};

use crate::analysis::weights;
use crate::bcos::ones::Ones;
use crate::dialect::{COSINE_EPSILON, PATCH_EPSILON, PatchNorm, Scale, VECTOR_EPSILON, VectorNorm};
use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static LOWER: Pass = Pass {
    name: "lower",
    summary: "write B-cos layers as standard ONNX operators",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    // Unused nodes are removed at the end, since another norm may still share the sums of an unused one.
    model.graph.remove_dead();
    let mut lowering = Lowering {
        opset: model.opset("").unwrap_or(0),
        ..Lowering::default()
    };
    for node in model.graph.ops() {
        let graph = &model.graph;
        let dtype = |value| graph.value_type(value).map_or(DataType::Float, |t| t.dtype);
        let y = Value { node, slot: 0 };
        let mut patch = Patch::at(node);
        let mut made = Vec::new();
        let result = if let Some(norm) = PatchNorm::of(graph, node) {
            lowering.patch_norm(&mut patch, &norm, dtype(norm.x), &mut made)
        } else if let Some(norm) = VectorNorm::of(graph, node) {
            lowering.vector_norm(&mut patch, &norm, dtype(norm.x))
        } else if let Some(scale) = Scale::of(graph, node) {
            outcome.changed(graph.label(node), "written in standard operators");
            scaled(&mut patch, &scale, dtype(scale.y))
        } else {
            continue;
        };
        patch.replace(y, result);
        let added = model.graph.apply(patch)?;
        let made = made.into_iter();
        let made = made.filter_map(|(key, operand)| Some((key, operand.applied(&added)?)));
        lowering.sums.extend(made);
    }
    Ok(outcome)
}

/// Sums that several norms need: of the squares of a value over groups of channels, by stride if the
/// window is a single cell.
type SumKey = (Value, Sum);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sum {
    Squares,
    Channels { group: u64, strides: Vec<i64> },
}

#[derive(Default)]
struct Lowering {
    opset: i64,
    sums: BTreeMap<SumKey, Value>,
}

impl Lowering {
    fn patch_norm(
        &self,
        patch: &mut Patch,
        norm: &PatchNorm,
        dtype: DataType,
        made: &mut Vec<(SumKey, Operand)>,
    ) -> Operand {
        let mut shared =
            |patch: &mut Patch, key: SumKey, build: &mut dyn FnMut(&mut Patch) -> Operand| {
                if let Some(value) = self.sums.get(&key) {
                    return Operand::Old(*value);
                }
                let sum = build(patch);
                made.push((key, sum));
                sum
            };
        let (group, rank) = (norm.group, norm.window.rank());
        let per_group = norm.channels / group;
        let single = norm.window.is_single_cell();
        let first = match single {
            true => norm.window.clone(),
            false => Window::pointwise(rank),
        };
        let narrow = dtype;
        let dtype = accumulator(narrow);
        let mut sum = shared(patch, (norm.x, Sum::Squares), &mut |patch| {
            let x = cast(patch, norm.x.into(), narrow, dtype);
            patch.op(Op::new("", "Mul").named("squares"), &[x, x])
        });
        let steps = !first.is_pointwise();
        if per_group > 1 || (single && steps) {
            let key = (
                norm.x,
                Sum::Channels {
                    group,
                    strides: first.strides.clone(),
                },
            );
            sum = shared(patch, key, &mut |patch| {
                Ones::sum(&first, group, per_group).write(patch, "channel_sum", sum, dtype)
            });
        }
        if !single {
            sum = Ones::sum(&norm.window, group, 1).write(patch, "window_sum", sum, dtype);
        }
        let norm = match norm.constant {
            true => root(patch, sum, ("one", 1.0), dtype),
            false => root(patch, sum, ("epsilon", PATCH_EPSILON), dtype),
        };
        cast(patch, norm, dtype, narrow)
    }

    fn vector_norm(&self, patch: &mut Patch, norm: &VectorNorm, dtype: DataType) -> Operand {
        let wide = accumulator(dtype);
        let x = cast(patch, norm.x.into(), dtype, wide);
        let mut along = |op| reduce(patch, self.opset, op, x, &[norm.axis]);
        let length = if norm.constant {
            let sum = along(AxesOp::ReduceSumSquare);
            let length = root(patch, sum, ("one", 1.0), wide);
            cast(patch, length, wide, dtype)
        } else {
            let length = along(AxesOp::ReduceL2);
            let length = cast(patch, length, wide, dtype);
            let epsilon = match dtype {
                // The smallest number that half precision can take the reciprocal of.
                DataType::Float16 => half::f16::MIN_POSITIVE.to_f64(),
                _ => VECTOR_EPSILON,
            };
            let epsilon = patch.parameter("epsilon", weights::tensor(dtype, &[], &[epsilon]));
            patch.op(Op::new("", "Add").named("norm"), &[length, epsilon])
        };
        if norm.transposed {
            return patch.op(
                Op::new("", "Transpose").with_ints("perm", &[1, 0]),
                &[length],
            );
        }
        length
    }
}

/// The root of a sum of squares and a named number.
fn root(patch: &mut Patch, sum: Operand, (name, x): (&str, f64), dtype: DataType) -> Operand {
    let addend = patch.parameter(name, weights::tensor(dtype, &[], &[x]));
    let sum = patch.op(Op::new("", "Add").named("squared_norm"), &[sum, addend]);
    patch.op(Op::new("", "Sqrt").named("norm"), &[sum])
}

/// The type of sums of squares: in half precision, squares overflow beyond 255 and sums lose precision.
fn accumulator(dtype: DataType) -> DataType {
    match dtype {
        DataType::Float16 | DataType::Bfloat16 => DataType::Float,
        _ => dtype,
    }
}

fn cast(patch: &mut Patch, x: Operand, from: DataType, to: DataType) -> Operand {
    if from == to {
        return x;
    }
    let op = Op::new("", "Cast").named("cast");
    patch.op(op.with_int("to", to.to_i32().into()), &[x])
}

fn scaled(patch: &mut Patch, scale: &Scale, dtype: DataType) -> Operand {
    let y = Operand::Old(scale.y);
    let mut norm = Operand::Old(scale.norm);
    if scale.group > 1 && scale.group != scale.channels {
        let window = Window::pointwise(scale.spatial);
        let spread = Ones {
            out: scale.channels,
            ..Ones::sum(&window, scale.group, 1)
        };
        norm = spread.write(patch, "group_norm", norm, dtype);
    }
    let size = patch.op(Op::new("", "Abs"), &[y]);
    let mut factor = patch.op(Op::new("", "Div").named("cosine"), &[size, norm]);
    if scale.b != 2.0 {
        let epsilon = patch.parameter("epsilon", weights::tensor(dtype, &[], &[COSINE_EPSILON]));
        let exponent = patch.parameter("exponent", weights::tensor(dtype, &[], &[scale.b - 1.0]));
        let cosine = patch.op(Op::new("", "Add"), &[factor, epsilon]);
        factor = patch.op(Op::new("", "Pow").named("factor"), &[cosine, exponent]);
    }
    patch.op(Op::new("", "Mul").named("scaled"), &[y, factor])
}

#[cfg(test)]
mod tests;

//! B-cos layers in standard ONNX.
//!
//! The squared norm of a patch is a sum over channels, then over the window; both are convolutions with
//! ones, and the window runs on one channel a group:
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

use std::collections::BTreeMap;

use bcosc_ir::views::{AxesOp, Window, reduce};
use bcosc_ir::{DataType, Model, Op, Operand, Patch, Value};

use crate::marker::{PatchNorm, Scale, VectorNorm};
use crate::{Context, Effect, Outcome, Pass, PassError, weights};

/// The pass.
pub struct Lower;

/// Added to the squared norm of a patch.
pub const PATCH_EPSILON: f64 = 1e-6;
/// Added to the norm of a vector.
pub const VECTOR_EPSILON: f64 = 1e-12;
/// Added to the cosine before a power other than 1.
pub const COSINE_EPSILON: f64 = 1e-6;

impl Pass for Lower {
    fn name(&self) -> &'static str {
        "lower"
    }

    fn summary(&self) -> &'static str {
        "write B-cos layers in standard ONNX operators"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "only operators that any runtime knows"
    }

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        // A norm that nothing uses would go while another is about to share its sums.
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
                ones_conv(
                    patch,
                    "channel_sum",
                    sum,
                    [group, per_group],
                    group,
                    &first,
                    dtype,
                )
            });
        }
        if !single {
            sum = ones_conv(
                patch,
                "window_sum",
                sum,
                [group, 1],
                group,
                &norm.window,
                dtype,
            );
        }
        let epsilon = patch.parameter("epsilon", weights::tensor(dtype, &[], &[PATCH_EPSILON]));
        let sum = patch.op(Op::new("", "Add").named("squared_norm"), &[sum, epsilon]);
        let norm = patch.op(Op::new("", "Sqrt").named("norm"), &[sum]);
        cast(patch, norm, dtype, narrow)
    }

    fn vector_norm(&self, patch: &mut Patch, norm: &VectorNorm, dtype: DataType) -> Operand {
        let wide = accumulator(dtype);
        let x = cast(patch, norm.x.into(), dtype, wide);
        let length = reduce(patch, self.opset, AxesOp::ReduceL2, x, &[norm.axis]);
        let length = cast(patch, length, wide, dtype);
        let epsilon = match dtype {
            // The smallest number that half precision can take the reciprocal of.
            DataType::Float16 => half::f16::MIN_POSITIVE.to_f64(),
            _ => VECTOR_EPSILON,
        };
        let epsilon = patch.parameter("epsilon", weights::tensor(dtype, &[], &[epsilon]));
        let length = patch.op(Op::new("", "Add").named("norm"), &[length, epsilon]);
        if norm.transposed {
            return patch.op(
                Op::new("", "Transpose").with_ints("perm", &[1, 0]),
                &[length],
            );
        }
        length
    }
}

/// What squares are summed in: in half precision they overflow beyond 255, and round after a few hundred.
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

fn ones_conv(
    patch: &mut Patch,
    name: &str,
    x: Operand,
    [out, per_group]: [u64; 2],
    group: u64,
    window: &Window,
    dtype: DataType,
) -> Operand {
    let mut dims = vec![out, per_group];
    dims.extend(window.kernel.iter().map(|&k| k as u64));
    let count = dims.iter().product::<u64>() as usize;
    let ones = patch.parameter("ones", weights::tensor(dtype, &dims, &vec![1.0; count]));
    let op = window.write(Op::new("", "Conv").named(name));
    patch.op(
        if group > 1 {
            op.with_int("group", group as i64)
        } else {
            op
        },
        &[x, ones],
    )
}

fn scaled(patch: &mut Patch, scale: &Scale, dtype: DataType) -> Operand {
    let y = Operand::Old(scale.y);
    let mut norm = Operand::Old(scale.norm);
    if scale.group > 1 && scale.group != scale.channels {
        let window = Window::pointwise(scale.spatial);
        norm = ones_conv(
            patch,
            "group_norm",
            norm,
            [scale.channels, 1],
            scale.group,
            &window,
            dtype,
        );
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
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensors};

    use super::*;
    use crate::cnn::bcos::Bcos;
    use crate::cnn::testing::{Layers, after, exponent, image, outputs};
    use crate::testing::text;

    #[test]
    fn a_window_over_groups() {
        let group = vec![Attribute::int("group", 2)];
        let before = image("batch,4,6,8").conv("x", "y", &[6, 2, 3, 3], group);
        let lowered = after(&[&Bcos, &Lower], &before.typed("y"), &exponent(2.0));
        insta::assert_snapshot!(text(&lowered), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4,6,8] x) => (y)
        <
           float[6,2,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7},
           float[2,2,1,1] "y.patch_norm.ones" = {1.0, 1.0, 1.0, 1.0},
           float[2,1,3,3] "y.patch_norm.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 66a1a092},
           float "y.patch_norm.epsilon" = {1e-6},
           float[6,1,1,1] "y.bcos.ones" = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
        >
        {
           "y.before" = Conv <group = 2> (x, "y.w")
           ["y.patch_norm.squares"] "y.patch_norm.squares" = Mul (x, x)  # from y
           ["y.patch_norm.channel_sum"] "y.patch_norm.channel_sum" = Conv <kernel_shape = [1, 1], group = 2> ("y.patch_norm.squares", "y.patch_norm.ones")  # from y
           ["y.patch_norm.window_sum"] "y.patch_norm.window_sum" = Conv <kernel_shape = [3, 3], group = 2> ("y.patch_norm.channel_sum", "y.patch_norm.ones_2")  # from y
           ["y.patch_norm.squared_norm"] "y.patch_norm.squared_norm" = Add ("y.patch_norm.window_sum", "y.patch_norm.epsilon")  # from y
           ["y.patch_norm.norm"] "y.patch_norm.norm" = Sqrt ("y.patch_norm.squared_norm")  # from y
           ["y.bcos.group_norm"] "y.bcos.group_norm" = Conv <kernel_shape = [1, 1], group = 2> ("y.patch_norm.norm", "y.bcos.ones")  # from y
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.cosine"] "y.bcos.cosine" = Div ("y.bcos.abs", "y.bcos.group_norm")  # from y
           ["y.bcos.scaled"] y = Mul ("y.before", "y.bcos.cosine")  # from y
        }
        "#);
    }

    #[test]
    fn a_single_cell_with_another_exponent() {
        let strides = vec![Attribute::ints("strides", &[2, 2])];
        let before = image("batch,4,6,8").conv("x", "y", &[6, 4, 1, 1], strides);
        let lowered = after(&[&Bcos, &Lower], &before.typed("y"), &exponent(1.5));
        insta::assert_snapshot!(text(&lowered), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4,6,8] x) => (y)
        <
           float[6,4,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 542994cb},
           float[1,4,1,1] "y.patch_norm.ones" = {1.0, 1.0, 1.0, 1.0},
           float "y.patch_norm.epsilon" = {1e-6},
           float "y.bcos.epsilon" = {1e-6},
           float "y.bcos.exponent" = {0.5}
        >
        {
           "y.before" = Conv <strides = [2, 2]> (x, "y.w")
           ["y.patch_norm.squares"] "y.patch_norm.squares" = Mul (x, x)  # from y
           ["y.patch_norm.channel_sum"] "y.patch_norm.channel_sum" = Conv <kernel_shape = [1, 1], strides = [2, 2]> ("y.patch_norm.squares", "y.patch_norm.ones")  # from y
           ["y.patch_norm.squared_norm"] "y.patch_norm.squared_norm" = Add ("y.patch_norm.channel_sum", "y.patch_norm.epsilon")  # from y
           ["y.patch_norm.norm"] "y.patch_norm.norm" = Sqrt ("y.patch_norm.squared_norm")  # from y
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.cosine"] "y.bcos.cosine" = Div ("y.bcos.abs", "y.patch_norm.norm")  # from y
           ["y.bcos.add"] "y.bcos.add" = Add ("y.bcos.cosine", "y.bcos.epsilon")  # from y
           ["y.bcos.factor"] "y.bcos.factor" = Pow ("y.bcos.add", "y.bcos.exponent")  # from y
           ["y.bcos.scaled"] y = Mul ("y.before", "y.bcos.factor")  # from y
        }
        "#);
    }

    #[test]
    fn reductions_follow_the_opset() {
        for (opset, attribute) in [(13, true), (18, false)] {
            let before = ModelBuilder::new(opset)
                .input("x", DataType::Float, "batch,4")
                .matmul("x", "y", &[4, 3])
                .typed("y");
            let lowered = after(&[&Bcos, &Lower], &before, &exponent(2.0));
            let ops = lowered.graph.ops().into_iter();
            let mut norms = ops.filter_map(|id| lowered.graph.op(id));
            let norm = norms.find(|op| op.is("ReduceL2"));
            assert!(norm.is_some_and(|op| op.ints("axes").is_some() == attribute));
        }
    }

    #[test]
    fn half_precision_is_summed_in_single() {
        // Each square is beyond the largest half-precision number.
        let dtype = DataType::Float16;
        let halves = |dims: &[u64], x: f64| {
            let count = dims.iter().product::<u64>() as usize;
            weights::tensor(dtype, dims, &vec![x; count])
        };
        let convolution = ModelBuilder::new(17)
            .input("x", dtype, "1,64,2,2")
            .param("w", halves(&[1, 64, 1, 1], 1.0 / 64.0))
            .op("Conv", &["x", "w"], "y", [])
            .typed("y");
        let product = ModelBuilder::new(17)
            .input("x", dtype, "1,64")
            .param("w", halves(&[64, 1], 1.0 / 64.0))
            .op("MatMul", &["x", "w"], "y", [])
            .typed("y");
        for (before, dims) in [(convolution, &[1, 64, 2, 2][..]), (product, &[1, 64])] {
            let lowered = after(&[&Bcos, &Lower], &before, &exponent(2.0));
            let inputs = Tensors::from([("x".to_owned(), halves(dims, 512.0))]);
            // w.x = 512, ||x|| = 8 * 512.
            for y in &outputs(&lowered, &inputs)[0].data {
                assert!((y - 512.0 / 8.0).abs() < 0.1, "{y}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for dtype in [DataType::Float16, DataType::Float, DataType::Double] {
            for b in [2.0, 1.5] {
                let before = ModelBuilder::new(13)
                    .input("x", dtype, "1,2")
                    .param("w", weights::tensor(dtype, &[2, 2], &[0.5, 1.0, -1.0, 2.0]))
                    .op("MatMul", &["x", "w"], "y", [])
                    .typed("y");
                let lowered = after(&[&Bcos, &Lower], &before, &exponent(b));
                let zeros = weights::tensor(dtype, &[1, 2], &[0.0, 0.0]);
                let inputs = Tensors::from([("x".to_owned(), zeros)]);
                let found = outputs(&lowered, &inputs);
                assert_eq!(found[0].data, [0.0, 0.0], "{dtype}, B = {b}");
            }
        }
    }

    #[test]
    fn windows_of_one_input_share_the_sum_over_channels() {
        let before = image("batch,4,6,8")
            .conv("x", "a", &[6, 4, 3, 3], vec![])
            .conv("x", "b", &[6, 4, 5, 5], vec![])
            .output("a")
            .typed("b");
        let lowered = after(&[&Bcos, &Lower], &before, &exponent(2.0));
        let ops = lowered.graph.ops().into_iter();
        let names = ops
            .filter_map(|id| lowered.graph.op(id))
            .map(|op| op.name());
        assert_eq!(names.filter(|n| n.ends_with("channel_sum")).count(), 1);
    }

    #[test]
    fn a_norm_that_nothing_uses_goes() {
        // The first layer's norm shares its sums with the second, and is not used any more.
        let before = image("batch,4,6,8")
            .conv("x", "a", &[6, 4, 3, 3], vec![])
            .conv("x", "b", &[6, 4, 5, 5], vec![])
            .output("a")
            .typed("b");
        let mut marked = after(&[&Bcos], &before, &exponent(2.0));
        let kept = marked.graph.outputs()[1].value;
        marked.graph.set_outputs(&[(kept, "b".to_owned())]);
        let lowered = after(&[&Lower], &marked, &exponent(2.0));
        assert!(lowered.graph.value_named("a.norm").is_none());
    }
}

//! Replaces max pools by average pools, which are linear.
//!
//! ```text
//! y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)
//! y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (x)
//! ```
//!
//! Altering. Window, stride and padding stay. Padding counts as zeros; positions beyond the padding, in the last
//! window with `ceil_mode`, do not count.

use bcosc_ir::views::{Pool, PoolKind};
use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Value};

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static AVERAGE_POOLS: Pass = Pass {
    name: "max-to-average-pools",
    summary: "replace max pools by average pools",
    effect: Effect::Altering,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let opset = model.opset("").unwrap_or(0);
    for node in model.graph.ops() {
        let graph = &model.graph;
        if !graph
            .op(node)
            .is_some_and(|op| op.is("MaxPool") || op.is("GlobalMaxPool"))
        {
            continue;
        }
        if cx.settings.keep_max_pool {
            outcome.skipped(graph.label(node), Reason::Kept("--keep-max-pool"));
            continue;
        }
        match average(graph, node, opset) {
            Ok(patch) => {
                outcome.changed(graph.label(node), "average pool with the same window");
                model.graph.apply(patch)?;
            }
            Err(reason) => outcome.skipped(graph.label(node), reason),
        }
    }
    Ok(outcome)
}

fn average(graph: &Graph, node: NodeId, opset: i64) -> Result<Patch, Reason> {
    let y = Value { node, slot: 0 };
    let found = graph.value_type(y);
    if found.is_some_and(|found| !found.dtype.is_float()) {
        return Err(Reason::NotFloating);
    }
    let mut patch = Patch::at(node);
    if graph.op(node).is_some_and(|op| op.is("GlobalMaxPool")) {
        let x = graph.input(node, 0).ok_or(Reason::Malformed)?;
        let pooled = patch.op(Op::new("", "GlobalAveragePool"), &[x.into()]);
        patch.replace(y, pooled);
        return Ok(patch);
    }
    let pool = Pool::of(graph, node)
        .filter(|p| p.kind == PoolKind::Max)
        .ok_or(Reason::Malformed)?;
    let indices_used =
        (1..graph.output_count(node)).any(|slot| !graph.uses(Value { node, slot }).is_empty());
    if indices_used {
        return Err(Reason::IndicesUsed);
    }
    if pool.window.dilations.iter().any(|&d| d != 1) && opset < 19 {
        return Err(Reason::NeedsOpset {
            opset: 19,
            what: "average pooling with dilations",
        });
    }
    let mut op = pool.window.write(Op::new("", "AveragePool"));
    if pool.window.is_padded() {
        op = op.with_int("count_include_pad", 1);
    }
    // With a stride of 1 the last window ends at the border anyway.
    if pool.ceil_mode && pool.window.strides.iter().any(|&s| s != 1) {
        op = op.with_int("ceil_mode", 1);
    }
    let pooled = patch.op(op, &[pool.x.into()]);
    patch.replace(y, pooled);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor, Tensors};

    use super::*;
    use crate::Settings;
    use crate::testing::{Array, after, image, model, outputs, passed, reasons, text};

    fn pool(opset: i64, dims: &str, attributes: Vec<Attribute>) -> Model {
        let builder = ModelBuilder::new(opset).input("x", DataType::Float, dims);
        model(builder.op("MaxPool", &["x"], "y", attributes).output("y"))
    }

    fn averaged(before: &Model) -> Model {
        after(&[&AVERAGE_POOLS], before, &Settings::default())
    }

    fn refusal(before: &Model, settings: &Settings) -> Vec<Reason> {
        match passed(&[&AVERAGE_POOLS], before, settings, None) {
            Ok((_, outcome)) => {
                assert!(outcome.changes.is_empty());
                reasons(outcome)
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn ints(name: &str, values: &[i64]) -> Attribute {
        Attribute::ints(name, values)
    }

    #[test]
    fn the_window_stays() {
        let attributes = vec![
            ints("kernel_shape", &[3, 3]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 1, 1]),
        ];
        let before = pool(11, "batch,3,8,8", attributes);
        insta::assert_snapshot!(text(&averaged(&before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 11]
        >
        main (float[batch,3,8,8] x) => (y) {
           ["y.averagepool"] y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], count_include_pad = 1> (x)  # from y
        }
        "#);
    }

    /// Means of 1, 2, 3... over a window of 3 with a stride of 2.
    fn means(size: u64, more: Vec<Attribute>) -> Vec<f64> {
        let mut attributes = vec![ints("kernel_shape", &[3]), ints("strides", &[2])];
        attributes.extend(more);
        let after = averaged(&pool(11, "1,1,n", attributes));
        let x = Tensor::f32s(&[1, 1, size], (1..=size).map(|i| i as f32).collect());
        let inputs = Tensors::from([("x".to_owned(), x)]);
        let Array { data, .. } = outputs(&after, &inputs).remove(0);
        data.into_iter().map(|x| (x * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn padding_counts_and_what_hangs_over_does_not() {
        let ceil = || Attribute::int("ceil_mode", 1);
        let padded = || ints("pads", &[1, 1]);
        let same = |how| vec![Attribute::string("auto_pad", how)];
        assert_eq!(means(6, vec![]), [2.0, 4.0]);
        assert_eq!(means(6, vec![ceil()]), [2.0, 4.0, 5.5]);
        assert_eq!(means(6, vec![padded()]), [1.0, 3.0, 5.0]);
        assert_eq!(means(6, vec![padded(), ceil()]), [1.0, 3.0, 5.0, 3.0]);
        assert_eq!(means(6, same("SAME_UPPER")), [2.0, 4.0, 3.6667]);
        assert_eq!(means(6, same("SAME_LOWER")), [1.0, 3.0, 5.0]);
        assert_eq!(means(6, same("VALID")), [2.0, 4.0]);
    }

    #[test]
    fn a_global_pool_stays_global() {
        let builder = image("batch,3,4,4").op("GlobalMaxPool", &["x"], "y", []);
        let after = averaged(&model(builder.output("y")));
        let ops = after.graph.ops();
        assert!(
            after
                .graph
                .op(ops[0])
                .is_some_and(|op| op.is("GlobalAveragePool"))
        );
    }

    #[test]
    fn a_pool_whose_indices_are_used_stays() {
        let builder =
            image("batch,3,4,4").op("MaxPool", &["x"], "y,i", [ints("kernel_shape", &[2, 2])]);
        let before = model(builder.output("y").output("i"));
        assert_eq!(
            refusal(&before, &Settings::default()),
            [Reason::IndicesUsed]
        );
    }

    #[test]
    fn dilations_need_opset_19() {
        let attributes = vec![ints("kernel_shape", &[2]), ints("dilations", &[2])];
        let before = pool(18, "1,1,8", attributes.clone());
        let needed = Reason::NeedsOpset {
            opset: 19,
            what: "average pooling with dilations",
        };
        assert_eq!(refusal(&before, &Settings::default()), [needed]);
        averaged(&pool(19, "1,1,8", attributes));
    }

    #[test]
    fn max_pools_can_be_kept() {
        let settings = Settings {
            keep_max_pool: true,
            ..Settings::default()
        };
        let before = pool(11, "1,1,8", vec![ints("kernel_shape", &[2])]);
        assert_eq!(
            refusal(&before, &settings),
            [Reason::Kept("--keep-max-pool")]
        );
    }

    #[test]
    fn a_pool_of_integers_stays() {
        let window = ints("kernel_shape", &[2]);
        let builder = ModelBuilder::new(13).input("x", DataType::Uint8, "1,1,8");
        let before =
            builder
                .op("MaxPool", &["x"], "y", [window])
                .output_as("y", DataType::Uint8, "1,1,7");
        let reasons = refusal(&model(before), &Settings::default());
        assert_eq!(reasons, [Reason::NotFloating]);
    }

    #[test]
    fn a_pool_without_a_window_stays() {
        for attributes in [
            vec![],
            vec![ints("kernel_shape", &[2]), ints("strides", &[1, 1])],
        ] {
            let before = pool(11, "1,1,8", attributes);
            assert_eq!(refusal(&before, &Settings::default()), [Reason::Malformed]);
        }
    }
}

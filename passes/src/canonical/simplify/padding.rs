//! Merges zero padding into the next operator.
//!
//! ```text
//! Pad (x, 0 everywhere)                             = x
//! Conv <pads = a> (Pad (x, b), w)                   = Conv <pads = a + b> (x, w)
//! AveragePool <pads = a> (Pad (x, b))               = AveragePool <pads = a + b, count_include_pad = 1> (x)
//! ```
//!
//! The padding must be with the constant 0, on spatial axes, and not negative. A pool must count its own padding,
//! if any, since it counts the zeros of the `Pad`; with `ceil_mode` a window across the border would treat
//! them differently.

use bcosc_ir::views::{Conv, Padding, Pool, PoolKind};
use bcosc_ir::{Attribute, Graph, NodeId, Patch, Use};

use super::trivial::shape_of;
use crate::Reason;
use crate::canonical::constants;
use crate::canonical::worklist::Site;

pub(super) fn nothing(site: &Site<'_>) -> Result<Patch, Reason> {
    let pads = constants::list(site.graph, site.node, "pads", 1)?.ok_or(Reason::Malformed)?;
    // Comparing shapes is not enough: 1 in front and -1 at the end shifts the content.
    if pads.iter().any(|&pad| pad != 0) {
        return Err(Reason::Needed("it pads"));
    }
    site.bypass(site.input(0)?)
}

pub(super) fn merge(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let x = site.input(0)?;
    let pads = spatial_pads(site)?;
    let uses = graph.uses(site.output());
    if uses.is_empty() {
        return Err(Reason::Needed("there is no consumer to merge it into"));
    }
    let mut patch = Patch::at(node);
    for usage in uses {
        let Use::Input {
            node: consumer,
            slot: 0,
        } = usage
        else {
            return Err(Reason::UsedElsewhere(
                graph.value_name(site.output()).to_owned(),
            ));
        };
        absorb(&mut patch, graph, consumer, &pads)?;
        patch.set_input(consumer, 0, Some(x.into()));
    }
    Ok(patch)
}

/// Cells of zeros before and after each spatial axis.
fn spatial_pads(site: &Site<'_>) -> Result<Vec<i64>, Reason> {
    let Site {
        graph, node, op, ..
    } = *site;
    if op.get("mode") != Some("constant") {
        return Err(Reason::Padding("it does not pad with a constant"));
    }
    let is_zero = match graph.input(node, 2) {
        Some(value) => {
            constants::constant(graph, value).is_some_and(|t| constants::is_filled_with(&t, 0))
        }
        None => op.get("value") == Some(0.0_f32),
    };
    if !is_zero {
        return Err(Reason::Padding("it does not pad with zeros"));
    }
    let rank = shape_of(graph, site.input(0)?)?.len();
    let pads = constants::list(graph, node, "pads", 1)?.ok_or(Reason::Malformed)?;
    let axes = match graph.input(node, 3) {
        Some(axes) => constants::integers(graph, axes)
            .ok_or_else(|| Reason::NotConstant(graph.value_name(axes).to_owned()))?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Reason::Malformed);
    }
    let mut all = vec![0; 2 * rank];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok();
        let axis = axis.filter(|&axis| axis < rank).ok_or(Reason::Malformed)?;
        all[axis] = pads[i];
        all[axis + rank] = pads[i + axes.len()];
    }
    if all.iter().any(|&pad| pad < 0) {
        return Err(Reason::Padding("the padding is partly negative"));
    }
    if rank < 3 || [0, 1, rank, rank + 1].iter().any(|&i| all[i] != 0) {
        return Err(Reason::Padding("it pads the batch or the channels"));
    }
    Ok([&all[2..rank], &all[rank + 2..]].concat())
}

/// Adds zeros to the padding of a convolution or pool.
fn absorb(patch: &mut Patch, graph: &Graph, node: NodeId, more: &[i64]) -> Result<(), Reason> {
    let (window, pool) = match (Conv::of(graph, node), Pool::of(graph, node)) {
        (Some(conv), _) => (conv.window, None),
        (None, Some(pool)) => (pool.window.clone(), Some(pool)),
        (None, None) => return Err(Reason::Padding("its consumer does not pad")),
    };
    let Padding::Explicit(own) = window.padding else {
        return Err(Reason::Padding(
            "the padding of its consumer depends on the input size",
        ));
    };
    if own.len() != more.len() {
        return Err(Reason::Malformed);
    }
    let pads: Vec<i64> = own
        .iter()
        .zip(more)
        .map(|(a, b)| a.saturating_add(*b))
        .collect();
    if let Some(pool) = pool {
        let PoolKind::Average { count_padding } = pool.kind else {
            return Err(Reason::Padding("a max pool pads with -inf"));
        };
        let rank = window.kernel.len();
        if pool.ceil_mode || (!count_padding && own.iter().any(|&pad| pad != 0)) {
            return Err(Reason::Padding("the pool does not count its own padding"));
        }
        if pads
            .iter()
            .enumerate()
            .any(|(i, &pad)| pad >= window.kernel[i % rank])
        {
            return Err(Reason::Padding("a window would contain only padding"));
        }
        patch.set_attribute(node, Attribute::int("count_include_pad", 1));
    }
    patch.set_attribute(node, Attribute::ints("pads", &pads));
    patch.unset_attribute(node, "auto_pad");
    Ok(())
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, Model, ModelBuilder, Tensor};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::Outcome;
    use crate::testing::{apply, model, refusal, rewritten, text, weight};

    fn padded(pads: &[i64]) -> ModelBuilder {
        ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,2,5,6")
            .param("pads", Tensor::i64_vec(pads))
            .param("w", weight(1, &[3, 2, 3, 3]))
            .op("Pad", &["x", "pads"], "p", [])
    }

    fn conv(builder: ModelBuilder, name: &str, pads: &[i64]) -> ModelBuilder {
        builder
            .op("Conv", &["p", "w"], name, [Attribute::ints("pads", pads)])
            .output(name)
    }

    fn pool(builder: ModelBuilder, op: &str, pads: &[i64], count: i64) -> ModelBuilder {
        let mut attributes = vec![
            Attribute::ints("pads", pads),
            Attribute::ints("kernel_shape", &[3, 3]),
        ];
        attributes
            .extend((op == "AveragePool").then(|| Attribute::int("count_include_pad", count)));
        builder.op(op, &["p"], "y", attributes).output("y")
    }

    const AROUND: &[i64] = &[0, 0, 1, 0, 0, 0, 2, 1];

    fn stays(builder: ModelBuilder) -> Reason {
        refusal(RULES, &model(builder), "Pad")
    }

    fn merged(builder: ModelBuilder) -> String {
        let before: Model = model(builder);
        text(&rewritten(&SIMPLIFY, &before))
    }

    #[test]
    fn what_nothing_reads_is_left_alone() {
        let unread = padded(AROUND).op("Relu", &["x"], "y", []).output("y");
        assert_eq!(apply(&SIMPLIFY, &mut model(unread)), Outcome::default());
    }

    #[test]
    fn every_convolution_that_reads_it_pads_itself() {
        let builder = conv(conv(padded(AROUND), "y", &[1, 0, 0, 2]), "z", &[0, 0, 0, 0]);
        insta::assert_snapshot!(merged(builder), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,5,6] x) => (y, z)
        <
           float[3,2,3,3] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, ... 093ee43a}
        >
        {
           y = Conv <pads = [2, 0, 2, 3]> (x, w)
           z = Conv <pads = [1, 0, 2, 1]> (x, w)
        }
        "#);
    }

    #[test]
    fn an_average_pool_counts_the_zeros() {
        insta::assert_snapshot!(merged(pool(padded(AROUND), "AveragePool", &[0, 0, 0, 0], 0)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,5,6] x) => (y)
        <
           float[3,2,3,3] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, ... 093ee43a}
        >
        {
           y = AveragePool <pads = [1, 0, 2, 1], kernel_shape = [3, 3], count_include_pad = 1> (x)
        }
        "#);
    }

    #[test]
    fn padding_by_nothing_goes() {
        insta::assert_snapshot!(merged(pool(padded(&[0; 8]), "MaxPool", &[0; 4], 0)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,5,6] x) => (y)
        <
           float[3,2,3,3] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, ... 093ee43a}
        >
        {
           y = MaxPool <pads = [0, 0, 0, 0], kernel_shape = [3, 3]> (x)
        }
        "#);
    }

    #[test]
    fn padding_that_something_else_reads_stays() {
        let builder = conv(padded(AROUND), "y", &[0; 4]).output("p");
        assert_eq!(stays(builder), Reason::UsedElsewhere("p".to_owned()));
    }

    #[test]
    fn padding_of_channels_stays() {
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,1,5,6")
            .param("pads", Tensor::i64_vec(&[0, 1, 0, 0, 0, 0, 0, 0]))
            .param("w", weight(1, &[3, 2, 3, 3]))
            .op("Pad", &["x", "pads"], "p", []);
        assert_eq!(
            stays(conv(builder, "y", &[0; 4])),
            Reason::Padding("it pads the batch or the channels")
        );
    }

    #[test]
    fn padding_that_cuts_stays() {
        let builder = conv(padded(&[0, 0, -1, 1, 0, 0, 0, 0]), "y", &[0; 4]);
        assert_eq!(
            stays(builder),
            Reason::Padding("the padding is partly negative")
        );
    }

    #[test]
    fn other_padding_than_zeros_stays() {
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,2,5,6")
            .param("pads", Tensor::i64_vec(AROUND))
            .param("w", weight(1, &[3, 2, 3, 3]));
        let ones = builder
            .clone()
            .param("one", Tensor::f32s(&[], vec![1.0]))
            .op("Pad", &["x", "pads", "one"], "p", []);
        assert_eq!(
            stays(conv(ones, "y", &[0; 4])),
            Reason::Padding("it does not pad with zeros")
        );
        let mirrored = builder.op(
            "Pad",
            &["x", "pads"],
            "p",
            [Attribute::string("mode", "reflect")],
        );
        assert_eq!(
            stays(conv(mirrored, "y", &[0; 4])),
            Reason::Padding("it does not pad with a constant")
        );
    }

    #[test]
    fn pools_that_leave_their_padding_out_keep_it_apart() {
        let average = pool(padded(AROUND), "AveragePool", &[1, 1, 1, 1], 0);
        assert_eq!(
            stays(average),
            Reason::Padding("the pool does not count its own padding")
        );
        let max = pool(padded(AROUND), "MaxPool", &[0; 4], 0);
        assert_eq!(stays(max), Reason::Padding("a max pool pads with -inf"));
    }
}

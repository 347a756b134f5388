//! Transposed convolutions of one cell as convolutions.
//!
//! ```text
//! y = Deconv <1x1> (x, w)    y = Conv <1x1> (x, w)
//! ```
//!
//! They are the same product of channels. tract adds up what overlaps in a transposed convolution, in one more pass over
//! the result, although with one cell nothing does.

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, PaddingSpec, PoolSpec};
use tract_onnx::tract_hir::internal::{TypedModelPatch, TypedNode};

/// Replaces transposed convolutions by convolutions.
pub(crate) fn convolve(
    model: &TypedModel,
    node: &TypedNode,
) -> TractResult<Option<TypedModelPatch>> {
    let replaced = |conv| TypedModelPatch::replace_single_op(model, node, &node.inputs, conv);
    convolution(node).map(replaced).transpose()
}

/// The convolution that a node is.
fn convolution(node: &TypedNode) -> Option<Conv> {
    let deconv = node.op_as::<Deconv>()?;
    let window = &deconv.pool_spec;
    let zero = |sizes: &[usize]| sizes.iter().all(|&size| size == 0);
    let is_bare = match &window.padding {
        PaddingSpec::Valid => true,
        PaddingSpec::Explicit(begin, end) => zero(begin) && zero(end),
        _ => false,
    };
    let is_single = window.kernel_shape.iter().all(|&size| size == 1)
        && window.strides().iter().all(|&stride| stride == 1)
        && zero(&deconv.adjustments);
    (is_bare && is_single).then(|| Conv {
        pool_spec: PoolSpec {
            padding: PaddingSpec::Valid,
            ..window.clone()
        },
        kernel_fmt: deconv.kernel_format,
        group: deconv.group,
        q_params: None,
    })
}

#[cfg(test)]
mod tests {
    use bcosc_ir::Attribute;
    use bcosc_testing::{input, weight};

    use super::super::lower::testing::{assert_same, operators};

    fn transposed(dims: [u64; 4], attributes: Vec<Attribute>) -> bcosc_ir::Model {
        input(17, "2,4,6,5")
            .param("w", weight(1, &dims))
            .op("ConvTranspose", &["x", "w"], "y", attributes)
            .output("y")
            .finish()
            .unwrap()
    }

    #[test]
    fn one_cell_adds_nothing_up() {
        for (dims, group) in [([4, 3, 1, 1], 1), ([4, 3, 1, 1], 2), ([4, 1, 1, 1], 4)] {
            let model = transposed(dims, vec![Attribute::int("group", group)]);
            assert!(
                !operators(&model).contains(&"DeconvSum".into()),
                "{dims:?} {group}"
            );
            assert_same(&model, &[2, 4, 6, 5]);
        }
    }

    #[test]
    fn several_cells_and_steps_are_kept() {
        let step = Attribute::ints("strides", &[2, 2]);
        let border = Attribute::ints("pads", &[1, 1, 1, 1]);
        for (dims, attributes) in [
            ([4, 3, 3, 3], vec![border.clone()]),
            ([4, 3, 1, 1], vec![step]),
            ([4, 3, 1, 1], vec![border]),
        ] {
            let model = transposed(dims, attributes.clone());
            assert!(
                operators(&model).contains(&"DeconvSum".into()),
                "{attributes:?}"
            );
            assert_same(&model, &[2, 4, 6, 5]);
        }
    }
}

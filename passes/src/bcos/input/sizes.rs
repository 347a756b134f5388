//! Sizes that a graph reads from an image whose channels are doubled.
//!
//! ```text
//! before:  s = Shape (x)                         x [N, C, H, W]
//! after:   s = Div (Shape (x), [1, 2, 1, 1])     x [N, 2C, H, W]
//! ```

use bcosc_ir::{Graph, Model, NodeId, Op, Patch, PatchError, Tensor, Use, Value};

/// Keeps the sizes that operators read from an image what they were before its channels, on axis 1, were doubled.
pub(super) fn keep(model: &mut Model, image: Value) -> Result<(), PatchError> {
    let uses = model.graph.uses(image).into_iter();
    let readers: Vec<NodeId> = uses
        .filter_map(|usage| match usage {
            Use::Input { node, .. } => Some(node),
            Use::Capture { .. } | Use::Output(_) => None,
        })
        .collect();
    for node in readers {
        let divisor = divisor(&model.graph, image, node);
        let Some(divisor) = divisor.filter(|d| d.to_i64s().is_ok_and(|all| all.contains(&2)))
        else {
            continue;
        };
        let sizes = model.graph.output(node, 0);
        let mut patch = Patch::at(node);
        let divisor = patch.parameter("channels", divisor);
        let halved = patch.op(Op::new("", "Div").named("sizes"), &[sizes.into(), divisor]);
        if let Some(found) = model.graph.value_type(sizes) {
            patch.typed(halved, found);
        }
        patch.replace(sizes, halved);
        model.graph.apply(patch)?;
    }
    Ok(())
}

/// What the sizes that a node reads from the image have to be divided by; `None` if it reads something else.
pub(super) fn divisor(graph: &Graph, image: Value, node: NodeId) -> Option<Tensor> {
    let op = graph.op(node)?;
    if op.is("Size") {
        return Some(Tensor::i64s(&[], vec![2]));
    }
    if !op.is("Shape") {
        return None;
    }
    let rank = graph.value_type(image)?.rank().filter(|&rank| rank > 1)?;
    let place = |axis: i64| {
        let from_front = if axis < 0 { axis + rank as i64 } else { axis };
        from_front.clamp(0, rank as i64) as usize
    };
    let start = place(op.get("start").unwrap_or(0));
    let end = op.get("end").map_or(rank, place);
    let mut sizes = vec![1; rank];
    sizes[1] = 2;
    Some(Tensor::i64_vec(sizes.get(start..end).unwrap_or_default()))
}

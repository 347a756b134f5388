//! Operators that only change the shape.
//!
//! None of them changes the order of elements, so only the last shape matters:
//!
//! ```text
//! Reshape (x, s)                  = x               where the shape stays
//! Squeeze (Unsqueeze (x, a), b)   = x               where the shape is back
//! Reshape (view (x), t)           = Reshape (x, t)
//! ```

use bcosc_ir::ops::Trait;
use bcosc_ir::{Dim, Patch, Tensor};

use super::trivial::{keeps_shape, shape_of};
use crate::Reason;
use crate::canonical::constants;
use crate::canonical::worklist::Site;

pub(super) fn same_shape(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    let copied = site.op.is("Reshape") && copies_shape(site);
    if !copied {
        keeps_shape(site.graph, x, site.output())?;
    }
    site.bypass(x)
}

/// Whether a `Reshape` keeps every dimension, also if sizes are not known.
fn copies_shape(site: &Site<'_>) -> bool {
    let operand = site.graph.input(site.node, 1);
    let spec = operand.and_then(|operand| constants::integers(site.graph, operand));
    let from = site
        .graph
        .input(site.node, 0)
        .and_then(|x| shape_of(site.graph, x).ok());
    let (Some(spec), Some(from)) = (spec, from) else {
        return false;
    };
    let zero_copies = site.op.get("allowzero") == Some(false);
    let named = |(size, dim): (&i64, &Dim)| match *size {
        0 => zero_copies,
        // A single dynamic size follows from the others.
        -1 => true,
        size => dim.known() == u64::try_from(size).ok(),
    };
    spec.len() == from.len() && spec.iter().zip(&from).all(named)
}

pub(super) fn back_again(site: &Site<'_>) -> Result<Patch, Reason> {
    let before = site.graph.producer(site.input(0)?);
    let (view, _) = before
        .filter(|(_, op)| op.has(Trait::View))
        .ok_or(Reason::Needed("its input is not a view"))?;
    let x = site.graph.input(view, 0).ok_or(Reason::Malformed)?;
    keeps_shape(site.graph, x, site.output())?;
    site.bypass(x)
}

pub(super) fn reshape_of_view(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let middle = site.input(0)?;
    let (view, _) = graph
        .producer(middle)
        .filter(|(_, op)| op.has(Trait::View))
        .ok_or(Reason::Needed("its input is not a view"))?;
    let x = graph.input(view, 0).ok_or(Reason::Malformed)?;
    let operand = site.input(1)?;
    let spec = constants::integers(graph, operand);
    let spec = spec.ok_or_else(|| Reason::NotConstant(graph.value_name(operand).to_owned()))?;
    let mut patch = Patch::at(node);
    patch.set_input(node, 0, Some(x.into()));
    if site.op.get("allowzero") != Some(false) || !spec.contains(&0) {
        return Ok(patch);
    }
    // A 0 copies a size of the intermediate shape, which must equal that of x.
    let (from, through) = (shape_of(graph, x)?, shape_of(graph, middle)?);
    let mut moved = Vec::with_capacity(spec.len());
    let mut open = spec.contains(&-1);
    for (i, &size) in spec.iter().enumerate() {
        if size != 0 {
            moved.push(size);
            continue;
        }
        let copied = through.get(i).ok_or(Reason::Malformed)?;
        moved.push(match copied.known() {
            Some(known) if known > 0 => i64::try_from(known).map_err(|_| Reason::Malformed)?,
            _ if from.get(i) == Some(copied) && *copied != Dim::Unknown => 0,
            _ if !open => {
                open = true;
                -1
            }
            _ => {
                let name = graph.value_name(middle).to_owned();
                return Err(Reason::ShapeArithmetic(name));
            }
        });
    }
    if moved != spec {
        let operand = patch.parameter("shape", Tensor::i64_vec(&moved));
        patch.set_input(node, 1, Some(operand));
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::testing::{model, refusal, rewritten, text};

    fn start(dims: &str) -> ModelBuilder {
        ModelBuilder::new(17).input("x", DataType::Float, dims)
    }

    fn end(builder: ModelBuilder, from: &str) -> bcosc_ir::Model {
        model(builder.op("Relu", &[from], "y", []).output("y"))
    }

    fn reshape(builder: ModelBuilder, from: &str, shape: &[i64], to: &str) -> ModelBuilder {
        let operand = format!("{to}.shape");
        builder
            .param(&operand, Tensor::i64_vec(shape))
            .op("Reshape", &[from, &operand], to, [])
    }

    #[test]
    fn views_that_keep_the_shape_go() {
        let builder = reshape(start("batch,4"), "x", &[0, -1], "a");
        let builder = builder.op("Flatten", &["a"], "b", [Attribute::int("axis", 1)]);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(builder, "b"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (y) {
           y = Relu (x)
        }
        "#);
    }

    #[test]
    fn a_view_and_its_reverse_go() {
        let builder = start("batch,4")
            .param("axes", Tensor::i64_vec(&[1]))
            .op("Unsqueeze", &["x", "axes"], "u", [])
            .op("Squeeze", &["u", "axes"], "s", []);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(builder, "s"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (y) {
           y = Relu (x)
        }
        "#);
    }

    #[test]
    fn only_the_last_of_several_shapes_counts() {
        let builder = reshape(start("batch,4,6"), "x", &[-1, 24], "a");
        let builder = reshape(builder, "a", &[0, 2, 12], "b");
        let builder = builder.op("Flatten", &["b"], "c", [Attribute::int("axis", 2)]);
        let builder = reshape(builder, "c", &[-1, 0, 2], "d");
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(builder, "d"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4,6] x) => (y)
        <
           int64[3] "d.shape_2" = {-1, 12, 2}
        >
        {
           d = Reshape (x, "d.shape_2")
           y = Relu (d)
        }
        "#);
    }

    #[test]
    fn a_copied_size_that_is_not_there_before_stays() {
        let builder = reshape(start("4,n,m"), "x", &[-1, 2], "a");
        let model = end(reshape(builder, "a", &[0, 1, -1], "b"), "b");
        let last = Reason::ShapeArithmetic("a".to_owned());
        assert_eq!(refusal_of_last(&model), last);
    }

    /// The reason against merging the last `Reshape`.
    fn refusal_of_last(model: &bcosc_ir::Model) -> Reason {
        let mut typed = model.clone();
        crate::testing::infer(&mut typed);
        let last = typed
            .graph
            .ops()
            .into_iter()
            .rev()
            .find(|&id| typed.graph.op(id).is_some_and(|op| op.is("Reshape")));
        let site = last.and_then(|id| Site::new(&typed, id));
        site.map(|site| reshape_of_view(&site))
            .and_then(Result::err)
            .unwrap_or(Reason::Malformed)
    }

    #[test]
    fn a_view_of_another_shape_stays() {
        let model = end(reshape(start("batch,4"), "x", &[0, 2, 2], "a"), "a");
        assert_eq!(
            refusal(RULES, &model, "Reshape"),
            Reason::Needed("it changes the shape")
        );
    }

    #[test]
    fn a_squeeze_of_another_axis_stays() {
        let builder = start("1,4,4")
            .param("last", Tensor::i64_vec(&[3]))
            .param("first", Tensor::i64_vec(&[0]))
            .op("Unsqueeze", &["x", "last"], "u", [])
            .op("Squeeze", &["u", "first"], "s", []);
        assert_eq!(
            refusal(RULES, &end(builder, "s"), "Squeeze"),
            Reason::Needed("it changes the shape")
        );
    }
}

//! New input shapes for a model that is about to be imported.

use std::collections::BTreeMap;

use bcosc_ir::Dim;
use bcosc_onnx::proto::{
    GraphProto, TensorShapeProto, TensorShapeProtoDimension,
    TensorShapeProtoDimensionValue as DimValue, TypeProtoValue, ValueInfoProto,
};

use crate::{Error, InputShape};

/// Sets the shapes of inputs. A symbol is replaced everywhere. If a fixed size changes, the declared shapes of
/// intermediate values and outputs are dropped, since they may no longer hold. `label` names the model in errors.
pub(crate) fn apply(
    graph: &mut GraphProto,
    shapes: &[InputShape],
    label: &str,
) -> Result<(), Error> {
    let fail = |problem: String| Error::Input {
        model: label.to_owned(),
        problem,
    };
    let mut symbols = BTreeMap::new();
    let mut stale = false;
    for wanted in shapes {
        let names: Vec<&str> = graph
            .input
            .iter()
            .filter_map(|i| i.name.as_deref())
            .collect();
        let known = names.join(", ");
        let input = graph
            .input
            .iter_mut()
            .find(|i| i.name.as_deref() == Some(&wanted.input));
        let input = input.ok_or_else(|| {
            fail(format!(
                "there is no input `{}`; the inputs are: {known}",
                wanted.input
            ))
        })?;
        let shape = shape_of(input).ok_or_else(|| {
            fail(format!(
                "input `{}` is not a tensor and has no shape",
                wanted.input
            ))
        })?;
        let old = shape.get_or_insert_default();
        if !old.dim.is_empty() && old.dim.len() != wanted.dims.len() {
            return Err(fail(format!(
                "input `{}` has {} dimensions, but the new shape has {}",
                wanted.input,
                old.dim.len(),
                wanted.dims.len()
            )));
        }
        for (dim, wanted) in old.dim.iter().zip(&wanted.dims) {
            match &dim.value {
                Some(DimValue::DimParam(symbol)) if !symbol.is_empty() => {
                    symbols.insert(symbol.clone(), wanted.clone());
                }
                Some(DimValue::DimValue(before))
                    if wanted.known() == u64::try_from(*before).ok() => {}
                _ => stale = true,
            }
        }
        old.dim = wanted.dims.iter().map(dimension).collect();
    }
    if stale {
        graph.value_info.clear();
        for output in &mut graph.output {
            if let Some(shape) = shape_of(output) {
                *shape = None;
            }
        }
    }
    let infos = graph
        .input
        .iter_mut()
        .chain(&mut graph.output)
        .chain(&mut graph.value_info);
    for dim in infos
        .filter_map(shape_of)
        .flatten()
        .flat_map(|shape| &mut shape.dim)
    {
        if let Some(DimValue::DimParam(symbol)) = &dim.value
            && let Some(wanted) = symbols.get(symbol)
        {
            *dim = dimension(wanted);
        }
    }
    Ok(())
}

fn shape_of(info: &mut ValueInfoProto) -> Option<&mut Option<TensorShapeProto>> {
    match info.r#type.as_mut()?.value.as_mut()? {
        TypeProtoValue::TensorType(tensor) => Some(&mut tensor.shape),
        _ => None,
    }
}

fn dimension(dim: &Dim) -> TensorShapeProtoDimension {
    let value = match dim {
        Dim::Known(size) => Some(DimValue::DimValue(i64::try_from(*size).unwrap_or(i64::MAX))),
        Dim::Symbol(name) => Some(DimValue::DimParam(name.clone())),
        Dim::Unknown => None,
    };
    TensorShapeProtoDimension {
        denotation: None,
        value,
    }
}

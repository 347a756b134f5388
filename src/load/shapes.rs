//! New input shapes for a model that is about to be imported.

use std::collections::BTreeMap;

use bcosc_engine::default_interpreter;
use bcosc_ir::{Dim, Interpreter, Model, TensorType};
use bcosc_onnx::proto::{
    GraphProto, TensorShapeProto, TensorShapeProtoDimension,
    TensorShapeProtoDimensionValue as DimValue, TypeProtoValue, ValueInfoProto,
};

use crate::{Error, InputShape};

/// Sets the shapes of inputs. A symbol is replaced everywhere. If a fixed size changes, the declared shapes of
/// intermediate values and outputs are dropped, since they may no longer hold; [`declare_outputs`] declares those of
/// outputs again. `label` names the model in errors.
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

/// The declared ranks of the outputs.
pub(crate) fn output_ranks(graph: &GraphProto) -> Vec<Option<usize>> {
    let rank = |info: &ValueInfoProto| match info.r#type.as_ref()?.value.as_ref()? {
        TypeProtoValue::TensorType(tensor) => Some(tensor.shape.as_ref()?.dim.len()),
        _ => None,
    };
    graph.output.iter().map(rank).collect()
}

/// Declares the outputs whose shapes were dropped with the inferred shapes, or with dynamic axes of the same rank if
/// inference finds none. ONNX requires outputs to have a shape.
pub(crate) fn declare_outputs(model: &mut Model, ranks: &[Option<usize>]) {
    let dropped: Vec<usize> = (0..model.graph.outputs().len())
        .filter(|&index| ranks.get(index).is_some_and(Option::is_some))
        .filter(|&index| {
            let declared = model.graph.outputs()[index].info.r#type.as_deref();
            declared
                .and_then(TensorType::from_proto)
                .is_some_and(|t| t.shape.is_none())
        })
        .collect();
    if dropped.is_empty() {
        return;
    }
    // Only outputs get types. If inference fails, later steps fail too, with an error.
    let mut typed = model.clone();
    let known = default_interpreter().infer(&mut typed, 0).is_ok();
    for index in dropped {
        let output = &typed.graph.outputs()[index];
        let inferred = typed.graph.value_type(output.value).filter(|_| known);
        let declared = output
            .info
            .r#type
            .as_deref()
            .and_then(TensorType::from_proto);
        let (Some(rank), Some(mut declared)) = (ranks[index], declared) else {
            continue;
        };
        let shape = inferred.and_then(|found| found.shape);
        declared.shape = Some(shape.unwrap_or_else(|| vec![Dim::Unknown; rank]));
        model.graph.redeclare_output(index, &declared);
    }
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

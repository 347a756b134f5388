//! The output that is explained, as one vector per image.
//!
//! ```text
//! [N, K]          as it is
//! [N, K, 1, 1]    Flatten, and so for any shape with one long axis
//! [N]             one score: Unsqueeze
//! [K], []         where the batch is one image: Unsqueeze
//! ```

use bcosc_ir::views::unsqueeze;
use bcosc_ir::{Dim, Graph, Model, Op, Operand, Patch, Shape, TensorType, Value};

use bcosc_passes::analysis::image::image_input;
use bcosc_passes::{NoVectors, PassError, Reason};

/// The output to explain: the first that is floating point, as far as types are known, or else the first.
pub fn explained(graph: &Graph) -> Option<Value> {
    let floating = |value: &Value| {
        let found = graph.value_type(*value);
        found.is_some_and(|t| t.dtype.is_float())
    };
    let mut outputs = graph.outputs().iter().map(|output| output.value);
    outputs.clone().find(floating).or_else(|| outputs.next())
}

/// The output to explain as one vector per image, and the length of its vectors; another shape of the same numbers is
/// reshaped. The types of values must be known.
///
/// # Errors
/// If the output is anything else.
pub fn scores(model: &mut Model) -> Result<(Value, u64), PassError> {
    let graph = &model.graph;
    let Some(value) = explained(graph) else {
        return Err(refused(graph, None, &[]));
    };
    // What inference does not know, the model may say.
    let mut outputs = graph.outputs().iter();
    let declared = outputs
        .find(|output| output.value == value)
        .and_then(|output| TensorType::from_proto(output.info.r#type.as_deref()?));
    let known = graph.value_type(value);
    let unknown = known.as_ref().is_none_or(|found| found.shape.is_none());
    let adopted = declared.clone().filter(|_| unknown);
    let shapes: Vec<Shape> = [known, declared]
        .into_iter()
        .flatten()
        .filter_map(|found| found.shape)
        .collect();
    let batch = batch(&model.graph);
    let mut forms = shapes.iter().filter_map(|shape| Form::of(shape, &batch));
    let form = forms.next();
    if let (Some(_), Some(adopted)) = (form, adopted) {
        model.graph.set_value_type(value, adopted);
    }
    match form {
        Some(Form::Vectors(length)) => Ok((value, length)),
        Some(form) => Ok((form.apply(model, value, batch)?, form.length())),
        None => Err(refused(&model.graph, Some(value), &shapes)),
    }
}

/// The number of images at once.
fn batch(graph: &Graph) -> Dim {
    let image = image_input(graph).and_then(|image| graph.value_type(image)?.shape);
    let first = image.and_then(|shape| shape.first().cloned());
    first.unwrap_or(Dim::Unknown)
}

/// A shape that is one vector per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Vectors(u64),
    /// More axes, at most one of them of size other than 1.
    Spread(u64),
    /// A number per image.
    Single,
    /// The vector of the only image.
    Squeezed(u64),
    /// The number of the only image.
    Scalar,
}

impl Form {
    fn of(shape: &[Dim], batch: &Dim) -> Option<Self> {
        let alone = batch.known() == Some(1);
        match shape {
            [] => alone.then_some(Form::Scalar),
            [one] if one == batch && *one != Dim::Unknown => Some(Form::Single),
            [Dim::Known(length)] => alone.then_some(Form::Squeezed(*length)),
            // A size by another name; classes are counted.
            [Dim::Symbol(_)] if !alone => Some(Form::Single),
            [_] => None,
            [_, Dim::Known(length)] => Some(Form::Vectors(*length)),
            [_, rest @ ..] => {
                let sizes: Option<Vec<u64>> = rest.iter().map(Dim::known).collect();
                let sizes = sizes?;
                let long = sizes.iter().filter(|size| **size != 1).count();
                (long < 2).then(|| Form::Spread(sizes.iter().product()))
            }
        }
    }

    fn length(self) -> u64 {
        match self {
            Form::Vectors(length) | Form::Spread(length) | Form::Squeezed(length) => length,
            Form::Single | Form::Scalar => 1,
        }
    }

    fn apply(self, model: &mut Model, value: Value, batch: Dim) -> Result<Value, PassError> {
        let opset = model.opset("").unwrap_or(0);
        let dtype = model.graph.value_type(value).map(|found| found.dtype);
        let mut patch = Patch::at(value.node);
        let x = Operand::Old(value);
        let vectors = match self {
            Form::Vectors(_) => return Ok(value),
            Form::Spread(_) => {
                let flatten = Op::new("", "Flatten").named("scores");
                patch.op(flatten.with_int("axis", 1), &[x])
            }
            Form::Single => unsqueeze(&mut patch, opset, x, &[1]),
            Form::Squeezed(_) => unsqueeze(&mut patch, opset, x, &[0]),
            Form::Scalar => unsqueeze(&mut patch, opset, x, &[0, 1]),
        };
        if let Some(dtype) = dtype {
            let shape = Some(vec![batch, Dim::Known(self.length())]);
            patch.typed(vectors, TensorType { dtype, shape });
        }
        patch.keep(vectors);
        let added = model.graph.apply(patch)?;
        let placed = vectors.applied(&added);
        placed.ok_or(PassError::Model(Reason::Malformed))
    }
}

/// The error for another output, with what to do.
fn refused(graph: &Graph, value: Option<Value>, shapes: &[Shape]) -> PassError {
    let output = value.map_or_else(String::new, |v| graph.value_name(v).to_owned());
    let found = value.and_then(|v| graph.value_type(v));
    let floats = |value: Value| {
        let found = graph.value_type(value);
        found.is_none_or(|t| t.dtype.is_float())
    };
    let others = graph.outputs().iter().map(|output| output.value);
    let others = others.filter(|other| Some(*other) != value && floats(*other));
    let flat = |shape: &Shape| shape.len() < 2;
    let open = |shape: &Shape| shape.iter().skip(1).any(|dim| dim.known().is_none());
    let why = match () {
        () if found.as_ref().is_some_and(|t| !t.dtype.is_float()) => NoVectors::NotFloating,
        () if !shapes.is_empty() && shapes.iter().all(flat) => NoVectors::NoBatch,
        () if others.count() > 0 => NoVectors::Other,
        () if shapes.iter().all(open) => NoVectors::Open,
        () => NoVectors::Map,
    };
    let found = found.map_or_else(|| "of no known type".to_owned(), |found| found.to_string());
    PassError::Model(Reason::NotVectors { output, found, why })
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder};

    use super::*;
    use bcosc_testing::{infer, model};

    /// What is made of an output whose shape nothing but its declaration says.
    fn declared(image: &str, dims: &str) -> Result<(u64, &'static str), NoVectors> {
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, image)
            .input("shape", DataType::Int64, "axes")
            .op("Reshape", &["x", "shape"], "y", []);
        let mut found = model(builder.output_as("y", DataType::Float, dims));
        infer(&mut found);
        match scores(&mut found) {
            Ok((value, length)) => {
                let (_, op) = found.graph.producer(value).unwrap();
                let known = ["Reshape", "Flatten", "Unsqueeze"].into_iter();
                Ok((length, known.clone().find(|name| op.is(name)).unwrap()))
            }
            Err(PassError::Model(Reason::NotVectors { output, why, .. })) => {
                assert_eq!(output, "y");
                Err(why)
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn declared_sizes_stand_in_for_unknown_ones() {
        let found = |dims| declared("batch,3,6,8", dims);
        assert_eq!(found("batch,4"), Ok((4, "Reshape")));
        assert_eq!(found("unk,4"), Ok((4, "Reshape")));
        assert_eq!(found("batch,classes"), Err(NoVectors::Open));
    }

    #[test]
    fn one_long_axis_makes_a_vector() {
        let found = |dims| declared("batch,3,6,8", dims);
        assert_eq!(found("batch,10,1,1"), Ok((10, "Flatten")));
        assert_eq!(found("batch,1,1,10"), Ok((10, "Flatten")));
        assert_eq!(found("batch,1,1"), Ok((1, "Flatten")));
        assert_eq!(found("batch,10,2,1"), Err(NoVectors::Map));
        assert_eq!(found("batch,10,h,w"), Err(NoVectors::Open));
    }

    #[test]
    fn a_number_an_image_is_one_score() {
        assert_eq!(declared("batch,3,6,8", "batch"), Ok((1, "Unsqueeze")));
        assert_eq!(declared("4,3,6,8", "4"), Ok((1, "Unsqueeze")));
        assert_eq!(declared("4,3,6,8", "5"), Err(NoVectors::NoBatch));
    }

    #[test]
    fn a_batch_of_one_may_be_squeezed_away() {
        assert_eq!(declared("1,3,6,8", "10"), Ok((10, "Unsqueeze")));
        assert_eq!(declared("batch,3,6,8", "10"), Err(NoVectors::NoBatch));
    }
}

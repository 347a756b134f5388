//! Steps that make a model compute what its original computes, at matching places.
//!
//! s is a value of the model, and t the value of the original that it [stands for](bcosc_ir::Graph::stands_for):
//!
//! ```text
//! error = mean of (s - t)^2 / mean of t^2        loss = sum of the errors of all taps
//! ```
//!
//! Of class scores, the mean over classes is subtracted first on both sides: it changes no decision, and the logit bias is part
//! of it. Norms are in training mode where a trained parameter comes before them; what precedes all trained parameters
//! computes as in inference.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Dim, Model, NodeId, Operand, Patch, TensorType, Value};
use bcosc_passes::{Context, PassError, Reason};

use super::{
    Begun, Exponent, Group, Inputs, LOSS, Role, Step, StepOptions, apply, batch_norm, bias_scale,
    canonical, exponent, image_of, parameters, prepared, teacher,
};
use crate::activity::dependents;
use crate::build::Build;
use crate::explanation::image;
use crate::scores::scores;

/// The output with the error of each tap.
pub const ERRORS: &str = "errors";

/// A place where a model is compared with its original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tap {
    /// A value, by its name in the original.
    Value(String),
    /// The scores of classes, or the embedding.
    Output,
}

/// The step that makes a model compute what its original computes. The model must know what its values
/// stand for. Loss, targets and teacher of the options are not used.
///
/// # Errors
/// As for [`super::step`]; if a tap has no value in either model, or the values there have different shapes.
pub fn alignment_step(
    mut model: Model,
    original: &Model,
    taps: &[Tap],
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    cx: &Context<'_>,
) -> Result<Step, PassError> {
    let exponents = prepared(&mut model, options.exponent, cx)?;
    let forward = model.clone();
    let images = image_of(&mut model, cx)?;
    if options.exponent == Exponent::Input {
        exponent::take(&mut model)?;
        cx.infer(&mut model)?;
    }
    let mut parameters =
        parameters::parameters(&model.graph, images, options.biases_removed, &exponents);
    parameters.retain(|p| group(&p.name, p.role) != Group::Frozen);
    let biases = match options.scale_biases {
        true => bias_scale::take(&mut model)?,
        false => Vec::new(),
    };

    let mut original = original.clone();
    canonical(&mut original, cx)?;
    cx.infer(&mut original)?;
    let students = tapped(&mut model, taps)?;
    let teachers = tapped(&mut original, taps)?;
    for ((&student, &teacher), tap) in students.iter().zip(&teachers).zip(taps) {
        let [s, t] = [(&model, student), (&original, teacher)].map(|(m, v)| m.graph.value_type(v));
        if !is_comparable(s.as_ref(), t.as_ref()) {
            return Err(PassError::Model(Reason::OtherShape {
                place: place(tap),
                found: described(s.as_ref()),
                expected: described(t.as_ref()),
            }));
        }
    }
    let own: Vec<NodeId> = model.graph.ops();
    let first = *students
        .first()
        .ok_or(PassError::Model(Reason::NothingTrained))?;
    let inputs = Inputs::without_targets(&mut model, first);
    let input = image(&original.graph)?;
    let teachers = teacher::put(&mut model, original, input, &teachers, images)?;

    let mut patch = Patch::at(first.node);
    let mut build = inputs.build(&model, &mut patch);
    let pairs = students.iter().zip(&teachers).zip(taps);
    let errors: Vec<Operand> = pairs
        .map(|((&s, &t), tap)| error(&mut build, s, t, tap))
        .collect();
    let rows: Vec<Operand> = errors.iter().map(|&e| build.unsqueeze(e, &[0])).collect();
    let all = build.op_with("Concat", &rows, Attribute::int("axis", 0));
    let loss = build.sum(all);
    let one = build.number(1.0);
    let placed = apply(&mut model, patch, vec![loss, one, all])?;
    let &[loss, one, all] = &placed[..] else {
        return Err(PassError::Model(Reason::Malformed));
    };
    cx.infer(&mut model)?;
    let trained: Vec<Value> = parameters.iter().map(|p| p.value).collect();
    let behind = dependents(&model.graph, &trained, &|_, _, _| true);
    let among: Vec<NodeId> = own
        .into_iter()
        .filter(|&node| behind.contains(&model.graph.output(node, 0)))
        .collect();
    let statistics = batch_norm::train(&mut model, &among)?;
    let begun = Begun {
        forward,
        parameters,
        biases,
        inputs,
        statistics,
        loss,
        one,
        outputs: vec![(loss, LOSS.to_owned()), (all, ERRORS.to_owned())],
    };
    begun.complete(model, options, group, cx)
}

/// The values of a model at taps.
fn tapped(model: &mut Model, taps: &[Tap]) -> Result<Vec<Value>, PassError> {
    let found = model.graph.provenance();
    let mut values = Vec::new();
    for tap in taps {
        values.push(match tap {
            Tap::Output => scores(model)?.0,
            Tap::Value(name) => *found
                .get(name.as_str())
                .ok_or_else(|| PassError::Model(Reason::NoPlace(name.clone())))?,
        });
    }
    Ok(values)
}

/// The relative squared error at a tap, a scalar.
fn error(build: &mut Build<'_>, s: Value, t: Value, tap: &Tap) -> Operand {
    /// Keeps the error finite where the original computes zeros.
    const SMALLEST: f64 = 1e-12;
    let [s, t] = match tap {
        Tap::Value(_) => [s.into(), t.into()],
        Tap::Output => [s, t].map(|x| {
            let mean = build.reduce(AxesOp::ReduceMean, x, &[1]);
            build.sub(x, mean)
        }),
    };
    let difference = build.sub(s, t);
    let [squares, size] = [difference, t].map(|x| {
        let squares = build.mul(x, x);
        build.mean(squares)
    });
    let smallest = build.number(SMALLEST);
    let size = build.add(size, smallest);
    build.div(squares, size)
}

/// Whether values can be compared element by element.
pub(super) fn is_comparable(s: Option<&TensorType>, t: Option<&TensorType>) -> bool {
    let (Some(s), Some(t)) = (s, t) else {
        return false;
    };
    let (Some(a), Some(b)) = (&s.shape, &t.shape) else {
        return false;
    };
    let fits = |(a, b): (&Dim, &Dim)| match (a.known(), b.known()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    s.dtype == t.dtype && s.dtype.is_float() && a.len() == b.len() && a.iter().zip(b).all(fits)
}

fn described(found: Option<&TensorType>) -> String {
    found.map_or_else(|| "of no known type".to_owned(), ToString::to_string)
}

fn place(tap: &Tap) -> String {
    match tap {
        Tap::Value(name) => name.clone(),
        Tap::Output => "the output".to_owned(),
    }
}

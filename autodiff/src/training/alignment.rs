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

use super::inputs::{Inputs, apply};
use super::{
    Group, LOSS, Objective, Role, Step, StepOptions, Student, batch_norm, canonical, teacher,
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
    model: Model,
    original: &Model,
    taps: &[Tap],
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    cx: &Context<'_>,
) -> Result<Step, PassError> {
    let mut student = Student::of(model, options, group, cx)?;
    let mut original = original.clone();
    canonical(&mut original, cx)?;
    cx.infer(&mut original)?;
    let students = tapped(&mut student.model, taps)?;
    let teachers = tapped(&mut original, taps)?;
    for ((&s, &t), tap) in students.iter().zip(&teachers).zip(taps) {
        check(&student.model, s, &original, t, tap)?;
    }
    let first = students.first().copied();
    let first = first.ok_or(PassError::Model(Reason::NothingTrained))?;
    let inputs = Inputs::add(&mut student.model, first);
    let input = image(&original.graph)?;
    let teachers = teacher::put(
        &mut student.model,
        original,
        input,
        &teachers,
        student.image,
    )?;
    let pairs: Vec<(Value, Value)> = students.into_iter().zip(teachers).collect();
    let objective = student.add_errors(&inputs, &pairs, taps, cx)?;
    student.finish(&objective, &inputs, options, group, cx)
}

impl Student {
    /// Adds the errors and their sum, and puts norms behind trained parameters into training mode.
    fn add_errors(
        &mut self,
        inputs: &Inputs,
        pairs: &[(Value, Value)],
        taps: &[Tap],
        cx: &Context<'_>,
    ) -> Result<Objective, PassError> {
        let model = &mut self.model;
        let mut patch = Patch::at(inputs.step.node);
        let mut build = inputs.build(model, &mut patch);
        let errors = pairs.iter().zip(taps);
        let errors: Vec<Operand> = errors
            .map(|(&(s, t), tap)| error(&mut build, s, t, tap))
            .collect();
        let rows: Vec<Operand> = errors.iter().map(|&e| build.unsqueeze(e, &[0])).collect();
        let all = build.op_with("Concat", &rows, Attribute::int("axis", 0));
        let loss = build.sum(all);
        let one = build.number(1.0);
        let [loss, one, all] = apply(model, patch, [loss, one, all])?;
        cx.infer(model)?;
        let trained: Vec<Value> = self.parameters.iter().map(|p| p.value).collect();
        let behind = dependents(&model.graph, &trained, &|_, _, _| true);
        let is_behind = |node: &NodeId| behind.contains(&model.graph.output(*node, 0));
        let among: Vec<NodeId> = self.own.iter().copied().filter(is_behind).collect();
        let statistics = batch_norm::train(model, &among)?;
        Ok(Objective {
            loss,
            one,
            statistics,
            outputs: [(loss, LOSS), (all, ERRORS)],
        })
    }
}

/// An error if values at a tap cannot be compared.
fn check(model: &Model, s: Value, original: &Model, t: Value, tap: &Tap) -> Result<(), PassError> {
    let [s, t] = [model.graph.value_type(s), original.graph.value_type(t)];
    match is_comparable(s.as_ref(), t.as_ref()) {
        true => Ok(()),
        false => Err(PassError::Model(Reason::OtherShape {
            place: match tap {
                Tap::Value(name) => name.clone(),
                Tap::Output => "the output".to_owned(),
            },
            types: Box::new([s, t].map(|found| described(found.as_ref()))),
        })),
    }
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

#[cfg(test)]
mod tests {
    use bcosc_engine::default_interpreter;
    use bcosc_ir::{Interpreter, ModelBuilder, Tensor, Tensors};
    use bcosc_passes::Settings;
    use bcosc_testing::{Layers, body, image, inputs_for, model, weight};

    use super::super::{LEARNING_RATE, STEP, StateKind, TEACHER_IMAGES};
    use super::*;

    /// Two layers with a norm between them; `seed` makes other weights.
    fn network(seed: u64, channels: u64) -> Model {
        let builder: ModelBuilder = image("batch,3,4,4")
            .param("first", weight(seed, &[channels, 3, 3, 3]))
            .op("Conv", &["x", "first"], "a", [])
            .norm("a", "b", channels)
            .op("Relu", &["b"], "c", [])
            .param("second", weight(seed + 1, &[5, channels, 1, 1]))
            .op("Conv", &["c", "second"], "d", [])
            .op("GlobalAveragePool", &["d"], "e", [])
            .op("Flatten", &["e"], "logits", []);
        model(builder.output("logits"))
    }

    fn step_of(
        student: &Model,
        original: &Model,
        taps: &[Tap],
        trained: &[&str],
    ) -> Result<Step, PassError> {
        let settings = Settings::default();
        let cx = Context {
            settings: &settings,
            interpreter: default_interpreter(),
            calibration: None,
        };
        let group = |name: &str, _: Role| match trained.is_empty() || trained.contains(&name) {
            true => Group::Trained { weight_decay: 0.0 },
            false => Group::Frozen,
        };
        let options = StepOptions::default();
        alignment_step(student.clone(), original, taps, &options, &group, &cx)
    }

    /// The outputs of a step with rate 0 on a batch.
    fn run(step: &Step, images: &Tensor) -> Tensors {
        let mut inputs: Tensors = step
            .state
            .iter()
            .map(|state| (state.input.clone(), state.initial.clone()))
            .collect();
        inputs.insert("x".to_owned(), images.clone());
        inputs.insert(TEACHER_IMAGES.to_owned(), images.clone());
        inputs.insert(LEARNING_RATE.to_owned(), Tensor::f32s(&[], vec![0.0]));
        inputs.insert(STEP.to_owned(), Tensor::i64s(&[], vec![1]));
        default_interpreter().run(&step.model, &inputs).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_f64s().unwrap()
    }

    /// A value of a model on a batch.
    fn value(model: &Model, name: &str, images: &Tensor) -> Vec<f64> {
        let mut model = model.clone();
        let found = model.graph.value_named(name).unwrap();
        model.graph.set_outputs(&[(found, name.to_owned())]);
        let inputs = Tensors::from([("x".to_owned(), images.clone())]);
        numbers(&default_interpreter().run(&model, &inputs).unwrap()[name])
    }

    fn ratio(s: &[f64], t: &[f64]) -> f64 {
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        squares(&mut s.iter().zip(t).map(|(s, t)| s - t)) / squares(&mut t.iter().copied())
    }

    fn centred(rows: &[f64]) -> Vec<f64> {
        let rows = rows.chunks(5).flat_map(|row| {
            let mean = row.iter().sum::<f64>() / 5.0;
            row.iter().map(move |x| x - mean)
        });
        rows.collect()
    }

    #[test]
    fn errors_are_relative_squares() {
        let (student, original) = (network(1, 4), network(7, 4));
        let images = inputs_for(&original, 3)["x"].clone();
        let taps = [Tap::Value("c".to_owned()), Tap::Output];
        // The norm stands before all that is trained, so it computes as in inference.
        let step = step_of(&student, &original, &taps, &["second"]).unwrap();
        let kinds: Vec<StateKind> = step.state.iter().map(|state| state.kind).collect();
        assert!(!kinds.contains(&StateKind::Statistic));
        let outputs = run(&step, &images);
        let found = numbers(&outputs[ERRORS]);
        let [s, t] = [&student, &original].map(|m| value(m, "c", &images));
        let [zs, zt] = [&student, &original].map(|m| centred(&value(m, "logits", &images)));
        for (found, expected) in found.iter().zip([ratio(&s, &t), ratio(&zs, &zt)]) {
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        }
        let loss = numbers(&outputs[LOSS])[0];
        assert!((loss - found.iter().sum::<f64>()).abs() < 1e-6);
    }

    #[test]
    fn a_model_has_no_error_against_itself() {
        let original = network(1, 4);
        let images = inputs_for(&original, 3)["x"].clone();
        let step = step_of(&original, &original, &[Tap::Output], &["second"]).unwrap();
        assert!(numbers(&run(&step, &images)[LOSS])[0] < 1e-10);
    }

    #[test]
    fn what_follows_the_last_tap_is_not_computed() {
        let (student, original) = (network(1, 4), network(7, 4));
        let taps = [Tap::Value("c".to_owned())];
        let step = step_of(&student, &original, &taps, &[]).unwrap();
        let names: Vec<&str> = step.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(!names.contains(&"second"));
        // Its norm is in training mode.
        let statistics = step.state.iter().filter(|s| s.kind == StateKind::Statistic);
        assert_eq!(statistics.count(), 2);
        let text = body(&step.model).join("\n");
        assert!(!text.contains("logits"), "{text}");
    }

    #[test]
    fn places_must_be_there_and_of_one_shape() {
        let original = network(7, 4);
        let place = |name: &str| [Tap::Value(name.to_owned())];
        let refused = step_of(&network(1, 4), &original, &place("nowhere"), &[]);
        assert!(matches!(
            refused,
            Err(PassError::Model(Reason::NoPlace(name))) if name == "nowhere"
        ));
        let refused = step_of(&network(1, 6), &original, &place("c"), &[]);
        assert!(matches!(
            refused,
            Err(PassError::Model(Reason::OtherShape { place, .. })) if place == "c"
        ));
        let refused = step_of(&network(1, 4), &original, &place("c"), &["second"]);
        assert!(matches!(
            refused,
            Err(PassError::Model(Reason::NothingTrained))
        ));
    }
}

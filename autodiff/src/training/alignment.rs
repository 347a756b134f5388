//! Steps that make a model compute what its original computes, at matching places.
//!
//! s is a value of the model, and t the value of the original that it [stands for](bcosc_ir::Graph::stands_for):
//!
//! ```text
//! error = mean of (s - t)^2 / mean of t^2        loss = sum of the errors of all taps
//! ```
//!
//! Of class scores, the mean over classes is subtracted first on both sides: it changes no decision, and the logit bias is part
//! of it. Norms between the trained parameters and the taps are in training mode; what precedes all trained parameters
//! computes as in inference.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Dim, Model, NodeId, Operand, Patch, TensorType, Value};
use bcosc_passes::{Context, PassError, Reason};

use super::cut::{tapped, value_at};
use super::inputs::{Inputs, apply};
use super::{
    Group, LOSS, Objective, Role, Step, StepOptions, Student, batch_norm, canonical, teacher,
};
use crate::activity::Activity;
use crate::build::Build;
use crate::explanation::image;

/// The output with the error of each tap.
pub const ERRORS: &str = "errors";

/// A place where a model is compared with its original.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tap {
    /// A value, by its name in the original.
    Value(String),
    /// The scores of classes, or the embedding.
    Output,
}

impl Tap {
    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        match self {
            Tap::Value(name) => name,
            Tap::Output => "output",
        }
    }
}

/// Where the original's values at the taps come from.
#[derive(Clone, Copy, Debug)]
pub enum Reference<'a> {
    /// The original, which becomes part of the step.
    Original(&'a Model),
    /// The inputs [`target_name`] of the step: what the original computed before.
    Targets,
}

/// What an alignment step compares, and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Alignment<'a> {
    /// Values of the original by name, at which the model is cut: its own values there become the inputs
    /// [`feature_name`], and what comes before them is not part of the step. If there are none, it begins with the images.
    pub from: &'a [String],
    /// The places where both models are compared.
    pub taps: &'a [Tap],
    /// Where the original's values come from.
    pub reference: Reference<'a>,
}

/// The input of a step for the model's value at a cut, by its number in [`Alignment::from`].
pub fn feature_name(index: usize) -> String {
    format!("bcosc.features.{index}")
}

/// The input of a step for the original's value at a tap, by its number in [`Alignment::taps`].
pub fn target_name(index: usize) -> String {
    format!("bcosc.targets.{index}")
}

/// The step that makes a model compute what its original computes. The model must know what its values
/// stand for. Loss, targets and teacher of the options are not used.
///
/// # Errors
/// As for [`super::step`]; if a tap or a cut has no value in either model, or the values at a tap have different shapes.
pub fn alignment_step(
    model: Model,
    alignment: &Alignment<'_>,
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    cx: &Context<'_>,
) -> Result<Step, PassError> {
    let mut student = Student::of(model, options, group, cx)?;
    let students = tapped(&mut student.model, alignment.taps)?;
    let first = students.first().copied();
    let first = first.ok_or(PassError::Model(Reason::NothingTrained))?;
    let inputs = Inputs::add(&mut student.model, first);
    student.cut(alignment.from)?;
    let teachers = student.teachers(&students, alignment, cx)?;
    let pairs: Vec<(Value, Value)> = students.into_iter().zip(teachers).collect();
    let objective = student.add_errors(&inputs, &pairs, alignment.taps, options, cx)?;
    let mut step = student.finish(&objective, &inputs, options, group, cx)?;
    for input in step.model.graph.inputs() {
        step.model.graph.remove_unused_input(input);
    }
    Ok(step)
}

impl Student {
    /// Makes values inputs, so that what comes before them is not computed.
    fn cut(&mut self, from: &[String]) -> Result<(), PassError> {
        let graph = &mut self.model.graph;
        let found = graph.provenance();
        for (index, name) in from.iter().enumerate() {
            let value = value_at(&found, name)?;
            let unknown = || PassError::Model(Reason::UnknownShape(name.clone()));
            let tensor_type = graph.value_type(value).ok_or_else(unknown)?;
            let input = graph.add_input(&feature_name(index), tensor_type);
            let mut patch = Patch::at(input.node);
            patch.replace(value, input);
            graph.apply(patch)?;
        }
        Ok(())
    }

    /// Adds the original's values at the taps.
    fn teachers(
        &mut self,
        students: &[Value],
        alignment: &Alignment<'_>,
        cx: &Context<'_>,
    ) -> Result<Vec<Value>, PassError> {
        let model = &mut self.model;
        let original = match alignment.reference {
            Reference::Original(original) => original,
            Reference::Targets => {
                let typed = students.iter().zip(alignment.taps).enumerate();
                let inputs = typed.map(|(index, (&s, tap))| {
                    let unknown = || PassError::Model(Reason::UnknownShape(tap.place().to_owned()));
                    let tensor_type = model.graph.value_type(s).ok_or_else(unknown)?;
                    Ok(model.graph.add_input(&target_name(index), tensor_type))
                });
                return inputs.collect();
            }
        };
        let mut original = original.clone();
        canonical(&mut original, cx)?;
        cx.infer(&mut original)?;
        let teachers = tapped(&mut original, alignment.taps)?;
        for ((&s, &t), tap) in students.iter().zip(&teachers).zip(alignment.taps) {
            check(model, s, &original, t, tap)?;
        }
        let input = image(&original.graph)?;
        teacher::put(model, original, input, &teachers, self.image)
    }

    /// Adds the errors and their sum, and puts norms between trained parameters and taps into training mode.
    fn add_errors(
        &mut self,
        inputs: &Inputs,
        pairs: &[(Value, Value)],
        taps: &[Tap],
        options: &StepOptions,
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
        let activity = Activity::of(&model.graph, &trained, &[loss], &|_, _, _| true);
        let is_active = |node: &NodeId| activity.is_active(model.graph.output(*node, 0));
        let among: Vec<NodeId> = self.own.iter().copied().filter(is_active).collect();
        let statistics = batch_norm::train(model, &among, options.norm_statistics, cx)?;
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
            place: tap.place().to_owned(),
            types: Box::new([s, t].map(|found| described(found.as_ref()))),
        })),
    }
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

    fn cut_step_of(
        student: &Model,
        from: &[String],
        original: Option<&Model>,
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
        let alignment = Alignment {
            from,
            taps,
            reference: original.map_or(Reference::Targets, Reference::Original),
        };
        alignment_step(student.clone(), &alignment, &options, &group, &cx)
    }

    fn step_of(
        student: &Model,
        original: &Model,
        taps: &[Tap],
        trained: &[&str],
    ) -> Result<Step, PassError> {
        cut_step_of(student, &[], Some(original), taps, trained)
    }

    /// The outputs of a step with rate 0 on a batch.
    fn run(step: &Step, images: &Tensor) -> Tensors {
        let named = ["x", TEACHER_IMAGES].map(|name| (name.to_owned(), images.clone()));
        run_on(step, named.into())
    }

    fn run_on(step: &Step, mut inputs: Tensors) -> Tensors {
        let state = step.state.iter();
        inputs.extend(state.map(|state| (state.input.clone(), state.initial.clone())));
        inputs.insert(LEARNING_RATE.to_owned(), Tensor::f32s(&[], vec![0.0]));
        inputs.insert(STEP.to_owned(), Tensor::i64s(&[], vec![1]));
        default_interpreter().run(&step.model, &inputs).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_f64s().unwrap()
    }

    /// A value of a model on a batch.
    fn value(model: &Model, name: &str, images: &Tensor) -> Vec<f64> {
        numbers(&tensor(model, name, images))
    }

    fn tensor(model: &Model, name: &str, images: &Tensor) -> Tensor {
        let mut model = model.clone();
        let found = model.graph.value_named(name).unwrap();
        model.graph.set_outputs(&[(found, name.to_owned())]);
        let inputs = Tensors::from([("x".to_owned(), images.clone())]);
        default_interpreter().run(&model, &inputs).unwrap()[name].clone()
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
        /// A norm behind the tap too: its statistics are none of the step's.
        fn normed(seed: u64) -> Model {
            let builder = image("batch,3,4,4")
                .param("first", weight(seed, &[4, 3, 3, 3]))
                .op("Conv", &["x", "first"], "a", [])
                .norm("a", "b", 4)
                .op("Relu", &["b"], "c", [])
                .param("second", weight(seed + 1, &[5, 4, 1, 1]))
                .op("Conv", &["c", "second"], "d", [])
                .norm("d", "e", 5)
                .op("GlobalAveragePool", &["e"], "f", [])
                .op("Flatten", &["f"], "logits", []);
            model(builder.output("logits"))
        }
        let taps = [Tap::Value("c".to_owned())];
        let step = step_of(&normed(1), &normed(7), &taps, &[]).unwrap();
        let names: Vec<&str> = step.parameters.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(!names.contains(&"second"));
        // Its norm is in training mode.
        let statistics = step.state.iter().filter(|s| s.kind == StateKind::Statistic);
        assert_eq!(statistics.count(), 2);
        let text = body(&step.model).join("\n");
        assert!(!text.contains("second"), "{text}");
    }

    #[test]
    fn a_cut_step_is_the_whole_one() {
        let (student, original) = (network(1, 4), network(7, 4));
        let images = inputs_for(&original, 3)["x"].clone();
        let taps = [Tap::Output];
        let whole = step_of(&student, &original, &taps, &["second"]).unwrap();
        let cut = cut_step_of(&student, &["c".to_owned()], None, &taps, &["second"]).unwrap();
        let inputs = Tensors::from([
            (feature_name(0), tensor(&student, "c", &images)),
            (target_name(0), tensor(&original, "logits", &images)),
        ]);
        let [expected, found] = [run(&whole, &images), run_on(&cut, inputs)];
        // At a rate of 0 it is the moments that gradients show in.
        let moments = whole
            .state
            .iter()
            .filter(|s| s.kind == StateKind::Optimiser);
        let moments: Vec<&str> = moments.map(|s| s.output.as_str()).collect();
        assert_eq!(moments.len(), 2, "{moments:?}");
        for name in moments.into_iter().chain([LOSS]) {
            let [expected, found] = [&expected, &found].map(|outputs| numbers(&outputs[name]));
            let scale = expected
                .iter()
                .fold(0.0, |scale: f64, x| scale.max(x.abs()));
            assert!(scale > 0.0, "{name}");
            for (a, b) in expected.iter().zip(&found) {
                assert!((a - b).abs() < 1e-5 * scale, "{name}: {a} {b}");
            }
        }
        // It computes nothing before the cut, so it needs no images.
        let text = body(&cut.model).join("\n");
        assert!(!text.contains("first"), "{text}");
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

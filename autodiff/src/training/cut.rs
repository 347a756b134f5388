//! Parts of a model between values that stand for those of the original.

use std::collections::BTreeMap;
use std::sync::Arc;

use bcosc_ir::{Model, SurgeryError, Value};
use bcosc_passes::{Context, PassError, Reason};

use super::{Tap, canonical};
use crate::explanation::image;
use crate::scores::scores;

/// A model, ready to be cut.
#[derive(Clone, Debug)]
pub struct Cuttable {
    model: Model,
}

/// A part of a model. It computes as in inference.
#[derive(Clone, Debug)]
pub struct Part {
    /// The part as a model of its own.
    pub model: Model,
    /// Its inputs.
    pub reads: Vec<Read>,
}

/// An input of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The images, as the whole model takes them.
    Images,
    /// The model's value for one of the original, by that value's name.
    Value(String),
}

impl Cuttable {
    /// Brings a model into the form that can be cut. It must know what its values stand for.
    ///
    /// # Errors
    /// If a canonical pass or type inference fails.
    pub fn new(model: &Model, cx: &Context<'_>) -> Result<Self, PassError> {
        let mut model = model.clone();
        canonical(&mut model, cx)?;
        cx.infer(&mut model)?;
        Ok(Cuttable { model })
    }

    /// The part that computes taps from values, which are named as in the original; from the images, if there are none.
    ///
    /// # Errors
    /// If a name has no value in the model.
    pub fn part(&self, from: &[String], taps: &[Tap]) -> Result<Part, PassError> {
        let mut model = self.model.clone();
        let outputs = tapped(&mut model, taps)?;
        let found = model.graph.provenance();
        let inputs = from.iter().map(|name| value_at(&found, name));
        let mut inputs: Vec<Value> = inputs.collect::<Result<_, _>>()?;
        let mut reads: Vec<Read> = from.iter().cloned().map(Read::Value).collect();
        let part = match inputs.is_empty() {
            true => None,
            // Sizes may still be read from the images.
            false => match model.extract(&inputs, &outputs) {
                Err(SurgeryError::NotCutOff { .. }) => None,
                other => Some(other?),
            },
        };
        let part = match part {
            Some(part) => part,
            None => {
                inputs.push(image(&model.graph)?);
                reads.push(Read::Images);
                model.extract(&inputs, &outputs)?
            }
        };
        Ok(Part { model: part, reads })
    }
}

/// The values of a model at taps.
pub(super) fn tapped(model: &mut Model, taps: &[Tap]) -> Result<Vec<Value>, PassError> {
    let found = model.graph.provenance();
    let values = taps.iter().map(|tap| match tap {
        Tap::Output => Ok(scores(model)?.0),
        Tap::Value(name) => value_at(&found, name),
    });
    values.collect()
}

/// The value that stands for one of the original.
pub(super) fn value_at(found: &BTreeMap<Arc<str>, Value>, name: &str) -> Result<Value, PassError> {
    let value = found.get(name).copied();
    value.ok_or_else(|| PassError::Model(Reason::NoPlace(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use bcosc_engine::default_interpreter;
    use bcosc_ir::{Attribute, Interpreter, ModelBuilder, Tensor, Tensors};
    use bcosc_passes::Settings;
    use bcosc_testing::{Layers, body, image, inputs_for, model};

    use super::*;

    fn part(model: &Model, from: &[&str], taps: &[Tap]) -> Result<Part, PassError> {
        let settings = Settings::default();
        let cx = Context {
            settings: &settings,
            interpreter: default_interpreter(),
            calibration: None,
        };
        let from: Vec<String> = from.iter().map(|&name| name.to_owned()).collect();
        Cuttable::new(model, &cx)?.part(&from, taps)
    }

    fn value(name: &str) -> Tap {
        Tap::Value(name.to_owned())
    }

    /// Two layers; the second one's output has the size of the images again.
    fn network() -> Model {
        let builder: ModelBuilder = image("batch,3,height,width")
            .conv(
                "x",
                "a",
                &[4, 3, 2, 2],
                [Attribute::ints("strides", &[2, 2])],
            )
            .op("Relu", &["a"], "b", [])
            .conv("b", "c", &[4, 4, 1, 1], [])
            .op("Shape", &["x"], "size", [])
            .param("start", Tensor::i64_vec(&[2]))
            .param("end", Tensor::i64_vec(&[4]))
            .op("Slice", &["size", "start", "end"], "wanted", [])
            .op("Shape", &["c"], "own", [])
            .param("zero", Tensor::i64_vec(&[0]))
            .param("two", Tensor::i64_vec(&[2]))
            .op("Slice", &["own", "zero", "two"], "kept", [])
            .op(
                "Concat",
                &["kept", "wanted"],
                "sizes",
                [Attribute::int("axis", 0)],
            )
            .op("Resize", &["c", "", "", "sizes"], "d", [])
            .op("GlobalAveragePool", &["d"], "e", [])
            .op("Flatten", &["e"], "logits", []);
        model(builder.output("logits"))
    }

    #[test]
    fn parts_compute_what_the_whole_does() {
        let whole = network();
        let mut inputs = inputs_for(&whole, 3);
        let first = part(&whole, &[], &[value("b")]).unwrap();
        assert_eq!(first.reads, [Read::Images]);
        let run =
            |model: &Model, inputs: &Tensors| default_interpreter().run(model, inputs).unwrap();
        let features = run(&first.model, &inputs);

        let second = part(&whole, &["b"], &[value("c")]).unwrap();
        assert_eq!(second.reads, [Read::Value("b".to_owned())]);
        assert_eq!(body(&second.model).len(), 1);

        // A size is read from the images.
        let rest = part(&whole, &["b"], &[Tap::Output]).unwrap();
        assert_eq!(rest.reads, [Read::Value("b".to_owned()), Read::Images]);
        let expected = run(&whole, &inputs)["logits"].to_f32s().unwrap();
        inputs.extend(features);
        let found = run(&rest.model, &inputs);
        let found = found.values().next().unwrap().to_f32s().unwrap();
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn a_value_that_the_original_does_not_have_is_refused() {
        let refused = part(&network(), &["nothing"], &[Tap::Output]);
        assert!(matches!(
            refused,
            Err(PassError::Model(Reason::NoPlace(name))) if name == "nothing"
        ));
    }
}

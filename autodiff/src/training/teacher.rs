//! A frozen teacher inside a training step.

use bcosc_ir::{Dim, Model, TensorType, Value};
use bcosc_passes::{Context, PassError, Reason};

use crate::explanation::image;
use crate::scores::scores;

/// Puts a teacher into a model that is trained. It gets an input for images of its own, since it takes them in its own
/// format. Returns its outputs `[N, K]`.
///
/// `images` are those of the student, whose batch the teacher's have too.
pub(super) fn add(
    model: &mut Model,
    teacher: &Model,
    images: Value,
    classes: u64,
    cx: &Context<'_>,
) -> Result<Value, PassError> {
    let mut teacher = teacher.clone();
    super::canonical(&mut teacher, cx)?;
    cx.infer(&mut teacher)?;
    let input = image(&teacher.graph)?;
    let (outputs, found) = scores(&mut teacher)?;
    if found != classes {
        return Err(PassError::Model(Reason::OtherTeacher {
            outputs: found,
            expected: classes,
        }));
    }
    let outputs = put(model, teacher, input, &[outputs], images)?;
    let first = outputs.into_iter().next();
    first.ok_or(PassError::Model(Reason::Malformed))
}

/// Puts a teacher into a model, and returns some of its values there. `input` is where the teacher takes images; the types
/// of its values must be known.
pub(super) fn put(
    model: &mut Model,
    mut teacher: Model,
    input: Value,
    values: &[Value],
    images: Value,
) -> Result<Vec<Value>, PassError> {
    let named = values.iter().enumerate();
    let named: Vec<(Value, String)> = named
        .map(|(index, &value)| (value, format!("teacher.{index}")))
        .collect();
    teacher.graph.set_outputs(&named);
    teacher.graph.remove_dead();
    let batch = |value: Value, of: &Model| -> Option<Dim> {
        of.graph.value_type(value)?.shape?.first().cloned()
    };
    let own = teacher.graph.value_type(input).map(|mut found| {
        let first = found.shape.as_mut().and_then(|dims| dims.first_mut());
        if let (Some(first), Some(batch)) = (first, batch(images, model)) {
            *first = batch;
        }
        found
    });
    let unknown = || {
        let name = teacher.graph.value_name(input).to_owned();
        PassError::Model(Reason::UnknownShape(name))
    };
    let own: TensorType = own.ok_or_else(unknown)?;
    let bound = model.graph.add_input(super::TEACHER_IMAGES, own);
    Ok(model.splice(&teacher, &[(input, bound)])?)
}

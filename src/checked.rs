//! Reading a model that is used as it is: explained, trained, or run on pictures.

use bcosc_autodiff::explanation::is_explanation;
use bcosc_ir::Model;

use crate::load::{File, Read};
use crate::outputs::keep_outputs;
use crate::{Error, InputShape, soundness, support};

/// Builds the graph of a file and checks that engines and backward rules can take it. Returns the model with the wanted outputs
/// (all, if none is named; an explanation graph keeps its own), and its name in messages.
pub(crate) fn checked(
    file: File,
    input_shapes: &[InputShape],
    outputs: &[String],
) -> Result<(Model, String), Error> {
    let Read {
        mut model, label, ..
    } = file.build(input_shapes)?;
    if !is_explanation(&model.graph) {
        keep_outputs(&mut model, outputs, &label)?;
    }
    support::check_operators(&model, &label)?;
    soundness::check(&model, &label)?;
    soundness::check_weights(&model, &label)?;
    Ok((model, label))
}

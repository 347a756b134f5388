//! What is given to a session, against what the model declares; for engines.

use bcosc_ir::Dim;

use crate::{EngineError, InputShapes, Port, Value};

/// Gives inputs their shapes.
///
/// # Errors
/// If a shape is missing, belongs to no input or does not fit its declaration.
pub fn specialise(inputs: &mut [Port], shapes: &InputShapes) -> Result<(), EngineError> {
    let is_input = |name: &&String| inputs.iter().any(|port| port.name == **name);
    if let Some(stranger) = shapes.keys().find(|name| !is_input(name)) {
        return Err(EngineError::UnknownInput(stranger.clone()));
    }
    for Port { name, tensor_type } in inputs {
        let missing = || EngineError::MissingInput(name.clone());
        let given = shapes.get(name).ok_or_else(missing)?;
        let untyped = || EngineError::UntypedInput(name.clone());
        let declared = tensor_type.as_mut().ok_or_else(untyped)?;
        let fits = declared.shape.as_ref().is_none_or(|dims| {
            let mut pairs = dims.iter().zip(given);
            dims.len() == given.len() && pairs.all(|(d, s)| d.known().is_none_or(|d| d == *s))
        });
        if !fits {
            return Err(EngineError::InputShape {
                input: name.clone(),
                declared: declared.clone(),
                given: given.clone(),
            });
        }
        declared.shape = Some(given.iter().map(|&size| Dim::Known(size)).collect());
    }
    Ok(())
}

/// Checks the values of a run.
///
/// # Errors
/// If there are more or fewer than inputs, or one is of another type or shape.
pub fn check(inputs: &[Port], values: &[Value]) -> Result<(), EngineError> {
    let (expected, given) = (inputs.len(), values.len());
    if given != expected {
        return Err(EngineError::InputCount { expected, given });
    }
    for (Port { name, tensor_type }, value) in inputs.iter().zip(values) {
        let given = value.tensor_type();
        let untyped = || EngineError::UntypedInput(name.clone());
        let declared = tensor_type.as_ref().ok_or_else(untyped)?;
        if declared.dtype != given.dtype {
            return Err(EngineError::InputType {
                input: name.clone(),
                declared: declared.dtype,
                given: given.dtype,
            });
        }
        if declared.shape != given.shape {
            return Err(EngineError::InputShape {
                input: name.clone(),
                declared: declared.clone(),
                given: given.known_shape().unwrap_or_default(),
            });
        }
    }
    Ok(())
}

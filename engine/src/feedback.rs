//! Runs whose outputs are inputs of the next run.

use std::collections::BTreeMap;

use bcosc_ir::{Tensor, Tensors};

use crate::{EngineError, Session, Value};

/// A session with inputs that are outputs of the previous run, such as parameters and optimiser state in
/// training. They stay in the engine's memory until they are read.
#[derive(Debug)]
pub struct Feedback {
    session: Box<dyn Session>,
    /// For each input, the index of the output with its next value.
    sources: BTreeMap<usize, usize>,
    /// The value of each input in `sources`.
    state: BTreeMap<usize, Value>,
}

impl Feedback {
    /// Connects outputs to inputs: after a run, the input of each pair `(output, input)` gets the output's value.
    /// `initial` has the values for the first run.
    ///
    /// # Errors
    /// If there is no output or input of a name, or an initial value is missing.
    pub fn new(
        session: Box<dyn Session>,
        pairs: &[(&str, &str)],
        initial: &Tensors,
    ) -> Result<Self, EngineError> {
        let mut sources = BTreeMap::new();
        let mut state = BTreeMap::new();
        for &(output, input) in pairs {
            let source = session.outputs().iter().position(|o| o.name == output);
            let source = source.ok_or_else(|| EngineError::UnknownOutput(output.to_owned()))?;
            let slot = session.inputs().iter().position(|i| i.name == input);
            let slot = slot.ok_or_else(|| EngineError::UnknownInput(input.to_owned()))?;
            let value = initial.get(input);
            let value = value.ok_or_else(|| EngineError::MissingInput(input.to_owned()))?;
            sources.insert(slot, source);
            state.insert(slot, Value::from(value.clone()));
        }
        Ok(Feedback {
            session,
            sources,
            state,
        })
    }

    /// Runs once, from the state and the other inputs by name; returns the outputs that are not state, by name.
    ///
    /// # Errors
    /// As [`Session::run`]. The run consumes the state: if it fails, later runs report that the state is
    /// missing.
    pub fn run(&mut self, inputs: &Tensors) -> Result<BTreeMap<String, Value>, EngineError> {
        let ports = self.session.inputs();
        let mut values = Vec::with_capacity(ports.len());
        for (slot, port) in ports.iter().enumerate() {
            let value = match self.sources.contains_key(&slot) {
                true => self.state.remove(&slot),
                false => inputs.get(&port.name).cloned().map(Value::from),
            };
            values.push(value.ok_or_else(|| EngineError::MissingInput(port.name.clone()))?);
        }
        let outputs = self.session.run(values)?;
        for (slot, source) in &self.sources {
            let value = outputs.get(*source).cloned();
            self.state.extend(value.map(|value| (*slot, value)));
        }
        let is_state = |place: &usize| self.sources.values().any(|source| source == place);
        let named = self.session.outputs().iter().zip(outputs).enumerate();
        Ok(named
            .filter(|(place, _)| !is_state(place))
            .map(|(_, (port, value))| (port.name.clone(), value))
            .collect())
    }

    /// Reads the state of an input.
    ///
    /// # Errors
    /// [`EngineError::UnknownInput`] if the input is not a state, [`EngineError::MissingInput`] after a run that
    /// failed.
    pub fn read(&self, input: &str) -> Result<Tensor, EngineError> {
        let slot = self.session.inputs().iter().position(|i| i.name == input);
        let slot = slot.filter(|slot| self.sources.contains_key(slot));
        let slot = slot.ok_or_else(|| EngineError::UnknownInput(input.to_owned()))?;
        let value = self.state.get(&slot);
        let missing = || EngineError::MissingInput(input.to_owned());
        value.ok_or_else(missing)?.to_tensor()
    }
}

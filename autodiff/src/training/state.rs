//! What a training step keeps for the next: inputs whose new values are outputs.

use bcosc_ir::{Graph, Operand, Tensor};

use super::Parameter;

/// An input whose new value is an output.
#[derive(Clone, Debug)]
pub struct State {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
    /// What it is.
    pub kind: StateKind,
    /// Its value before the first step.
    pub initial: Tensor,
}

impl State {
    pub(super) fn new(input: &str, kind: StateKind, initial: Tensor) -> Self {
        State {
            input: input.to_owned(),
            output: format!("{input}.next"),
            kind,
            initial,
        }
    }
}

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// A parameter of the model.
    Parameter,
    /// A running statistic of a norm of the model.
    Statistic,
    /// State of the optimiser, accumulated gradients among it.
    Optimiser,
    /// A moving average of a parameter.
    Average,
}

impl StateKind {
    const ALL: [StateKind; 4] = [
        StateKind::Parameter,
        StateKind::Statistic,
        StateKind::Optimiser,
        StateKind::Average,
    ];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            StateKind::Parameter => "parameter",
            StateKind::Statistic => "statistic",
            StateKind::Optimiser => "optimiser",
            StateKind::Average => "average",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Adds an input for each parameter that holds something of its shape.
pub(super) fn held(
    graph: &mut Graph,
    parameters: &[Parameter],
    kind: StateKind,
    suffix: &str,
    states: &mut Vec<State>,
) -> Vec<Operand> {
    let mut values = Vec::new();
    for parameter in parameters {
        let name = format!("{}.{suffix}", parameter.name);
        let value = graph.add_input(&name, parameter.tensor.tensor_type());
        let initial = match kind {
            StateKind::Average => parameter.tensor.clone(),
            _ => zeros(&parameter.tensor),
        };
        states.push(State::new(graph.value_name(value), kind, initial));
        values.push(value.into());
    }
    values
}

/// Zeros of the type of a tensor.
fn zeros(like: &Tensor) -> Tensor {
    let bytes = vec![0; usize::try_from(like.byte_len()).unwrap_or(0)];
    Tensor::from_bytes(like.dtype(), &like.dims(), bytes.into())
}

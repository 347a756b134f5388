//! Graphs that are ready to run.

use std::sync::Arc;

use bcosc_ir::{DataType, TensorType};
use tract_onnx::prelude::{
    TValue, TVec, Tensor as TractTensor, TractResult, TypedFact, TypedRunnableModel,
};
use tract_onnx::tract_core::plan::eval;
use tract_onnx::tract_hir::internal::{IntoArcTensor, IntoTValue};

use super::fault::{Fault, guarded};
use super::tensor::{Halves, from_datum_type, from_tdim, is_half, to_tract};
use super::value::{TractValue, computed};
use crate::{EngineError, Port, Session, SessionOptions, Value, ports};

/// The target of events that say which operator has run, and on what.
const OPERATORS: &str = "operators";

/// A graph that is ready to run.
#[derive(Debug)]
pub(crate) struct TractSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// What each output is rounded to.
    halves: Vec<Option<DataType>>,
}

impl TractSession {
    /// A session of a graph; its inputs have the types that it was prepared for, its outputs those that the file
    /// declares.
    pub fn new(
        plan: Arc<TypedRunnableModel>,
        inputs: Vec<Port>,
        mut outputs: Vec<Port>,
        options: &SessionOptions,
    ) -> Self {
        let half = |port: &Port| {
            let dtype = port.tensor_type.as_ref().map(|declared| declared.dtype);
            dtype.filter(|dtype| is_half(*dtype) && !options.unrounded)
        };
        let halves: Vec<Option<DataType>> = outputs.iter().map(half).collect();
        for (slot, port) in outputs.iter_mut().enumerate() {
            let found = plan.model().output_fact(slot).ok();
            let found = found.and_then(|fact| tensor_type(fact, halves[slot]));
            port.tensor_type = found.or(port.tensor_type.take());
        }
        TractSession {
            plan,
            inputs,
            outputs,
            halves,
        }
    }
}

impl TractSession {
    /// Runs the graph, with an event after each operator if somebody listens.
    fn run_plan(&self, operands: TVec<TValue>) -> TractResult<TVec<TValue>> {
        if !tracing::enabled!(target: OPERATORS, tracing::Level::TRACE) {
            return self.plan.run(operands);
        }
        let mut state = self.plan.spawn()?;
        state.run_plan_with_eval(operands, |context, state, node, operands| {
            let shapes: Vec<_> = operands.iter().map(|x| x.shape().to_vec()).collect();
            let results = eval(context, state, node, operands);
            if results.is_ok() {
                let operator = node.op.name();
                tracing::trace!(target: OPERATORS, %operator, node = node.name, ?shapes);
            }
            results
        })
    }
}

impl Session for TractSession {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// What a model computes in half precision or bfloat16 is computed in single precision.
    fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, EngineError> {
        ports::check(&self.inputs, &inputs)?;
        let operands = inputs.into_iter();
        let operands = operands
            .map(|value| Ok(operand(value)?.into_tvalue()))
            .collect::<Result<_, EngineError>>()?;
        let values = guarded(|| "running the graph".into(), || self.run_plan(operands));
        let values = values.map_err(Fault::running)?.into_iter();
        let named = self.outputs.iter().zip(&self.halves).zip(values);
        named
            .map(|((port, half), value)| {
                let not_numeric = || EngineError::Output(port.name.clone());
                computed(value.into_arc_tensor(), *half).ok_or_else(not_numeric)
            })
            .collect()
    }
}

/// A value in tract's memory.
fn operand(value: Value) -> Result<Arc<TractTensor>, EngineError> {
    match value.into_stored::<TractValue>() {
        Ok(stored) => stored.operand(),
        Err(value) => Ok(Arc::new(to_tract(&value.to_tensor()?, Halves::AsFloat)?)),
    }
}

/// The type of an output, where tract knows it.
fn tensor_type(fact: &TypedFact, half: Option<DataType>) -> Option<TensorType> {
    let dtype = from_datum_type(fact.datum_type, Halves::Bfloat16Unknown)?;
    Some(TensorType {
        dtype: half.filter(|_| dtype == DataType::Float).unwrap_or(dtype),
        shape: Some(fact.shape.iter().map(from_tdim).collect()),
    })
}

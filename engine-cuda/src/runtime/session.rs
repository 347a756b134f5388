//! Runs: inputs to the device, the steps, outputs. From the second run on, the steps are one CUDA graph.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bcosc_engine::{EngineError, Port, Session, Value, ports};

use super::gpu::{Gpu, Libraries};
use super::graph::{Captured, Event};
use super::memory::{Memory, Pinned};
use super::program::Program;
use super::value::CudaValue;
use crate::plan::Binding;

/// A plan on a device. Runs take turns.
pub struct CudaSession {
    gpu: Arc<Gpu>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    state: Mutex<State>,
}

struct State {
    graph: Graph,
    /// Host memory from which each input is copied; made when it is needed.
    staged: Vec<Option<Pinned>>,
    /// Done when the last copies from there are.
    copied: Event,
    /// For each pair of state, the value that was returned last, whose memory is the input's.
    resident: Vec<Weak<CudaValue>>,
    /// Last, since graphs and copies use its memory.
    program: Program,
}

enum Graph {
    /// Nothing has run.
    New,
    /// Kernels are loaded and libraries warm.
    Warm,
    /// The steps are captured.
    Captured(Captured),
}

impl fmt::Debug for CudaSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaSession")
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl CudaSession {
    /// A session for a loaded plan.
    pub fn new(
        gpu: &Arc<Gpu>,
        program: Program,
        inputs: Vec<Port>,
        outputs: Vec<Port>,
    ) -> Result<Self, EngineError> {
        let state = State {
            graph: Graph::New,
            staged: inputs.iter().map(|_| None).collect(),
            copied: Event::new(gpu)?,
            resident: program.plan.state.iter().map(|_| Weak::new()).collect(),
            program,
        };
        Ok(CudaSession {
            gpu: gpu.clone(),
            inputs,
            outputs,
            state: Mutex::new(state),
        })
    }
}

impl Session for CudaSession {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Returns when the work is enqueued; reading an output waits for it.
    fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, EngineError> {
        ports::check(&self.inputs, &inputs)?;
        // A run that panicked leaves nothing that the next one does not write.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let libraries = self.gpu.lock()?;
        state.copied.wait()?;
        for (number, value) in inputs.into_iter().enumerate() {
            state.input(&self.gpu, number, value)?;
        }
        // A value of another device makes that the device of this thread when it is read or given back.
        self.gpu.bind()?;
        state.copied.record()?;
        state.steps(&self.gpu, &libraries)?;
        state.outputs(&self.gpu)
    }
}

impl State {
    fn binding(&self, input: usize) -> Result<&Binding, EngineError> {
        self.program
            .plan
            .inputs
            .get(input)
            .ok_or_else(|| EngineError::InputCount {
                expected: self.program.plan.inputs.len(),
                given: input + 1,
            })
    }

    /// Puts a value where the steps read it.
    fn input(&mut self, gpu: &Arc<Gpu>, number: usize, value: Value) -> Result<(), EngineError> {
        let buffer = self.binding(number)?.buffer;
        let (memory, _) = self.program.memory(buffer)?.clone();
        let pair = self
            .program
            .plan
            .state
            .iter()
            .position(|state| state.input == number);
        let value = value.into_stored::<CudaValue>();
        let value = match value {
            Ok(own) if own.is_on(gpu) => Ok(own),
            Ok(other) => Err(bcosc_engine::Stored::read(&*other)?),
            Err(value) => Err(value.to_tensor()?),
        };
        if let Some(resident) = pair.and_then(|pair| self.resident.get_mut(pair)) {
            let held = std::mem::take(resident).upgrade();
            let given = value.as_ref().ok();
            let same = held
                .as_ref()
                .zip(given)
                .is_some_and(|(a, b)| Arc::ptr_eq(a, b));
            // `held` is one owner, and the value that is given may be another.
            let alone = held
                .as_ref()
                .is_none_or(|held| Arc::strong_count(held) == 1 + usize::from(same));
            if let Some(held) = held.filter(|_| !alone) {
                held.move_out()?;
            }
            if same {
                return Ok(());
            }
        }
        match value {
            Ok(stored) => memory.copy_from(stored.memory().address(), stored.bytes()),
            Err(tensor) => {
                let slot = self.staged.get_mut(number);
                let Some(slot) = slot else {
                    return memory.fill(&tensor.bytes()?);
                };
                let staged = match slot {
                    Some(staged) => staged,
                    None => slot.insert(Pinned::new(gpu, memory.bytes())?),
                };
                staged.upload(&tensor.bytes()?, &memory)
            }
        }
    }

    /// Runs the steps: one by one the first time, then as a graph.
    fn steps(&mut self, gpu: &Arc<Gpu>, libraries: &Libraries) -> Result<(), EngineError> {
        if matches!(self.graph, Graph::Warm) {
            let captured = Captured::of(gpu, || self.program.run(libraries, gpu.capture_stream()))?;
            self.graph = Graph::Captured(captured);
        }
        match &self.graph {
            Graph::Captured(captured) => captured.launch(),
            Graph::New | Graph::Warm => {
                self.program.run(libraries, gpu.stream())?;
                self.graph = Graph::Warm;
                Ok(())
            }
        }
    }

    /// State stays where the next run reads it; other outputs get memory of their own.
    fn outputs(&mut self, gpu: &Arc<Gpu>) -> Result<Vec<Value>, EngineError> {
        let plan = &self.program.plan;
        let mut found = Vec::new();
        for (number, Binding { buffer, dims, .. }) in plan.outputs.iter().enumerate() {
            let ty = plan.buffers.get(*buffer).map(|buffer| buffer.ty);
            let ty = ty.ok_or_else(|| EngineError::Output(number.to_string()))?;
            let pair = plan.state.iter().position(|state| state.output == number);
            if let Some(pair) = pair
                && let Some(input) = plan.state.get(pair).and_then(|s| plan.inputs.get(s.input))
                && let Some(resident) = self.resident.get_mut(pair)
            {
                let (memory, _) = self.program.memory(input.buffer)?.clone();
                let value = Arc::new(CudaValue::new(gpu, ty, dims, memory));
                *resident = Arc::downgrade(&value);
                found.push(Value::shared(value));
                continue;
            }
            let (from, offset) = self.program.memory(*buffer)?;
            let bytes = dims.iter().product::<u64>() * ty.bytes();
            let memory = Memory::new(gpu, bytes)?;
            memory.copy_from(from.address() + offset, bytes)?;
            found.push(Value::stored(CudaValue::new(
                gpu,
                ty,
                dims,
                Arc::new(memory),
            )));
        }
        Ok(found)
    }
}

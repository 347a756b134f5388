//! Writes forms of the constant channel into a graph.

use std::collections::BTreeMap;

use bcosc_ir::views::{AxesOp, reduce, squeeze, unsqueeze};
use bcosc_ir::{DataType, Model, NodeId, Op, Operand, Patch, Tensor, Value};

use super::forms::{Forms, Step};
use crate::analysis::weights;
use crate::{PassError, Reason};

/// The constant channel of a graph: its forms, and those that are written.
pub(super) struct Channel {
    pub forms: Forms,
    /// The doubled channels.
    doubled: Value,
    dtype: DataType,
    opset: i64,
    written: BTreeMap<usize, Value>,
}

impl Channel {
    /// That of the doubled channels of an image; `None` if its type is not known.
    pub(super) fn of(model: &Model, image: Value, doubled: Value) -> Option<Self> {
        Some(Channel {
            forms: Forms::of(&model.graph, image, doubled)?,
            doubled,
            dtype: model.graph.value_type(image)?.dtype,
            opset: model.opset("").unwrap_or(0),
            written: BTreeMap::new(),
        })
    }

    /// Element type of the constant.
    pub(super) fn dtype(&self) -> DataType {
        self.dtype
    }

    /// A form as a value of the graph, written with what it is made of at a node if it is new.
    pub(super) fn write(
        &mut self,
        model: &mut Model,
        form: usize,
        anchor: NodeId,
    ) -> Result<Value, PassError> {
        let mut missing = Vec::new();
        let mut next = Some(form);
        while let Some(index) = next.filter(|index| !self.written.contains_key(index)) {
            missing.push(index);
            next = self.forms.form(index).from.as_ref().map(|(from, _)| *from);
        }
        let mut patch = Patch::at(anchor);
        let mut made: BTreeMap<usize, Operand> = BTreeMap::new();
        for index in missing.into_iter().rev() {
            let operand = match &self.forms.form(index).from {
                None => self.image(&mut patch),
                Some((from, step)) => {
                    let written = self.written.get(from).map(|value| Operand::Old(*value));
                    let x = made.get(from).copied().or(written);
                    let x = x.ok_or(PassError::Model(Reason::Malformed))?;
                    self.step(model, &mut patch, (*from, x), step)
                        .ok_or(PassError::Model(Reason::Malformed))?
                }
            };
            patch.keep(operand);
            made.insert(index, operand);
        }
        let added = model.graph.apply(patch)?;
        let new = made.into_iter();
        self.written
            .extend(new.filter_map(|(index, operand)| Some((index, operand.applied(&added)?))));
        let found = self.written.get(&form).copied();
        found.ok_or(PassError::Model(Reason::Malformed))
    }

    /// `u = 2 * mean over channels`
    fn image(&self, patch: &mut Patch) -> Operand {
        let mean = reduce(
            patch,
            self.opset,
            AxesOp::ReduceMean,
            self.doubled.into(),
            &[1],
        );
        let two = patch.parameter("two", weights::tensor(self.dtype, &[], &[2.0]));
        patch.op(Op::new("", "Mul").named("constant"), &[mean, two])
    }

    fn step(
        &self,
        model: &Model,
        patch: &mut Patch,
        (from, x): (usize, Operand),
        step: &Step,
    ) -> Option<Operand> {
        let ints = |axes: &[usize]| axes.iter().map(|&axis| axis as i64).collect::<Vec<i64>>();
        let named = |op_type: &str| Op::new("", op_type).named("constant");
        Some(match step {
            Step::Window(sizes) => {
                let window = self.forms.window(from, sizes)?;
                let mut pool = window.write(named("AveragePool"));
                if sizes.iter().any(|(_, _, ceil)| *ceil) {
                    pool = pool.with_int("ceil_mode", 1);
                }
                patch.op(pool, &[x])
            }
            Step::Mean(axes) => reduce(patch, self.opset, AxesOp::ReduceMean, x, &ints(axes)),
            Step::Transpose(order) => {
                patch.op(named("Transpose").with_ints("perm", &ints(order)), &[x])
            }
            Step::Squeeze(axes) => squeeze(patch, self.opset, x, &ints(axes)),
            Step::Unsqueeze(axes) => unsqueeze(patch, self.opset, x, &ints(axes)),
            Step::Rank(rank) => {
                let mut shape = vec![1; *rank];
                shape[0] = -1;
                let shape = patch.parameter("shape", Tensor::i64_vec(&shape));
                patch.op(named("Reshape"), &[x, shape])
            }
            Step::Follow(node) => {
                let graph = &model.graph;
                let of = graph.input(*node, 0)?;
                let whole = match self.forms.form(from).wide.contains(&false) {
                    true => {
                        let shape = patch.op(Op::new("", "Shape"), &[of.into()]);
                        patch.op(named("Expand"), &[x, shape])
                    }
                    false => x,
                };
                let others = graph.inputs_of(*node).into_iter().skip(1);
                let others = others.map(|operand| operand.map(Operand::Old));
                let inputs: Vec<Option<Operand>> =
                    [Some(whole)].into_iter().chain(others).collect();
                let op = graph.op(*node)?.clone().named("constant");
                patch.multi_op(op, &inputs, graph.output_count(*node))
            }
        })
    }
}

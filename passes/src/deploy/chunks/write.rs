//! Replaces operators on whole images by operators on chunks.

use std::collections::BTreeMap;

use bcosc_ir::views::Conv;
use bcosc_ir::{Attribute, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Value};
use bytes::Bytes;

use super::plan::{Plan, Role};
use crate::analysis::weights::WeightError;
use crate::{PassError, Reason};

/// One of several equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    index: usize,
    of: usize,
}

impl Part {
    const WHOLE: Part = Part { index: 0, of: 1 };

    /// The range of the part among `length` elements.
    fn range(self, length: usize) -> std::ops::Range<usize> {
        let size = length / self.of;
        self.index * size..(self.index + 1) * size
    }

    fn all(of: usize) -> impl Iterator<Item = Part> {
        (0..of).map(move |index| Part { index, of })
    }
}

/// Weights for some of the outputs and some of the inputs.
type Block = (Value, Part, Part);

/// Writes operators on chunks in topological order.
pub(super) struct Writer<'p> {
    plan: &'p Plan,
    /// The chunks of split values.
    chunks: BTreeMap<Value, Vec<Value>>,
    /// Split weights.
    blocks: BTreeMap<Block, Value>,
}

impl<'p> Writer<'p> {
    /// A writer that follows a plan.
    pub fn new(plan: &'p Plan) -> Self {
        Writer {
            plan,
            chunks: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// Rewrites an operator that reads or computes chunks; leaves others unchanged.
    pub fn write(&mut self, model: &mut Model, node: NodeId) -> Result<(), PassError> {
        let graph = &model.graph;
        let y = Value { node, slot: 0 };
        let count = self.plan.chunks(y);
        let mut operands = graph.inputs_of(node).into_iter().flatten();
        let reads_chunks = operands.any(|operand| self.chunks.contains_key(&operand));
        let role = self.plan.role(node).filter(|_| reads_chunks || count > 1);
        let (Some(role), Some(op)) = (role, graph.op(node)) else {
            return Ok(());
        };
        let mut cut = Cut {
            graph,
            op: op.clone().named("chunk"),
            operands: graph.inputs_of(node),
            written: self,
            patch: Patch::at(node),
            made: Vec::new(),
        };
        let result = match role {
            Role::Each(_) => Ok(cut.each(count)),
            Role::Depthwise(conv) => cut.depthwise(conv, count),
            Role::Mixing(conv) => cut.mixing(conv, count),
        };
        let Cut {
            mut patch, made, ..
        } = cut;
        let outputs = result.map_err(|error| error.at(model, node))?;
        match outputs[..] {
            [whole] => patch.replace(y, whole),
            _ => outputs.iter().for_each(|&chunk| patch.keep(chunk)),
        }
        let added = model.graph.apply(patch)?;
        let applied = |operand: Operand| operand.applied(&added);
        self.blocks.extend(
            made.into_iter()
                .filter_map(|(block, weight)| Some((block, applied(weight)?))),
        );
        if count > 1 {
            self.chunks
                .insert(y, outputs.into_iter().filter_map(applied).collect());
        }
        Ok(())
    }
}

/// One operator being split.
struct Cut<'a> {
    graph: &'a Graph,
    op: Op,
    operands: Vec<Option<Value>>,
    written: &'a Writer<'a>,
    patch: Patch,
    made: Vec<(Block, Operand)>,
}

impl Cut<'_> {
    /// A chunk of a value, or the whole value if it is not split.
    fn chunk(&self, value: Value, index: usize) -> Value {
        let chunks = self.written.chunks.get(&value);
        chunks
            .and_then(|chunks| chunks.get(index))
            .copied()
            .unwrap_or(value)
    }

    fn each(&mut self, count: usize) -> Vec<Operand> {
        let chunk = |index| {
            let of = |operand: &Option<Value>| operand.map(|v| Operand::Old(self.chunk(v, index)));
            let inputs: Vec<Option<Operand>> = self.operands.iter().map(of).collect();
            self.patch.multi_op(self.op.clone(), &inputs, 1)
        };
        (0..count).map(chunk).collect()
    }

    fn depthwise(&mut self, conv: &Conv, count: usize) -> Result<Vec<Operand>, WeightError> {
        let group = conv.group as i64 / count as i64;
        self.op.set(Attribute::int("group", group));
        let chunk = |row: Part| self.convolution(conv, (row, Part::WHOLE), row.index, true);
        Part::all(count).map(chunk).collect()
    }

    fn mixing(&mut self, conv: &Conv, count: usize) -> Result<Vec<Operand>, WeightError> {
        let columns = self.columns();
        if columns == 1 && conv.bias.is_none() && is_uniform(&self.weight(conv.w)?) {
            let first = Part {
                index: 0,
                of: count,
            };
            return Ok(vec![self.sum(conv, first, columns)?; count]);
        }
        let sum = |row| self.sum(conv, row, columns);
        Part::all(count).map(sum).collect()
    }

    /// Number of chunks of the input.
    fn columns(&self) -> usize {
        let x = self.operands.first().copied().flatten();
        let chunks = x.and_then(|x| self.written.chunks.get(&x));
        chunks.map_or(1, Vec::len)
    }

    /// Some outputs of a convolution: a sum over the chunks of its input.
    fn sum(&mut self, conv: &Conv, row: Part, columns: usize) -> Result<Operand, WeightError> {
        let part = |index| Part { index, of: columns };
        let mut sum = self.convolution(conv, (row, part(0)), 0, true)?;
        for index in 1..columns {
            let more = self.convolution(conv, (row, part(index)), index, false)?;
            sum = self.patch.op(Op::new("", "Add").named("sum"), &[more, sum]);
        }
        Ok(sum)
    }

    /// The convolution of a chunk with some of its weights.
    fn convolution(
        &mut self,
        conv: &Conv,
        (row, column): (Part, Part),
        chunk: usize,
        biased: bool,
    ) -> Result<Operand, WeightError> {
        // The current operand, which may have replaced the one in the plan.
        let x = self.operands.first().copied().flatten().unwrap_or(conv.x);
        let mut inputs = vec![
            self.chunk(x, chunk).into(),
            self.block(conv.w, row, column)?,
        ];
        if let Some(bias) = conv.bias.filter(|_| biased) {
            inputs.push(self.block(bias, row, Part::WHOLE)?);
        }
        Ok(self.patch.op(self.op.clone(), &inputs))
    }

    /// A weight and its bytes.
    fn weight(&self, weight: Value) -> Result<(Tensor, Bytes), WeightError> {
        let tensor = self.graph.constant(weight).ok_or(Reason::DynamicWeight)?;
        let bytes = tensor.bytes()?;
        Ok((tensor, bytes))
    }

    /// Some rows and columns of a weight `[O, I, kernel...]`, or some elements of a bias `[O]`.
    fn block(&mut self, weight: Value, row: Part, column: Part) -> Result<Operand, WeightError> {
        if row.of * column.of == 1 {
            return Ok(weight.into());
        }
        let whole = self.weight(weight)?;
        let (mut dims, bytes) = (whole.0.dims(), &whole.1);
        // All blocks of ones are equal.
        let uniform = is_uniform(&whole);
        let at = |part: Part| Part {
            index: if uniform { 0 } else { part.index },
            ..part
        };
        let key = (weight, at(row), at(column));
        let made = self.made.iter().find(|(block, _)| *block == key);
        if let Some(&(_, operand)) = made {
            return Ok(operand);
        }
        if let Some(&value) = self.written.blocks.get(&key) {
            return Ok(value.into());
        }
        let height = dims[0] as usize;
        let width = bytes.len() / height;
        let rows = row.range(height);
        dims[0] /= row.of as u64;
        let cut = match dims.get_mut(1) {
            Some(inputs) if column.of > 1 => {
                let cell = width / *inputs as usize;
                let columns = column.range(*inputs as usize);
                *inputs /= column.of as u64;
                let columns = columns.start * cell..columns.end * cell;
                let of = |row| &bytes[row * width..][columns.clone()];
                rows.map(of).collect::<Vec<_>>().concat().into()
            }
            // Rows are contiguous.
            _ => bytes.slice(rows.start * width..rows.end * width),
        };
        let tensor = Tensor::from_bytes(whole.0.dtype(), &dims, cut);
        let operand = self.patch.parameter("block", tensor);
        self.made.push((key, operand));
        Ok(operand)
    }
}

/// Whether all elements are the same.
fn is_uniform((tensor, bytes): &(Tensor, Bytes)) -> bool {
    let size = bytes.len() / tensor.len().max(1) as usize;
    let mut elements = bytes.chunks_exact(size.max(1));
    let first = elements.next();
    elements.all(|x| Some(x) == first)
}

//! What the rule of an operator works with.

use std::collections::BTreeMap;

use bcosc_engine::Precision;
use bcosc_ir::ops::AttributeValue;
use bcosc_ir::{DataType, Graph, NodeId, Op, TensorError, Value};

use crate::expr::{Expr, Formula, Index, TensorId, Type};
use crate::program::{Def, Program, vars};

/// The tensor of each output; `None` for outputs that the rule does not compute.
pub type Outputs = Vec<Option<TensorId>>;

/// Why an operator has no kernel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// There is no rule.
    #[error("there is no kernel for this operator")]
    NoRule,
    /// The node breaks the rules of the standard.
    #[error("the node is malformed: {0}")]
    Malformed(String),
    /// An operand must be known when the plan is made.
    #[error("operand {0} is computed at run time")]
    NotConstant(u32),
    /// A form of the operator that has no kernel.
    #[error("there is no kernel for {0}")]
    Form(&'static str),
    /// An element type that kernels do not have.
    #[error("there are no kernels for elements of type {0}")]
    Type(DataType),
    /// The shape or type of a value is not known.
    #[error("the shape of `{0}` is not known")]
    Unknown(String),
    /// A constant cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// A malformed node.
pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T, Reason> {
    Err(Reason::Malformed(what.into()))
}

/// The context of a rule.
pub struct RuleContext<'a> {
    /// What tensors are added to.
    pub program: &'a mut Program,
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub node: NodeId,
    /// Its operator.
    pub op: &'a Op,
    /// The version of the standard operators.
    pub opset: i64,
    /// The tensors of all values so far.
    pub tensors: &'a BTreeMap<Value, TensorId>,
    /// Types and sizes of the outputs, where they are known.
    pub outputs: Vec<Option<(DataType, Vec<u64>)>>,
    /// The name of tensors: that of the first output.
    pub name: String,
    /// How products are rounded.
    pub precision: Precision,
}

impl RuleContext<'_> {
    /// An operand that may be left out.
    pub fn optional(&self, slot: u32) -> Option<TensorId> {
        let value = self.graph.input(self.node, slot)?;
        self.tensors.get(&value).copied()
    }

    /// An operand.
    pub fn operand(&self, slot: u32) -> Result<TensorId, Reason> {
        let missing = || Reason::Malformed(format!("operand {slot} is missing"));
        self.optional(slot).ok_or_else(missing)
    }

    /// All operands.
    pub fn operands(&self) -> Result<Vec<TensorId>, Reason> {
        let count = self.graph.inputs_of(self.node).len() as u32;
        (0..count).map(|slot| self.operand(slot)).collect()
    }

    /// Sizes of a tensor.
    pub fn dims(&self, id: TensorId) -> Vec<u64> {
        self.program.tensor(id).dims.clone()
    }

    /// Element type of a tensor.
    pub fn ty(&self, id: TensorId) -> Type {
        self.program.tensor(id).ty
    }

    /// Sizes of the first output.
    pub fn result(&self) -> Result<Vec<u64>, Reason> {
        self.result_of(0)
    }

    /// Sizes of an output.
    pub fn result_of(&self, slot: usize) -> Result<Vec<u64>, Reason> {
        let found = self.outputs.get(slot).and_then(Option::as_ref);
        let found = found.map(|(_, dims)| dims.clone());
        found.ok_or_else(|| Reason::Unknown(self.name.clone()))
    }

    /// Element type of the first output.
    pub fn result_type(&self) -> Result<Type, Reason> {
        let found = self.outputs.first().and_then(Option::as_ref);
        let (dtype, _) = found.ok_or_else(|| Reason::Unknown(self.name.clone()))?;
        Type::of(*dtype).ok_or(Reason::Type(*dtype))
    }

    /// Whether somebody reads an output.
    pub fn is_used(&self, slot: u32) -> bool {
        slot < self.graph.output_count(self.node)
            && !self
                .graph
                .uses(self.graph.output(self.node, slot))
                .is_empty()
    }

    /// An attribute, or its default.
    pub fn attribute<'s, T: AttributeValue<'s>>(&'s self, name: &str) -> Result<T, Reason> {
        let missing =
            || Reason::Malformed(format!("attribute `{name}` is missing or of another type"));
        self.op.get_at(name, self.opset).ok_or_else(missing)
    }

    /// An attribute that may be left out.
    pub fn given<'s, T: AttributeValue<'s>>(&'s self, name: &str) -> Option<T> {
        self.op.get_at(name, self.opset)
    }

    /// An axis counted from the front.
    pub fn axis_of(&self, axis: i64, rank: usize) -> Result<usize, Reason> {
        let from_front = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(from_front) {
            Ok(found) if found < rank.max(1) => Ok(found),
            _ => malformed(format!("there is no axis {axis}")),
        }
    }

    /// The attribute `axis` of a tensor.
    pub fn axis(&self, of: TensorId) -> Result<usize, Reason> {
        self.axis_of(self.attribute("axis")?, self.dims(of).len())
    }

    /// The values of an operand that are integers and known: constants, and what is computed of sizes.
    pub fn ints(&self, slot: u32) -> Result<Vec<i64>, Reason> {
        let id = self.operand(slot)?;
        self.program.integers(id).ok_or(Reason::NotConstant(slot))
    }

    /// Sizes of the first output, or where inference does not know them those that operands are broadcast to.
    pub fn broadcast_result(&self) -> Result<Vec<u64>, Reason> {
        if let Ok(dims) = self.result() {
            return Ok(dims);
        }
        let mut wide: Vec<u64> = Vec::new();
        for id in self.operands()? {
            let mut own = self.dims(id);
            let rank = own.len().max(wide.len());
            for dims in [&mut own, &mut wide] {
                dims.splice(0..0, vec![1; rank - dims.len()]);
            }
            for (wide, own) in wide.iter_mut().zip(own) {
                match (*wide, own) {
                    (a, b) if a == b || b == 1 => {}
                    (1, b) => *wide = b,
                    _ => return malformed("the operands have shapes that do not fit"),
                }
            }
        }
        Ok(wide)
    }

    /// As [`Self::ints`], of an operand that may be left out.
    pub fn optional_ints(&self, slot: u32) -> Result<Option<Vec<i64>>, Reason> {
        self.optional(slot).map(|_| self.ints(slot)).transpose()
    }

    /// The values of an operand that is a constant of floating-point numbers.
    pub fn floats(&self, slot: u32) -> Result<Vec<f64>, Reason> {
        let id = self.operand(slot)?;
        match &self.program.tensor(self.program.base(id)).def {
            Def::Constant(values, _) => Ok(values.to_f64s()?),
            _ => Err(Reason::NotConstant(slot)),
        }
    }

    /// Axes from an attribute or a constant operand, counted from the front, ascending; all of them if there are none.
    pub fn axes(&self, of: TensorId, slot: u32) -> Result<Vec<usize>, Reason> {
        let rank = self.dims(of).len();
        let given = match self.op.get::<&[i64]>("axes") {
            Some(axes) => Some(axes.to_vec()),
            None => self.optional_ints(slot)?,
        };
        let given = given.filter(|axes| !axes.is_empty());
        let all = || (0..rank as i64).collect();
        let axes = given.unwrap_or_else(all).into_iter();
        let mut axes = axes
            .map(|axis| self.axis_of(axis, rank))
            .collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        axes.dedup();
        axes.retain(|&axis| axis < rank);
        Ok(axes)
    }

    /// An element of an operand, at indices.
    pub fn load(&self, id: TensorId, at: Vec<Index>) -> Formula {
        self.program.load(id, at)
    }

    /// The element of a tensor that belongs to the variables of its own axes.
    pub fn element(&self, id: TensorId) -> Formula {
        let dims = self.dims(id);
        self.program.load(id, vars(&dims))
    }

    /// Adds a tensor for an expression.
    pub fn map(&mut self, dims: &[u64], expr: Formula) -> TensorId {
        let name = self.name.clone();
        self.program.map(&name, dims, expr)
    }

    /// The same as the only output.
    pub fn output(&mut self, dims: &[u64], expr: Formula) -> Result<Outputs, Reason> {
        Ok(vec![Some(self.map(dims, expr))])
    }

    /// A loop over a variable that combines an expression.
    pub fn fold_over(
        &mut self,
        fold: crate::expr::Fold,
        sizes: &[i64],
        body: impl FnOnce(&mut Self, &[Index]) -> Formula,
    ) -> Formula {
        let (numbers, at): (Vec<_>, Vec<_>) = sizes
            .iter()
            .map(|&size| {
                let (number, index) = self.program.loop_var(size);
                ((number, size), index)
            })
            .unzip();
        let numbers: Vec<_> = numbers.into_iter().filter(|(_, size)| *size != 1).collect();
        let body = body(self, &at);
        match numbers.is_empty() {
            true => body,
            false => Expr::Loop(fold, numbers, body.0).into(),
        }
    }
}

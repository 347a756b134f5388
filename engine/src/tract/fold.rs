//! Results of operators on constants, computed once for all sessions that need them.
//!
//! Most of the time of preparing a session goes into laying out weights for tract's kernels. Sessions of one network,
//! and of networks that share weights, need the same layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tract_onnx::prelude::tract_data::TooEarly;
use tract_onnx::prelude::{TVec, Tensor, TractResult, TypedModel};
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::dummy::Dummy;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;
use tract_onnx::tract_core::optim::{CONST_FOLD_MEM_BUDGET, OptimizerSession, TypedPass};
use tract_onnx::tract_hir::internal::{
    IntoArcTensor, IntoTValue, OutletId, SpecialOps, TValue, TypedFact, TypedModelPatch, TypedNode,
    TypedOp,
};

/// What is computed from fewer bytes is not worth looking up.
const WORTH_KEEPING: u64 = 1 << 12;

/// Results by the address of the first operand. They live as long as this.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    by_operand: Mutex<BTreeMap<usize, Arc<Mutex<Vec<Fold>>>>>,
    /// Addresses of operands and results that are meant to be shared; all are if this is `None`.
    shared: Option<Mutex<BTreeSet<usize>>>,
}

/// Operators in a row, what the first one takes, and what the last one gives.
#[derive(Clone, Debug)]
struct Fold {
    operands: Vec<Arc<Tensor>>,
    operators: Vec<Box<dyn TypedOp>>,
    results: TVec<Arc<Tensor>>,
}

impl Folded {
    /// For some constants only; they are named with [`Folded::share`].
    pub fn of_shared() -> Self {
        Folded {
            shared: Some(Mutex::default()),
            ..Folded::default()
        }
    }

    /// Makes a constant one of those whose results are kept. It must live as long as this.
    pub fn share(&self, constant: &Arc<Tensor>) {
        if let Some(shared) = &self.shared {
            locked(shared).insert(address(constant));
        }
    }

    fn keeps(&self, operands: &[Arc<Tensor>]) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = locked(shared);
            operands.iter().all(|o| shared.contains(&address(o)))
        })
    }

    /// The fold that starts with a node, from here or from `compute`. Others that want a fold of the same operand
    /// wait.
    fn get(
        &self,
        model: &TypedModel,
        node: &TypedNode,
        operands: &[Arc<Tensor>],
        compute: impl FnOnce() -> TractResult<Option<Fold>>,
    ) -> TractResult<Option<Fold>> {
        let known = {
            let mut by_operand = locked(&self.by_operand);
            by_operand.entry(address(&operands[0])).or_default().clone()
        };
        let mut known = locked(&known);
        if let Some(fold) = known.iter().find(|f| f.fits(model, node, operands)) {
            return Ok(Some(fold.clone()));
        }
        let fold = compute()?;
        if let Some(fold) = &fold {
            fold.results.iter().for_each(|result| self.share(result));
            known.push(fold.clone());
        }
        Ok(fold)
    }
}

impl Fold {
    /// Whether a node, and those that follow it, compute the results from these operands.
    fn fits(&self, model: &TypedModel, node: &TypedNode, operands: &[Arc<Tensor>]) -> bool {
        let same = |(known, given): (&Arc<Tensor>, &Arc<Tensor>)| Arc::ptr_eq(known, given);
        if self.operands.len() != operands.len() || !self.operands.iter().zip(operands).all(same) {
            return false;
        }
        let mut next = Some(node);
        self.operators.iter().all(|operator| {
            let Some(node) = next else {
                return false;
            };
            next = follower(model, node);
            operator.as_op().dyn_eq(node.op.as_op())
        })
    }
}

/// Replaces what is computed from constants alone by the result. As tract's own pass, but it looks results up.
#[derive(Clone, Debug)]
pub(crate) struct FoldConstants {
    /// In order of preference.
    folded: Vec<Arc<Folded>>,
    at: usize,
}

impl FoldConstants {
    pub fn new(folded: Vec<Arc<Folded>>) -> Self {
        FoldConstants { folded, at: 0 }
    }

    fn fold(&self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<Fold>> {
        let facts = model.node_input_facts(node.id)?;
        let operands: Option<Vec<Arc<Tensor>>> = facts.iter().map(|f| f.konst.clone()).collect();
        let Some(operands) = operands else {
            return Ok(None);
        };
        let bytes = facts
            .iter()
            .map(|fact| fact_bytes(fact))
            .fold(0, u64::saturating_add);
        let compute = || compute(model, node, &operands, bytes);
        let keeper = self.folded.iter().find(|folded| folded.keeps(&operands));
        match keeper {
            Some(keeper) if bytes >= WORTH_KEEPING => keeper.get(model, node, &operands, compute),
            _ => compute(),
        }
    }
}

impl TypedPass for FoldConstants {
    fn reset(&mut self) -> TractResult<()> {
        self.at = 0;
        Ok(())
    }

    fn next(
        &mut self,
        _: &mut OptimizerSession<'_>,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        for node in &model.nodes[self.at..] {
            self.at = node.id;
            if let Some(constant) = node.op_as::<Const>() {
                if node.outputs[0].fact.konst.is_none() {
                    let mut patch = TypedModelPatch::default();
                    let wire = patch.add_const(&node.name, constant.val().clone())?;
                    patch.shunt_outside(model, node.id.into(), wire)?;
                    return Ok(Some(patch));
                }
                continue;
            }
            if !can_fold(model, node)? {
                continue;
            }
            if let Some(fold) = self.fold(model, node)? {
                let mut last = node;
                for _ in 1..fold.operators.len() {
                    last = follower(model, last).unwrap_or(last);
                }
                return replace(model, last, fold.results).map(Some);
            }
        }
        Ok(None)
    }
}

/// Whether a node's inputs are constants, and not of a size that would be multiplied by folding for each consumer.
fn can_fold(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    if node.op_is::<Dummy>() || node.op_is::<TypedSource>() {
        return Ok(false);
    }
    let facts = model.node_input_facts(node.id)?;
    Ok(facts.iter().zip(&node.inputs).all(|(fact, outlet)| {
        let is_only = || model.outlet_successors(*outlet).len() == 1;
        let is_small = || fact.datum_type.is_number() && fact_bytes(fact) <= CONST_FOLD_MEM_BUDGET;
        fact.konst.is_some() && (is_only() || node.op_is::<Slice>() || is_small())
    }))
}

/// Evaluates a node, and those that follow it in a row.
fn compute(
    model: &TypedModel,
    node: &TypedNode,
    operands: &[Arc<Tensor>],
    operand_bytes: u64,
) -> TractResult<Option<Fold>> {
    let limit = operand_bytes.max(CONST_FOLD_MEM_BUDGET);
    let values: TVec<TValue> = operands.iter().map(|o| o.clone().into_tvalue()).collect();
    let mut results = match node.op.eval_out_of_plan(values) {
        Ok(Some(results)) if value_bytes(&results) <= limit => results,
        Ok(_) => return Ok(None),
        Err(error) if error.root_cause().is::<TooEarly>() => return Ok(None),
        Err(error) => return Err(error.context(format!("evaluating {node} ahead"))),
    };
    let mut operators = vec![node.op.clone()];
    let mut last = node;
    while let Some(next) = follower(model, last)
        && let Ok(Some(further)) = next.op.eval_out_of_plan(results.clone())
        && value_bytes(&further) <= limit
    {
        results = further;
        operators.push(next.op.clone());
        last = next;
    }
    Ok(Some(Fold {
        operands: operands.to_vec(),
        operators,
        results: results
            .into_iter()
            .map(IntoArcTensor::into_arc_tensor)
            .collect(),
    }))
}

/// The node that alone reads another one, and nothing else.
fn follower<'m>(model: &'m TypedModel, node: &TypedNode) -> Option<&'m TypedNode> {
    let next = model.single_succ(node.id).ok().flatten()?;
    (next.inputs.len() == 1).then_some(next)
}

fn replace(
    model: &TypedModel,
    node: &TypedNode,
    results: TVec<Arc<Tensor>>,
) -> TractResult<TypedModelPatch> {
    let mut patch = TypedModelPatch::default();
    for (slot, result) in results.into_iter().enumerate() {
        let outlet = OutletId::new(node.id, slot);
        let exotic = model.outlet_fact(outlet)?.exotic_fact.clone();
        let name = match slot {
            0 => node.name.clone(),
            _ => format!("{}.{slot}", node.name),
        };
        let constant = Const::new_with_opt_exotic_fact(result, exotic)?;
        let wire = patch.wire_node(name, constant, &[])?[0];
        patch.shunt_outside(model, outlet, wire)?;
    }
    Ok(patch)
}

fn fact_bytes(fact: &TypedFact) -> u64 {
    let bytes = fact.mem_size().as_i64();
    bytes
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(u64::MAX)
}

fn value_bytes(values: &[TValue]) -> u64 {
    let bytes = |value: &TValue| (value.datum_type().size_of() * value.volume()) as u64;
    values.iter().map(bytes).sum()
}

fn address(tensor: &Arc<Tensor>) -> usize {
    Arc::as_ptr(tensor).addr()
}

/// A panic while the lock was held leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

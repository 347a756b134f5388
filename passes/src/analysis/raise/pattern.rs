//! Patterns of operators, written as formulas.
//!
//! ```text
//! centred(x) = Sub(x, ReduceMean(x, _))
//! silu       = Mul(x, Sigmoid(x))
//! ```
//!
//! A name before parentheses is an operator, or a formula defined above. A name alone binds a value; every
//! occurrence must be the same value. `_` matches anything or nothing, `$w` binds a constant, `$` matches any
//! constant, `0.5` a constant with that value (to 0.1 %). `|` separates alternatives. The operands of commutative
//! operators may be swapped, and operators that keep their input may be between any two others.

use std::collections::BTreeMap;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, NodeId, Value};

use crate::analysis::scalars::scalar;

/// An unnamed constant; occurrences may differ.
const ANONYMOUS: &str = "$";

/// Relative tolerance of numbers in formulas, since exporters round.
const TOLERANCE: f64 = 1e-3;

/// One formula.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// An operator and its operands.
    Op(String, Vec<Pattern>),
    /// Any value, the same wherever the name occurs.
    Bind(String),
    /// Any constant, the same wherever the name occurs.
    Constant(String),
    /// A constant with one element.
    Number(f64),
    /// Anything, or nothing.
    Any,
    /// One of several.
    OneOf(Vec<Pattern>),
}

/// A match of a formula.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Values by name.
    pub values: BTreeMap<String, Value>,
    /// The operators that the formula covers.
    pub nodes: Vec<NodeId>,
}

/// Matches a formula that ends in a value. The error has the first node of the deepest partial match that does
/// not match, and the number of operators matched before it.
pub fn find(graph: &Graph, pattern: &Pattern, value: Value) -> Result<Match, (usize, NodeId)> {
    let mut search = Search {
        graph,
        found: Match::default(),
        stopped: (0, value.node),
    };
    match search.solve(&mut vec![(pattern, Some(value))]) {
        true => Ok(search.found),
        false => Err(search.stopped),
    }
}

struct Search<'a> {
    graph: &'a Graph,
    found: Match,
    /// Number of operators matched before the mismatch.
    stopped: (usize, NodeId),
}

impl<'a> Search<'a> {
    /// Matches all goals, or restores the state. Goals are taken from the end.
    fn solve(&mut self, goals: &mut Vec<(&'a Pattern, Option<Value>)>) -> bool {
        let Some((pattern, value)) = goals.pop() else {
            return true;
        };
        let met = self.meet(pattern, value, goals);
        if !met {
            goals.push((pattern, value));
        }
        met
    }

    fn meet(
        &mut self,
        pattern: &'a Pattern,
        value: Option<Value>,
        goals: &mut Vec<(&'a Pattern, Option<Value>)>,
    ) -> bool {
        if let Pattern::Any = pattern {
            return self.solve(goals);
        }
        let Some(value) = value.map(|v| self.seen_through(v)) else {
            return false;
        };
        match pattern {
            Pattern::Any => self.solve(goals),
            Pattern::OneOf(patterns) => patterns.iter().any(|p| self.meet(p, Some(value), goals)),
            Pattern::Number(number) => {
                let close = |x: f64| (x - number).abs() <= TOLERANCE * number.abs();
                scalar(self.graph, value).is_some_and(close) && self.solve(goals)
            }
            Pattern::Constant(_) if self.graph.constant(value).is_none() => self.stop(value),
            Pattern::Constant(name) | Pattern::Bind(name) => self.bind(name, value, goals),
            Pattern::Op(op_type, operands) => self.operator(op_type, operands, value, goals),
        }
    }

    fn bind(
        &mut self,
        name: &str,
        value: Value,
        goals: &mut Vec<(&'a Pattern, Option<Value>)>,
    ) -> bool {
        if name == ANONYMOUS {
            return self.solve(goals);
        }
        if let Some(bound) = self.found.values.get(name) {
            return match *bound == value {
                true => self.solve(goals),
                false => self.stop(value),
            };
        }
        self.found.values.insert(name.to_owned(), value);
        let met = self.solve(goals);
        if !met {
            self.found.values.remove(name);
        }
        met
    }

    fn operator(
        &mut self,
        op_type: &str,
        operands: &'a [Pattern],
        value: Value,
        goals: &mut Vec<(&'a Pattern, Option<Value>)>,
    ) -> bool {
        let node = value.node;
        let op = self.graph.op(node).filter(|op| op.is(op_type));
        let Some(op) = op.filter(|_| value.slot == 0) else {
            return self.stop(value);
        };
        let inputs = self.graph.inputs_of(node);
        let required = operands.iter().filter(|p| **p != Pattern::Any).count();
        if inputs.len() < required || inputs.len() > operands.len() {
            return self.stop(value);
        }
        self.found.nodes.push(node);
        let swaps = op.has(Trait::Commutative) && operands.len() == 2;
        let met = [false, true]
            .into_iter()
            .take(1 + usize::from(swaps))
            .any(|swapped| {
                let before = goals.len();
                for (slot, pattern) in operands.iter().enumerate().rev() {
                    let slot = if swapped { 1 - slot } else { slot };
                    goals.push((pattern, inputs.get(slot).copied().flatten()));
                }
                let met = self.solve(goals);
                if !met {
                    goals.truncate(before);
                }
                met
            });
        if !met {
            self.found.nodes.pop();
        }
        met
    }

    fn stop(&mut self, value: Value) -> bool {
        let depth = self.found.nodes.len();
        if depth > self.stopped.0 {
            self.stopped = (depth, value.node);
        }
        false
    }

    fn seen_through(&self, mut value: Value) -> Value {
        while let Some((node, op)) = self.graph.producer(value) {
            let transparent = op.has_any(&[Trait::Copy, Trait::Cast]);
            match self
                .graph
                .input(node, 0)
                .filter(|_| transparent && value.slot == 0)
            {
                Some(input) => value = input,
                None => break,
            }
        }
        value
    }
}

impl Pattern {
    /// The operators that a formula can end in.
    pub fn roots(&self) -> Vec<&str> {
        match self {
            Pattern::Op(op_type, _) => vec![op_type],
            Pattern::OneOf(patterns) => patterns.iter().flat_map(Pattern::roots).collect(),
            _ => Vec::new(),
        }
    }
}

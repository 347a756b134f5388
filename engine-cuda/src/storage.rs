//! How values lie in memory, where products are rounded. In single precision, everything stays as the graph has it.
//!
//! 1. `copies`: a value whose only use for a library is a copy in another order is computed in that order at once, and read
//!    there by everybody. So layouts cost nothing between kernels and libraries; what is left are copies of what comes from
//!    outside, weights and images.
//! 2. `rounded`: with bf16, what libraries read and write is bf16. Kernels read it, compute in single precision, and round
//!    what they write, so that everybody sees the same numbers.
//! 3. `order`: kernels go through their elements in the order of what they read.

mod copies;
mod order;
mod rounded;

use std::collections::BTreeSet;

use bcosc_engine::Precision;

use crate::expr::TensorId;
use crate::program::{Def, Program};

/// Arranges memory for a precision.
pub fn arrange(program: &mut Program, precision: Precision) {
    if precision == Precision::Fp32 {
        return;
    }
    copies::at_once(program);
    if precision == Precision::Bf16 {
        rounded::round(program);
    }
    order::reorder(program);
}

/// The tensors whose memory outputs are.
fn returned(program: &Program) -> BTreeSet<TensorId> {
    let outputs = program.outputs.iter();
    outputs.map(|(_, id)| program.base(*id)).collect()
}

/// The tensors that libraries read, and those that they compute.
fn of_libraries(program: &Program) -> (BTreeSet<TensorId>, Vec<TensorId>) {
    let (mut read, mut computed) = (BTreeSet::new(), Vec::new());
    for (id, tensor) in program.tensors.iter().enumerate() {
        if let Def::Call(call) = &tensor.def {
            read.extend(call.factors().map(|id| program.base(id)));
            computed.push(id);
        }
    }
    (read, computed)
}

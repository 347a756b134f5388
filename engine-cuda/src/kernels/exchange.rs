//! How the threads of a row combine what each of them found.

use super::THREADS;
use super::c::binary;
use super::emit::Emitter;
use super::rows::Shares;
use crate::expr::{Fold, Type};

/// Combines what the lanes of a row found; all of them know it afterwards.
pub(super) fn exchange(e: &mut Emitter<'_>, shares: Shares, ty: Type, fold: Fold, name: &str) {
    let c = accumulator(ty);
    let op = fold.binary();
    let Shares { lanes, along } = shares;
    if lanes == 1 {
        return;
    }
    if along {
        e.block("for (int step = 16; step > 0; step /= 2)", |e| {
            e.line(&format!(
                "const {c} other = __shfl_xor_sync(0xffffffffu, {name}, step);"
            ));
            e.line(&format!("{name} = {};", binary(op, ty, name, "other")));
        });
        if lanes == 32 {
            return;
        }
    }
    let part = e.name("part");
    if along {
        let warps = THREADS / 32;
        e.line(&format!("__shared__ {c} {part}[{warps}];"));
        e.line(&format!("if (lane % 32 == 0) {part}[lane / 32] = {name};"));
        e.line("__syncthreads();");
        e.line(&format!("{name} = {part}[0];"));
        let next = binary(op, ty, name, &format!("{part}[other]"));
        e.line(&format!(
            "for (int other = 1; other < {warps}; ++other) {name} = {next};"
        ));
    } else {
        let rows = shares.rows();
        e.line(&format!("__shared__ {c} {part}[{THREADS}];"));
        e.line(&format!("{part}[threadIdx.x] = {name};"));
        e.line("__syncthreads();");
        e.line(&format!("{name} = {part}[threadIdx.x % {rows}];"));
        let other = format!("{part}[other * {rows} + threadIdx.x % {rows}]");
        let next = binary(op, ty, name, &other);
        e.line(&format!(
            "for (int other = 1; other < {lanes}; ++other) {name} = {next};"
        ));
    }
}

/// The type that numbers are combined in: threads cannot exchange bytes.
pub(super) fn accumulator(ty: Type) -> &'static str {
    match ty {
        Type::Bool | Type::U8 => "int",
        ty => ty.c(),
    }
}

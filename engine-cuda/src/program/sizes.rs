//! Integers that are known when a plan is made: constants, and what graphs compute of sizes.

use std::collections::BTreeMap;

use super::{Def, Program};
use crate::expr::{Atom, Binary, Expr, Fold, Index, TensorId, Type, Unary, flat, unflat};

/// Shape arithmetic has no more elements.
const LARGEST: u64 = 256;

type Vars = BTreeMap<u32, i64>;

impl Program {
    /// The elements of a tensor of integers, if they depend on constants alone.
    pub fn integers(&self, id: TensorId) -> Option<Vec<i64>> {
        let base = self.base(id);
        let tensor = self.tensor(base);
        if let Def::Constant(values, _) = &tensor.def {
            return values.to_i64s().ok();
        }
        if tensor.ty.is_float() || tensor.elements() > LARGEST {
            return None;
        }
        (0..tensor.elements() as i64)
            .map(|at| self.element(base, at))
            .collect()
    }

    /// One element, by its position.
    fn element(&self, id: TensorId, position: i64) -> Option<i64> {
        let tensor = self.tensor(id);
        let at = unflat(&Index::number(position), &tensor.dims);
        let at = at
            .iter()
            .map(Index::as_number)
            .collect::<Option<Vec<_>>>()?;
        match &tensor.def {
            Def::Constant(values, Some(number)) if values.len() > LARGEST => Some(number.as_i64()),
            Def::Constant(values, _) if values.len() <= LARGEST => values
                .to_i64s()
                .ok()?
                .get(usize::try_from(position).ok()?)
                .copied(),
            Def::Map(expr) => self.number(expr, &(0..).zip(at).collect()),
            Def::Reduce {
                fold,
                full,
                axes,
                body,
            } => {
                let count: u64 = axes.iter().map(|&axis| full[axis]).product();
                let sizes: Vec<u64> = axes.iter().map(|&axis| full[axis]).collect();
                let mut folded = fold.neutral(tensor.ty) as i64;
                for n in 0..(count <= LARGEST).then_some(count)? {
                    let mut place = at.clone();
                    for (axis, index) in axes.iter().zip(unflat(&Index::number(n as i64), &sizes)) {
                        place[*axis] = index.as_number()?;
                    }
                    let value = self.number(body, &(0..).zip(place).collect())?;
                    folded = two(fold.binary(), folded, value)?;
                }
                Some(folded)
            }
            _ => None,
        }
    }

    fn number(&self, expr: &Expr, vars: &Vars) -> Option<i64> {
        Some(match expr {
            Expr::Number(number) if !number.ty.is_float() => number.as_i64(),
            Expr::Load(id, _, at) => {
                let position = self.index(&flat(at, &self.tensor(*id).dims), vars)?;
                self.element(*id, position)?
            }
            Expr::Position(index) => self.index(index, vars)?,
            Expr::Within(index, low, high) => {
                let index = self.index(index, vars)?;
                i64::from(*low <= index && index < *high)
            }
            Expr::Unary(Unary::Neg, x) => self.number(x, vars)?.checked_neg()?,
            Expr::Unary(Unary::Abs, x) => self.number(x, vars)?.checked_abs()?,
            Expr::Unary(Unary::Not, x) => i64::from(self.number(x, vars)? == 0),
            Expr::Binary(op, x, y) => two(*op, self.number(x, vars)?, self.number(y, vars)?)?,
            Expr::Select(c, x, y) => match self.number(c, vars)? {
                0 => self.number(y, vars)?,
                _ => self.number(x, vars)?,
            },
            Expr::Cast(ty, x) if !ty.is_float() && !x.ty().is_float() => {
                let x = self.number(x, vars)?;
                if *ty == Type::Bool {
                    i64::from(x != 0)
                } else {
                    x
                }
            }
            Expr::Loop(fold, loops, body) => self.folded(*fold, loops, body, vars)?,
            _ => return None,
        })
    }

    fn folded(&self, fold: Fold, loops: &[(u32, i64)], body: &Expr, vars: &Vars) -> Option<i64> {
        let Some(((var, size), rest)) = loops.split_first() else {
            return self.number(body, vars);
        };
        let mut folded = fold.neutral(body.ty()) as i64;
        for n in 0..*size {
            let mut vars = vars.clone();
            vars.insert(*var, n);
            folded = two(fold.binary(), folded, self.folded(fold, rest, body, &vars)?)?;
        }
        Some(folded)
    }

    fn index(&self, index: &Index, vars: &Vars) -> Option<i64> {
        let mut sum = index.constant;
        for (atom, factor) in &index.terms {
            let value = match atom {
                Atom::Var(number, _) => *vars.get(number)?,
                Atom::Div(of, by) => self.index(of, vars)?.div_euclid(*by),
                Atom::Mod(of, by) => self.index(of, vars)?.rem_euclid(*by),
                Atom::Value(expr, _) => self.number(expr, vars)?,
            };
            sum = sum.checked_add(value.checked_mul(*factor)?)?;
        }
        Some(sum)
    }
}

fn two(op: Binary, x: i64, y: i64) -> Option<i64> {
    Some(match op {
        Binary::Add => x.checked_add(y)?,
        Binary::Sub => x.checked_sub(y)?,
        Binary::Mul => x.checked_mul(y)?,
        Binary::Div => x.checked_div(y)?,
        Binary::Mod => x.checked_rem_euclid(y)?,
        Binary::Fmod => x.checked_rem(y)?,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::And => i64::from(x != 0 && y != 0),
        Binary::Or => i64::from(x != 0 || y != 0),
        Binary::Xor => i64::from((x != 0) != (y != 0)),
        Binary::Equal => i64::from(x == y),
        Binary::Less => i64::from(x < y),
        Binary::LessEqual => i64::from(x <= y),
        Binary::Pow => x.checked_pow(u32::try_from(y).ok()?)?,
    })
}

//! What a kernel computes for one element: expressions over numbers that it reads.

mod formula;
mod index;
mod number;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub use formula::Formula;
pub use index::{Atom, Index, flat, unflat};
pub use number::{Number, Type};

/// The number of a tensor in a [`crate::program::Program`].
pub type TensorId = usize;

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// The magnitude.
    Abs,
    /// The inverse of the cosine.
    Acos,
    /// The inverse of the hyperbolic cosine.
    Acosh,
    /// The inverse of the sine.
    Asin,
    /// The inverse of the hyperbolic sine.
    Asinh,
    /// The inverse of the tangent.
    Atan,
    /// The inverse of the hyperbolic tangent.
    Atanh,
    /// Rounded up.
    Ceil,
    /// The cosine.
    Cos,
    /// The hyperbolic cosine.
    Cosh,
    /// The error function.
    Erf,
    /// The exponential.
    Exp,
    /// The exponential less 1, without cancellation.
    Expm1,
    /// Rounded down.
    Floor,
    /// Whether it is infinite.
    IsInf,
    /// Whether it is NaN.
    IsNan,
    /// The natural logarithm.
    Log,
    /// The logarithm of 1 and the number, without cancellation.
    Log1p,
    /// With the other sign.
    Neg,
    /// The other truth value.
    Not,
    /// Rounded to the nearest whole number; to the even one of two.
    Rint,
    /// -1, 0 or 1; NaN stays.
    Sign,
    /// The sine.
    Sin,
    /// The hyperbolic sine.
    Sinh,
    /// The root.
    Sqrt,
    /// The tangent.
    Tan,
    /// The hyperbolic tangent.
    Tanh,
}

/// Functions of two numbers of one type; comparisons give truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    /// The sum; of truth values, whether either is true.
    Add,
    /// The difference.
    Sub,
    /// The product; of truth values, whether both are true.
    Mul,
    /// The quotient; of integers, rounded towards 0.
    Div,
    /// The first to the power of the second.
    Pow,
    /// The larger one; NaN if one is.
    Max,
    /// The smaller one; NaN if one is.
    Min,
    /// The remainder with the sign of the divisor.
    Mod,
    /// The remainder with the sign of the dividend.
    Fmod,
    /// Whether both are true.
    And,
    /// Whether either is true.
    Or,
    /// Whether one of them is true.
    Xor,
    /// Whether they are equal.
    Equal,
    /// Whether the first is less.
    Less,
    /// Whether the first is not more.
    LessEqual,
}

impl Binary {
    /// Whether the result is a truth value whatever the operands are.
    pub fn compares(self) -> bool {
        matches!(self, Binary::Equal | Binary::Less | Binary::LessEqual)
    }
}

/// How a reduction combines numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fold {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The largest; NaN if there is one.
    Max,
    /// The smallest; NaN if there is one.
    Min,
}

impl Fold {
    /// The function of two numbers.
    pub fn binary(self) -> Binary {
        match self {
            Fold::Sum => Binary::Add,
            Fold::Product => Binary::Mul,
            Fold::Max => Binary::Max,
            Fold::Min => Binary::Min,
        }
    }

    /// What leaves the other number as it is.
    pub fn neutral(self, ty: Type) -> f64 {
        match (self, ty) {
            (Fold::Sum, _) => 0.0,
            (Fold::Product, _) => 1.0,
            (Fold::Max, Type::F32 | Type::F64 | Type::Bf16) => f64::NEG_INFINITY,
            (Fold::Min, Type::F32 | Type::F64 | Type::Bf16) => f64::INFINITY,
            (Fold::Max, Type::I64) => i64::MIN as f64,
            (Fold::Min, Type::I64) => i64::MAX as f64,
            (Fold::Max, Type::I32) => i32::MIN.into(),
            (Fold::Min, Type::I32) => i32::MAX.into(),
            (Fold::Max, _) => 0.0,
            (Fold::Min, Type::Bool) => 1.0,
            (Fold::Min, _) => u8::MAX.into(),
        }
    }
}

/// An expression for one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// A number.
    Number(Number),
    /// An element of a tensor of this type, by an index for each axis.
    Load(TensorId, Type, Vec<Index>),
    /// An index, as an integer of 64 bits.
    Position(Index),
    /// Whether an index is at least the first number and less than the second.
    Within(Index, i64, i64),
    /// A function of a number.
    Unary(Unary, Rc<Expr>),
    /// A function of two.
    Binary(Binary, Rc<Expr>, Rc<Expr>),
    /// The second if the first is true, otherwise the third; the other one is not evaluated.
    Select(Rc<Expr>, Rc<Expr>, Rc<Expr>),
    /// A number in another type.
    Cast(Type, Rc<Expr>),
    /// A loop over variables, given by number and size, that combines the values of an expression.
    Loop(Fold, Vec<(u32, i64)>, Rc<Expr>),
}

impl Expr {
    /// The type of its value.
    pub fn ty(&self) -> Type {
        match self {
            Expr::Number(number) => number.ty,
            Expr::Load(_, ty, _) | Expr::Cast(ty, _) => *ty,
            Expr::Position(_) => Type::I64,
            Expr::Within(..) => Type::Bool,
            Expr::Unary(Unary::IsInf | Unary::IsNan | Unary::Not, _) => Type::Bool,
            Expr::Binary(op, ..) if op.compares() => Type::Bool,
            Expr::Unary(_, x) | Expr::Binary(_, x, _) | Expr::Loop(_, _, x) => x.ty(),
            Expr::Select(_, x, _) => x.ty(),
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<Number> {
        match self {
            Expr::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// With indices in the place of variables, and with what `load` makes of each read.
    pub fn replaced(
        self: &Rc<Expr>,
        vars: &BTreeMap<u32, Index>,
        load: &mut dyn FnMut(TensorId, Type, Vec<Index>) -> Rc<Expr>,
    ) -> Rc<Expr> {
        let index =
            |index: &Index, load: &mut dyn FnMut(TensorId, Type, Vec<Index>) -> Rc<Expr>| {
                index.replaced(vars, &mut |value| value.replaced(vars, load))
            };
        match &**self {
            Expr::Number(_) => self.clone(),
            Expr::Load(tensor, ty, at) => {
                let at = at.iter().map(|i| index(i, load)).collect();
                load(*tensor, *ty, at)
            }
            Expr::Position(i) => Rc::new(Expr::Position(index(i, load))),
            Expr::Within(i, low, high) => within(index(i, load), *low, *high),
            Expr::Unary(op, x) => Rc::new(Expr::Unary(*op, x.replaced(vars, load))),
            Expr::Binary(op, x, y) => {
                let (x, y) = (x.replaced(vars, load), y.replaced(vars, load));
                binary(*op, x, y)
            }
            Expr::Select(c, x, y) => {
                let c = c.replaced(vars, load);
                select(c, || x.replaced(vars, load), || None).unwrap_or_else(|c| match c {
                    Some(c) => {
                        let x = x.replaced(vars, load);
                        Rc::new(Expr::Select(c, x, y.replaced(vars, load)))
                    }
                    None => y.replaced(vars, load),
                })
            }
            Expr::Cast(ty, x) => cast(*ty, x.replaced(vars, load)),
            Expr::Loop(fold, loops, x) => {
                Rc::new(Expr::Loop(*fold, loops.clone(), x.replaced(vars, load)))
            }
        }
    }

    /// Calls a function with every read.
    pub fn reads(&self, read: &mut dyn FnMut(TensorId, &[Index])) {
        fn of_index(index: &Index, read: &mut dyn FnMut(TensorId, &[Index])) {
            index.visit(&mut |_, _| {}, &mut |value| value.reads(read));
        }
        match self {
            Expr::Number(_) => {}
            Expr::Load(tensor, _, at) => {
                at.iter().for_each(|index| of_index(index, read));
                read(*tensor, at);
            }
            Expr::Position(index) | Expr::Within(index, ..) => of_index(index, read),
            Expr::Unary(_, x) | Expr::Cast(_, x) | Expr::Loop(_, _, x) => x.reads(read),
            Expr::Binary(_, x, y) => {
                x.reads(read);
                y.reads(read);
            }
            Expr::Select(c, x, y) => {
                c.reads(read);
                x.reads(read);
                y.reads(read);
            }
        }
    }

    /// About how many instructions it takes; a loop counts with its turns.
    pub fn cost(&self) -> u64 {
        match self {
            Expr::Number(_) => 0,
            Expr::Load(..) | Expr::Position(_) | Expr::Within(..) => 1,
            Expr::Cast(_, x) => 1 + x.cost(),
            Expr::Unary(op, x) => {
                x.cost()
                    + match op {
                        Unary::Abs | Unary::Neg | Unary::Not => 1,
                        Unary::Sqrt | Unary::Floor | Unary::Ceil | Unary::Rint | Unary::Sign => 4,
                        _ => 12,
                    }
            }
            Expr::Binary(op, x, y) => {
                x.cost()
                    + y.cost()
                    + match op {
                        Binary::Div | Binary::Mod | Binary::Fmod => 8,
                        Binary::Pow => 24,
                        _ => 1,
                    }
            }
            Expr::Select(c, x, y) => 1 + c.cost() + x.cost() + y.cost(),
            Expr::Loop(_, loops, x) => {
                let turns = loops.iter().map(|(_, size)| *size as u64);
                turns.fold(x.cost() + 1, u64::saturating_mul)
            }
        }
    }
}

/// Whether an index is in a range; a constant where that is certain.
pub fn within(index: Index, low: i64, high: i64) -> Rc<Expr> {
    let (least, most) = index.range();
    Rc::new(if low <= least && most < high {
        Expr::Number(Number::int(Type::Bool, 1))
    } else if most < low || high <= least {
        Expr::Number(Number::int(Type::Bool, 0))
    } else {
        Expr::Within(index, low, high)
    })
}

/// `x` if the condition is certainly true; otherwise the condition, or `None` where it is certainly false.
fn select(
    condition: Rc<Expr>,
    x: impl FnOnce() -> Rc<Expr>,
    none: impl FnOnce() -> Option<Rc<Expr>>,
) -> Result<Rc<Expr>, Option<Rc<Expr>>> {
    match condition.as_number() {
        Some(number) if number.as_i64() != 0 => Ok(x()),
        Some(_) => Err(none()),
        None => Err(Some(condition)),
    }
}

/// A function of two numbers, left out where one of them is certain not to matter.
pub fn binary(op: Binary, x: Rc<Expr>, y: Rc<Expr>) -> Rc<Expr> {
    let truth = |e: &Expr| {
        e.as_number()
            .filter(|n| n.ty == Type::Bool)
            .map(|n| n.as_i64() != 0)
    };
    let is = |e: &Expr, value: f64| e.as_number().is_some_and(|n| n.as_f64() == value);
    match (op, truth(&x), truth(&y)) {
        (Binary::And, Some(true), _) | (Binary::Or, Some(false), _) => y,
        (Binary::And, _, Some(true)) | (Binary::Or, _, Some(false)) => x,
        (Binary::And, Some(false), _) | (Binary::Or, Some(true), _) => x,
        (Binary::And, _, Some(false)) | (Binary::Or, _, Some(true)) => y,
        // -0 + 0 is 0; nothing divides by what is added here.
        (Binary::Add, ..) if is(&x, 0.0) => y,
        (Binary::Add | Binary::Sub, ..) if is(&y, 0.0) => x,
        (Binary::Mul, ..) if is(&x, 1.0) => y,
        (Binary::Mul | Binary::Div, ..) if is(&y, 1.0) => x,
        _ => Rc::new(Expr::Binary(op, x, y)),
    }
}

/// A number in another type.
pub fn cast(ty: Type, x: Rc<Expr>) -> Rc<Expr> {
    match (&*x, x.ty() == ty) {
        (_, true) => x,
        (Expr::Number(number), _) if ty == Type::Bool => Rc::new(Expr::Number(Number::int(
            ty,
            i64::from(number.as_f64() != 0.0),
        ))),
        (Expr::Number(number), _) if number.ty.is_float() => {
            Rc::new(Expr::Number(Number::new(ty, number.as_f64().trunc())))
        }
        (Expr::Number(number), _) => Rc::new(Expr::Number(Number::int(ty, number.as_i64()))),
        _ => Rc::new(Expr::Cast(ty, x)),
    }
}

//! Expressions written as formulas.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::rc::Rc;

use super::{Binary, Expr, Index, Number, Type, Unary, binary, cast, within};

/// An expression with the usual signs. A plain number takes the type of the other operand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Formula(pub Rc<Expr>);

impl From<Expr> for Formula {
    fn from(expr: Expr) -> Self {
        Formula(Rc::new(expr))
    }
}

macro_rules! signs {
    ($($class:ident $name:ident $op:expr;)*) => {$(
        impl $class for Formula {
            type Output = Formula;
            fn $name(self, other: Formula) -> Formula {
                self.binary($op, other)
            }
        }
        impl $class<f64> for Formula {
            type Output = Formula;
            fn $name(self, other: f64) -> Formula {
                let other = self.like(other);
                self.binary($op, other)
            }
        }
    )*};
}

signs! {
    Add add Binary::Add;
    Sub sub Binary::Sub;
    Mul mul Binary::Mul;
    Div div Binary::Div;
}

impl Neg for Formula {
    type Output = Formula;
    fn neg(self) -> Formula {
        self.unary(Unary::Neg)
    }
}

impl Formula {
    /// A number.
    pub fn number(ty: Type, value: f64) -> Self {
        Expr::Number(Number::new(ty, value)).into()
    }

    /// An index as an integer.
    pub fn position(index: Index) -> Self {
        match index.as_number() {
            Some(number) => Expr::Number(Number::int(Type::I64, number)).into(),
            None => Expr::Position(index).into(),
        }
    }

    /// Whether an index is in a range.
    pub fn within(index: Index, low: i64, high: i64) -> Self {
        Formula(within(index, low, high))
    }

    /// The type of its value.
    pub fn ty(&self) -> Type {
        self.0.ty()
    }

    /// A number of the same type.
    pub fn like(&self, value: f64) -> Self {
        Formula::number(self.ty(), value)
    }

    /// A function of it.
    pub fn unary(self, op: Unary) -> Self {
        Expr::Unary(op, self.0).into()
    }

    /// A function of it and another.
    pub fn binary(self, op: Binary, other: Formula) -> Self {
        Formula(binary(op, self.0, other.0))
    }

    /// In another type.
    pub fn cast(self, ty: Type) -> Self {
        Formula(cast(ty, self.0))
    }

    /// One of two numbers, by this truth value.
    pub fn select(self, yes: Formula, no: Formula) -> Self {
        match self.0.as_number() {
            Some(number) if number.as_i64() != 0 => yes,
            Some(_) => no,
            None => Expr::Select(self.0, yes.0, no.0).into(),
        }
    }

    /// `self < other`.
    pub fn less(self, other: Formula) -> Self {
        self.binary(Binary::Less, other)
    }

    /// `self <= other`.
    pub fn at_most(self, other: Formula) -> Self {
        self.binary(Binary::LessEqual, other)
    }

    /// `self == other`.
    pub fn equals(self, other: Formula) -> Self {
        self.binary(Binary::Equal, other)
    }

    /// Both are true.
    pub fn and(self, other: Formula) -> Self {
        self.binary(Binary::And, other)
    }

    /// Either is true.
    pub fn or(self, other: Formula) -> Self {
        self.binary(Binary::Or, other)
    }

    /// Whether it is more than 0.
    pub fn positive(self) -> Self {
        self.like(0.0).less(self)
    }

    /// The larger one.
    pub fn max(self, other: Formula) -> Self {
        self.binary(Binary::Max, other)
    }

    /// The smaller one.
    pub fn min(self, other: Formula) -> Self {
        self.binary(Binary::Min, other)
    }

    /// Between two numbers.
    pub fn clamp(self, low: f64, high: f64) -> Self {
        let (low, high) = (self.like(low), self.like(high));
        self.max(low).min(high)
    }

    /// The exponential.
    pub fn exp(self) -> Self {
        self.unary(Unary::Exp)
    }

    /// The natural logarithm.
    pub fn log(self) -> Self {
        self.unary(Unary::Log)
    }

    /// The root.
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }

    /// The magnitude.
    pub fn abs(self) -> Self {
        self.unary(Unary::Abs)
    }

    /// The hyperbolic tangent.
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }

    /// The square.
    pub fn square(self) -> Self {
        self.clone() * self
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(self) -> Self {
        self.like(1.0) / ((-self).exp() + 1.0)
    }

    /// `log(1 + exp(x))`, without overflow.
    pub fn softplus(self) -> Self {
        let decay = (-self.clone().abs()).exp();
        let zero = self.like(0.0);
        self.max(zero) + decay.unary(Unary::Log1p)
    }

    /// The error function.
    pub fn erf(self) -> Self {
        self.unary(Unary::Erf)
    }
}

//! Numbers and functions as C has them.

use crate::expr::{Binary, Number, Type, Unary};

/// A number of C.
pub(super) fn literal(number: Number) -> String {
    match number.ty {
        Type::F32 => single(number.as_f64() as f32),
        Type::F64 => match number.as_f64() {
            x if x.is_nan() => "__longlong_as_double(0x7ff8000000000000LL)".to_owned(),
            f64::INFINITY => "__longlong_as_double(0x7ff0000000000000LL)".to_owned(),
            f64::NEG_INFINITY => "(-__longlong_as_double(0x7ff0000000000000LL))".to_owned(),
            x if x < 0.0 => format!("({x:?})"),
            x => format!("{x:?}"),
        },
        Type::Bf16 => format!("(bf16){}", single(number.as_f64() as f32)),
        Type::I64 => match number.as_i64() {
            i64::MIN => "(-9223372036854775807LL - 1)".to_owned(),
            n if n < 0 => format!("({n}LL)"),
            n => format!("{n}LL"),
        },
        Type::I32 => match number.as_i64() {
            n if n <= i32::MIN.into() => "(-2147483647 - 1)".to_owned(),
            n if n < 0 => format!("({n})"),
            n => n.to_string(),
        },
        Type::U8 => format!("(unsigned char){}", number.as_i64()),
        Type::Bool => (number.as_i64() != 0).to_string(),
    }
}

fn single(x: f32) -> String {
    match x {
        x if x.is_nan() => "__int_as_float(0x7fc00000)".to_owned(),
        f32::INFINITY => "__int_as_float(0x7f800000)".to_owned(),
        f32::NEG_INFINITY => "(-__int_as_float(0x7f800000))".to_owned(),
        x if x < 0.0 => format!("({x:?}f)"),
        x => format!("{x:?}f"),
    }
}

/// A function of one number.
pub(super) fn unary(op: Unary, ty: Type, x: &str) -> String {
    let name = match op {
        Unary::Neg => return format!("-{x}"),
        Unary::Not => return format!("!{x}"),
        Unary::IsNan => return format!("{x} != {x}"),
        Unary::IsInf => return format!("{x} - {x} != 0 && {x} == {x}"),
        Unary::Sign => {
            let c = ty.c();
            return format!("{x} > 0 ? ({c})1 : {x} < 0 ? ({c})-1 : {x}");
        }
        Unary::Abs if !ty.is_float() => return format!("{x} < 0 ? -{x} : {x}"),
        // Whole numbers are whole.
        Unary::Ceil | Unary::Floor | Unary::Rint if !ty.is_float() => return x.to_owned(),
        Unary::Abs => "fabs",
        Unary::Acos => "acos",
        Unary::Acosh => "acosh",
        Unary::Asin => "asin",
        Unary::Asinh => "asinh",
        Unary::Atan => "atan",
        Unary::Atanh => "atanh",
        Unary::Ceil => "ceil",
        Unary::Cos => "cos",
        Unary::Cosh => "cosh",
        Unary::Erf => "erf",
        Unary::Exp => "exp",
        Unary::Expm1 => "expm1",
        Unary::Floor => "floor",
        Unary::Log => "log",
        Unary::Log1p => "log1p",
        Unary::Rint => "rint",
        Unary::Sin => "sin",
        Unary::Sinh => "sinh",
        Unary::Sqrt => "sqrt",
        Unary::Tan => "tan",
        Unary::Tanh => "tanh",
    };
    match ty {
        Type::F32 => format!("{name}f({x})"),
        Type::F64 => format!("{name}({x})"),
        _ => format!("({}){name}((double){x})", ty.c()),
    }
}

/// A function of two numbers.
pub(super) fn binary(op: Binary, ty: Type, x: &str, y: &str) -> String {
    let truth = ty == Type::Bool;
    let sign = match op {
        Binary::Add if truth => "||",
        Binary::Mul if truth => "&&",
        Binary::Max if truth => "||",
        Binary::Min if truth => "&&",
        Binary::Add => "+",
        Binary::Sub => "-",
        Binary::Mul => "*",
        Binary::Div => "/",
        Binary::And => "&&",
        Binary::Or => "||",
        Binary::Xor => "!=",
        Binary::Equal => "==",
        Binary::Less => "<",
        Binary::LessEqual => "<=",
        Binary::Max => return format!("larger({x}, {y})"),
        Binary::Min => return format!("smaller({x}, {y})"),
        Binary::Pow => return format!("power({x}, {y})"),
        Binary::Mod => return format!("remainder_of({x}, {y})"),
        Binary::Fmod => return format!("rest_of({x}, {y})"),
    };
    format!("{x} {sign} {y}")
}

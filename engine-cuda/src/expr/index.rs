//! Integer expressions over the axes of an iteration space: where a kernel reads.
//!
//! An [`Index`] is a constant plus multiples of atoms. Sizes are known when a plan is made, so every variable carries
//! its size, and quotients and remainders disappear where the range of what they divide allows it: the view
//! `[4, 6] -> [24] -> [4, 6]` is the identity again.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Expr;

/// A constant plus multiples of atoms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index {
    /// The constant.
    pub constant: i64,
    /// Atoms with their factors, which are not 0.
    pub terms: BTreeMap<Atom, i64>,
}

/// What an [`Index`] is made of; never negative where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A variable of an iteration space or of a loop: its number, and its size.
    Var(u32, i64),
    /// The quotient of an index and a positive number, rounded down.
    Div(Box<Index>, i64),
    /// The remainder of an index and a positive number.
    Mod(Box<Index>, i64),
    /// An integer that a kernel computes, in `0..size`.
    Value(Rc<Expr>, i64),
}

impl Atom {
    /// The smallest and largest value.
    fn range(&self) -> (i64, i64) {
        match self {
            Atom::Var(_, size) | Atom::Value(_, size) => (0, (size - 1).max(0)),
            Atom::Div(of, by) => {
                let (low, high) = of.range();
                (low.div_euclid(*by), high.div_euclid(*by))
            }
            Atom::Mod(_, by) => (0, by - 1),
        }
    }
}

impl Index {
    /// A number.
    pub fn number(constant: i64) -> Self {
        Index {
            constant,
            terms: BTreeMap::new(),
        }
    }

    /// A variable; 0 where its size is 1.
    pub fn var(number: u32, size: i64) -> Self {
        match size {
            1 => Index::default(),
            _ => Atom::Var(number, size).into(),
        }
    }

    /// The value, if it is a number.
    pub fn as_number(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// The smallest and largest value.
    pub fn range(&self) -> (i64, i64) {
        let start = (self.constant, self.constant);
        self.terms
            .iter()
            .fold(start, |(low, high), (atom, factor)| {
                let (a, b) = atom.range();
                let (a, b) = (a.saturating_mul(*factor), b.saturating_mul(*factor));
                (low.saturating_add(a.min(b)), high.saturating_add(a.max(b)))
            })
    }

    /// The sum of two.
    pub fn plus(&self, other: &Index) -> Self {
        let mut sum = self.clone();
        sum.constant += other.constant;
        for (atom, factor) in &other.terms {
            *sum.terms.entry(atom.clone()).or_default() += factor;
        }
        sum.terms.retain(|_, factor| *factor != 0);
        sum.joined()
    }

    /// With a number added.
    pub fn offset(&self, by: i64) -> Self {
        let mut sum = self.clone();
        sum.constant += by;
        sum
    }

    /// A multiple.
    pub fn times(&self, factor: i64) -> Self {
        if factor == 0 {
            return Index::default();
        }
        let terms = self.terms.iter();
        Index {
            constant: self.constant * factor,
            terms: terms.map(|(atom, f)| (atom.clone(), f * factor)).collect(),
        }
    }

    /// `by * (x / by) + x % by` is x.
    fn joined(mut self) -> Self {
        let found = self.terms.iter().find_map(|(atom, factor)| {
            let Atom::Mod(of, by) = atom else { return None };
            let quotient = of.over(*by);
            let whole = quotient.times(by.checked_mul(*factor)?);
            // Everything of the quotient must be here.
            let held = whole.constant == 0
                && whole
                    .terms
                    .iter()
                    .all(|(atom, wanted)| self.terms.get(atom) == Some(wanted));
            held.then(|| (atom.clone(), whole, of.times(*factor)))
        });
        let Some((rest, whole, of)) = found else {
            return self;
        };
        self.terms.remove(&rest);
        for atom in whole.terms.keys() {
            self.terms.remove(atom);
        }
        self.plus(&of)
    }

    /// The part whose factors a number divides, and the rest.
    fn split(&self, by: i64) -> (Index, Index) {
        let (mut multiple, mut rest) = (Index::default(), Index::default());
        for (atom, factor) in &self.terms {
            let side = match factor % by {
                0 => &mut multiple,
                _ => &mut rest,
            };
            side.terms.insert(atom.clone(), *factor);
        }
        multiple.constant = self.constant.div_euclid(by) * by;
        rest.constant = self.constant.rem_euclid(by);
        (multiple, rest)
    }

    fn exact(&self, by: i64) -> Index {
        let terms = self.terms.iter();
        Index {
            constant: self.constant / by,
            terms: terms.map(|(atom, f)| (atom.clone(), f / by)).collect(),
        }
    }

    /// The quotient by a positive number, rounded down, of an index that is not negative where it is used.
    pub fn over(&self, by: i64) -> Self {
        if by == 1 {
            return self.clone();
        }
        let (multiple, rest) = self.split(by);
        let (low, high) = rest.range();
        if low < 0 {
            return match self.as_number() {
                Some(number) => Index::number(number.div_euclid(by)),
                None => Atom::Div(Box::new(self.clone()), by).into(),
            };
        }
        let quotient = multiple.exact(by);
        if high < by {
            return quotient;
        }
        if let Some((step, coarse, _)) = rest.coarse(by) {
            return quotient.plus(&coarse.over(by / step));
        }
        let inner = match rest.sole() {
            Some(Atom::Div(of, first)) => of.over(first * by),
            Some(Atom::Mod(of, first)) if first % by == 0 => of.over(by).modulo(first / by),
            _ => Atom::Div(Box::new(rest), by).into(),
        };
        quotient.plus(&inner)
    }

    /// The remainder by a positive number, of an index that is not negative where it is used.
    pub fn modulo(&self, by: i64) -> Self {
        if by == 1 {
            return Index::default();
        }
        let (_, rest) = self.split(by);
        let (low, high) = rest.range();
        if low >= 0 && high < by {
            return rest;
        }
        if let Some((step, coarse, fine)) = rest.coarse(by) {
            return coarse.modulo(by / step).times(step).plus(&fine);
        }
        match rest.sole() {
            Some(Atom::Mod(of, first)) if first % by == 0 => of.modulo(by),
            _ => Atom::Mod(Box::new(rest), by).into(),
        }
    }

    /// A divisor of `by`, more than 1, by which the index is a multiple and a rest: step, quotient, rest.
    fn coarse(&self, by: i64) -> Option<(i64, Index, Index)> {
        let mut order: Vec<(&Atom, &i64)> = self.terms.iter().collect();
        order.sort_by_key(|(_, factor)| std::cmp::Reverse(**factor));
        (1..=order.len()).rev().find_map(|count| {
            let (large, small) = order.split_at(count);
            let step = large
                .iter()
                .fold(by, |step, (_, factor)| gcd(step, **factor));
            let mut fine = Index::number(self.constant.rem_euclid(step));
            fine.terms.extend(
                small
                    .iter()
                    .map(|(atom, factor)| ((*atom).clone(), **factor)),
            );
            let (low, high) = fine.range();
            let sound = step > 1 && low >= 0 && high < step;
            let mut coarse = Index::number(self.constant.div_euclid(step));
            let quotients = large
                .iter()
                .map(|(atom, factor)| ((*atom).clone(), *factor / step));
            coarse.terms.extend(quotients);
            sound.then_some((step, coarse, fine))
        })
    }

    /// The atom, if it is one and nothing else.
    fn sole(&self) -> Option<Atom> {
        let mut terms = self.terms.iter();
        match (terms.next(), terms.next(), self.constant) {
            (Some((atom, 1)), None, 0) => Some(atom.clone()),
            _ => None,
        }
    }

    /// With other indices in the place of variables; `read` says what becomes of computed integers.
    pub fn replaced(
        &self,
        vars: &BTreeMap<u32, Index>,
        read: &mut dyn FnMut(&Rc<Expr>) -> Rc<Expr>,
    ) -> Self {
        let mut sum = Index::number(self.constant);
        for (atom, factor) in &self.terms {
            let new = match atom {
                Atom::Var(number, size) => match vars.get(number) {
                    Some(index) => index.clone(),
                    None => Index::var(*number, *size),
                },
                Atom::Div(of, by) => of.replaced(vars, read).over(*by),
                Atom::Mod(of, by) => of.replaced(vars, read).modulo(*by),
                Atom::Value(value, size) => Atom::Value(read(value), *size).into(),
            };
            sum = sum.plus(&new.times(*factor));
        }
        sum
    }

    /// Calls a function with every variable, quotients and remainders included, and with every computed integer.
    pub fn visit(&self, var: &mut dyn FnMut(u32, i64), value: &mut dyn FnMut(&Rc<Expr>)) {
        for atom in self.terms.keys() {
            match atom {
                Atom::Var(number, size) => var(*number, *size),
                Atom::Div(of, _) | Atom::Mod(of, _) => of.visit(var, value),
                Atom::Value(expr, _) => value(expr),
            }
        }
    }
}

impl From<Atom> for Index {
    fn from(atom: Atom) -> Self {
        Index {
            constant: 0,
            terms: [(atom, 1)].into(),
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    match b {
        0 => a.abs(),
        _ => gcd(b, a % b),
    }
}

/// The position of an element in row-major order.
pub fn flat(at: &[Index], dims: &[u64]) -> Index {
    at.iter()
        .zip(dims)
        .fold(Index::default(), |sum, (index, &size)| {
            sum.times(size as i64).plus(index)
        })
}

/// The element at a position in row-major order.
pub fn unflat(position: &Index, dims: &[u64]) -> Vec<Index> {
    let mut stride = 1;
    let mut at: Vec<Index> = Vec::with_capacity(dims.len());
    for (axis, &size) in dims.iter().enumerate().rev() {
        let quotient = position.over(stride);
        // Nothing is beyond the first axis.
        at.push(match axis {
            0 => quotient,
            _ => quotient.modulo(size.max(1) as i64),
        });
        stride *= size.max(1) as i64;
    }
    at.reverse();
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(index: &Index, at: &[i64]) -> i64 {
        index
            .terms
            .iter()
            .fold(index.constant, |sum, (atom, factor)| {
                sum + factor
                    * match atom {
                        Atom::Var(number, _) => at[*number as usize],
                        Atom::Div(of, by) => value(of, at).div_euclid(*by),
                        Atom::Mod(of, by) => value(of, at).rem_euclid(*by),
                        Atom::Value(..) => unreachable!("none is made here"),
                    }
            })
    }

    #[test]
    fn a_view_and_back_is_the_identity() {
        let at: Vec<Index> = (0..3)
            .map(|i| Index::var(i, [4, 6, 5][i as usize]))
            .collect();
        for dims in [
            vec![120],
            vec![24, 5],
            vec![4, 30],
            vec![2, 2, 30],
            vec![8, 15],
        ] {
            let there = unflat(&flat(&at, &[4, 6, 5]), &dims);
            let back = unflat(&flat(&there, &dims), &[4, 6, 5]);
            assert_eq!(back, at, "{dims:?}");
        }
    }

    proptest! {
        #[test]
        fn simplification_keeps_values(
            factors in proptest::collection::vec(0i64..13, 3),
            constant in 0i64..40, a in 1i64..9, b in 1i64..9, c in 1i64..9,
        ) {
            let sizes = [3i64, 4, 5];
            let vars = (0..3).map(|i| Index::var(i, sizes[i as usize]).times(factors[i as usize]));
            let sum = vars.fold(Index::number(constant), |sum, v| sum.plus(&v));
            let made = sum.over(a).modulo(b).plus(&sum.modulo(c).over(b).times(a)).plus(&sum.over(a).times(a)).plus(&sum.modulo(a));
            for i in 0..3 { for j in 0..4 { for k in 0..5 {
                let x = value(&sum, &[i, j, k]);
                let wanted = x / a % b + x % c / b * a + x / a * a + x % a;
                prop_assert_eq!(value(&made, &[i, j, k]), wanted);
                let (low, high) = made.range();
                prop_assert!((low..=high).contains(&wanted));
            }}}
        }
    }
}

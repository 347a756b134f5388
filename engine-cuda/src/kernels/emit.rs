//! Expressions as statements of C.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use super::c::{binary, literal, unary};
use crate::expr::{Atom, Expr, Fold, Index, Number, TensorId, Type, flat};
use crate::fuse::{Kind, Member};
use crate::program::Program;

/// A select whose sides cost no more evaluates both.
const CHEAP: u64 = 16;

/// Writes statements; a value that was computed before in the same or an outer block is not computed again.
pub(super) struct Emitter<'a> {
    program: &'a Program,
    members: BTreeMap<TensorId, (usize, &'a Member)>,
    /// Names of variables of the space.
    vars: BTreeMap<u32, String>,
    text: String,
    depth: usize,
    /// Values by expression, block by block.
    known: Vec<BTreeMap<Rc<Expr>, String>>,
    read: Vec<(TensorId, String)>,
    next: usize,
    loops: usize,
    integer: &'static str,
}

impl<'a> Emitter<'a> {
    pub fn new(
        program: &'a Program,
        members: BTreeMap<TensorId, (usize, &'a Member)>,
        vars: &[(u32, &str)],
        long: bool,
    ) -> Self {
        Emitter {
            program,
            members,
            vars: vars
                .iter()
                .map(|(var, name)| (*var, (*name).to_owned()))
                .collect(),
            text: String::new(),
            depth: 1,
            known: vec![BTreeMap::new()],
            read: Vec::new(),
            next: 0,
            loops: 0,
            integer: if long { "long long" } else { "int" },
        }
    }

    pub fn finish(self) -> (String, Vec<(TensorId, String)>) {
        (self.text, self.read)
    }

    /// The type of positions.
    pub fn integer(&self) -> &'static str {
        self.integer
    }

    /// Writes a line.
    pub fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:1$}{line}", "", 4 * self.depth);
    }

    /// Writes a block.
    pub fn block<T>(&mut self, head: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.line(&format!("{head} {{"));
        let made = self.inside(inside);
        self.line("}");
        made
    }

    fn inside<T>(&mut self, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        self.known.push(BTreeMap::new());
        let made = inside(self);
        self.known.pop();
        self.depth -= 1;
        made
    }

    /// A new name.
    pub fn name(&mut self, stem: &str) -> String {
        let name = format!("{stem}{}", self.next);
        self.next += 1;
        name
    }

    /// From now on an expression has this value.
    pub fn learn(&mut self, expr: Rc<Expr>, value: String) {
        if let Some(block) = self.known.last_mut() {
            block.insert(expr, value);
        }
    }

    /// The name of a tensor that is read.
    pub fn tensor(&mut self, id: TensorId) -> String {
        if let Some((_, name)) = self.read.iter().find(|(read, _)| *read == id) {
            return name.clone();
        }
        let name = format!("x{}", self.read.len());
        self.read.push((id, name.clone()));
        name
    }

    /// Where an element is in memory.
    pub fn position(&self, id: TensorId, at: &[Index]) -> Index {
        flat(at, &self.program.tensor(id).dims)
    }

    /// Whether indices are certainly inside of a tensor.
    pub fn is_inside(&self, id: TensorId, at: &[Index]) -> bool {
        let dims = &self.program.tensor(id).dims;
        at.iter().zip(dims).all(|(index, &size)| {
            let (low, high) = index.range();
            low >= 0 && high < size as i64
        })
    }

    /// An index as an expression of C.
    pub fn index(&mut self, index: &Index) -> String {
        let mut text = String::new();
        for (atom, factor) in &index.terms {
            let atom = match atom {
                Atom::Var(number, _) => self.var(*number),
                Atom::Div(of, by) => format!("{} / {by}", self.nested(of)),
                Atom::Mod(of, by) => format!("{} % {by}", self.nested(of)),
                Atom::Value(value, _) => {
                    let value = self.value(value);
                    format!("({})({value})", self.integer)
                }
            };
            let compound = atom.contains(" % ") || atom.contains(" / ");
            let sign = match (text.is_empty(), *factor < 0) {
                (true, true) => "-",
                (true, false) => "",
                (false, true) => " - ",
                (false, false) => " + ",
            };
            text.push_str(sign);
            let _ = match (factor.abs(), compound) {
                (1, false) => write!(text, "{atom}"),
                (1, true) => write!(text, "({atom})"),
                (n, false) => write!(text, "{n} * {atom}"),
                (n, true) => write!(text, "{n} * ({atom})"),
            };
        }
        match (text.is_empty(), index.constant) {
            (true, number) => number.to_string(),
            (false, 0) => text,
            (false, number) if number < 0 => format!("{text} - {}", number.unsigned_abs()),
            (false, number) => format!("{text} + {number}"),
        }
    }

    fn nested(&mut self, index: &Index) -> String {
        let text = self.index(index);
        match text.contains(' ') {
            true => format!("({text})"),
            false => text,
        }
    }

    fn var(&mut self, number: u32) -> String {
        match self.vars.get(&number) {
            Some(name) => name.clone(),
            None => format!("unknown{number}"),
        }
    }

    /// Computes an expression; returns a variable or a number.
    pub fn value(&mut self, expr: &Rc<Expr>) -> String {
        if let Expr::Number(number) = &**expr {
            return literal(*number);
        }
        if let Some(found) = self.known.iter().rev().find_map(|block| block.get(expr)) {
            return found.clone();
        }
        let ty = expr.ty().c();
        let text = match &**expr {
            Expr::Load(id, _, at) => match self.member(*id) {
                Some((place, member)) => {
                    // In a row, all elements have the value of the row.
                    let found = match member.kind {
                        Kind::Element => self.value(&member.expr),
                        Kind::Row | Kind::Reduced(_) => row(place),
                    };
                    self.learn(expr.clone(), found.clone());
                    return found;
                }
                None => self.load(*id, at),
            },
            Expr::Select(c, x, y) => match self.select(c, x, y) {
                Some(text) => text,
                None => {
                    let name = self.branches(ty, c, x, y);
                    self.learn(expr.clone(), name.clone());
                    return name;
                }
            },
            Expr::Loop(fold, loops, body) => {
                let name = self.looped(*fold, loops, body);
                self.learn(expr.clone(), name.clone());
                return name;
            }
            Expr::Number(number) => literal(*number),
            Expr::Position(index) => format!("(long long)({})", self.index(index)),
            Expr::Within(index, low, high) => self.within(index, *low, *high),
            Expr::Unary(op, x) => {
                let (ty, x) = (x.ty(), self.value(x));
                unary(*op, ty, &x)
            }
            Expr::Binary(op, x, y) => {
                let ty = x.ty();
                let (x, y) = (self.value(x), self.value(y));
                binary(*op, ty, &x, &y)
            }
            Expr::Cast(Type::Bool, x) => format!("{} != 0", self.value(x)),
            Expr::Cast(_, x) => format!("({ty}){}", self.value(x)),
        };
        let name = self.name("v");
        self.line(&format!("const {ty} {name} = {text};"));
        self.learn(expr.clone(), name.clone());
        name
    }

    fn member(&self, id: TensorId) -> Option<(usize, &'a Member)> {
        self.members.get(&id).copied()
    }

    fn load(&mut self, id: TensorId, at: &[Index]) -> String {
        let position = self.position(id, at);
        let index = self.index(&position);
        format!("{}[{index}]", self.tensor(id))
    }

    fn within(&mut self, index: &Index, low: i64, high: i64) -> String {
        let (least, most) = index.range();
        let text = self.index(index);
        match (low <= least, most < high) {
            (true, _) => format!("{text} < {high}"),
            (_, true) => format!("{text} >= {low}"),
            _ if high - low == 1 => format!("{text} == {low}"),
            _ => {
                let name = self.name("i");
                self.line(&format!("const {} {name} = {text};", self.integer));
                format!("{name} >= {low} && {name} < {high}")
            }
        }
    }

    /// A select as one expression, if both sides can be evaluated, or are no more than a read.
    fn select(&mut self, c: &Rc<Expr>, x: &Rc<Expr>, y: &Rc<Expr>) -> Option<String> {
        let eager = [x, y]
            .iter()
            .all(|side| self.is_safe(side) && side.cost() <= CHEAP);
        let plain = [x, y].iter().all(|side| self.is_plain(side));
        if !eager && !plain {
            return None;
        }
        let c = self.value(c);
        let mut side = |side: &Rc<Expr>| match &**side {
            Expr::Load(id, _, at) if !eager => self.load(*id, at),
            _ => self.value(side),
        };
        let (x, y) = (side(x), side(y));
        Some(format!("{c} ? {x} : {y}"))
    }

    /// Whether an expression is a number, or a read at indices that need no statements.
    fn is_plain(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Number(_) => true,
            Expr::Load(id, _, at) => {
                let mut computed = false;
                at.iter()
                    .for_each(|index| index.visit(&mut |_, _| {}, &mut |_| computed = true));
                !computed && !self.members.contains_key(id)
            }
            _ => false,
        }
    }

    /// Whether every read of an expression is inside of its tensor, whatever conditions say.
    fn is_safe(&self, expr: &Expr) -> bool {
        let mut safe = !matches!(expr, Expr::Loop(..));
        expr.reads(&mut |id, at| {
            safe &= match self.member(id) {
                Some((_, member)) if member.kind == Kind::Element => self.is_safe(&member.expr),
                Some(_) => true,
                None => self.is_inside(id, at),
            };
        });
        safe
    }

    fn branches(&mut self, ty: &str, c: &Rc<Expr>, x: &Rc<Expr>, y: &Rc<Expr>) -> String {
        let c = self.value(c);
        let name = self.name("v");
        self.line(&format!("{ty} {name};"));
        self.line(&format!("if ({c}) {{"));
        self.inside(|e| {
            let x = e.value(x);
            e.line(&format!("{name} = {x};"));
        });
        self.line("} else {");
        self.inside(|e| {
            let y = e.value(y);
            e.line(&format!("{name} = {y};"));
        });
        self.line("}");
        name
    }

    fn looped(&mut self, fold: Fold, loops: &[(u32, i64)], body: &Rc<Expr>) -> String {
        let ty = body.ty();
        let name = self.name("v");
        let start = literal(Number::new(ty, fold.neutral(ty)));
        self.line(&format!("{} {name} = {start};", ty.c()));
        self.nest(fold, loops, body, &name);
        name
    }

    fn nest(&mut self, fold: Fold, loops: &[(u32, i64)], body: &Rc<Expr>, name: &str) {
        let Some(((number, size), rest)) = loops.split_first() else {
            let value = self.value(body);
            let sum = binary(fold.binary(), body.ty(), name, &value);
            self.line(&format!("{name} = {sum};"));
            return;
        };
        let var = format!("j{}", self.loops);
        self.loops += 1;
        let head = format!("for ({} {var} = 0; {var} < {size}; ++{var})", self.integer);
        let before = self.vars.insert(*number, var);
        self.block(&head, |e| e.nest(fold, rest, body, name));
        match before {
            Some(before) => self.vars.insert(*number, before),
            None => self.vars.remove(number),
        };
    }
}

/// The number of a row that the member at a place computes.
pub(super) fn row(place: usize) -> String {
    format!("row{place}")
}

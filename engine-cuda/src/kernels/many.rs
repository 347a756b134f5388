//! One kernel for many tensors: the same work on tensors of other sizes, as optimisers do it with every parameter.
//!
//! Blocks find their tensor in a table of sizes. Addresses come as one parameter, a structure, so that the launch needs
//! nothing else. Threads share rows as in a kernel for one tensor, so the numbers are the same to the last bit.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::emit::Emitter;
use super::rows::{ELEMENT, ROW, Shares, Sizes};
use super::{Kernel, Parameter, THREADS, checked, is_long, members, pointwise, rows, written};
use crate::expr::{Expr, Index, TensorId, Type, flat};
use crate::fuse::{Kind, Member, Space};
use crate::program::{Def, Program, Tensor, vars};

/// Addresses in a table: parameters of a kernel have 4096 bytes.
pub(crate) const ADDRESSES: usize = 480;

/// The position of an element, where rows are gone through.
const AT: u32 = 902;
/// More than any index: sizes are not known when the text is written.
const ANY: i64 = 1 << 30;

/// What kernels have in common that differ in sizes and tensors alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Form {
    order: Order,
    /// What is computed, of tensors numbered from 0: members first, then what is read.
    members: Vec<(Kind, Rc<Expr>, bool)>,
    reads: Vec<(Type, Access)>,
}

/// How threads share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// So many elements each.
    Elements(u64),
    /// So many threads to a row.
    Rows(Shares),
}

/// Which element of a tensor is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    /// That of the space.
    Element,
    /// That of the row.
    Row,
    /// The only one.
    Only,
}

impl Form {
    /// The form of a kernel, and the tensors that it is about; none if it needs more than positions in its own order.
    pub fn of(program: &Program, space: &Space) -> Option<(Form, Vec<TensorId>)> {
        let reduced = space.reduced.len();
        let rank = space.dims.len();
        let along = (rank - reduced..rank).eq(space.reduced.iter().copied());
        let across = (0..reduced).eq(space.reduced.iter().copied());
        if is_long(program, space) || !(along || across) {
            return None;
        }
        let order = match reduced {
            0 => Order::Elements(pointwise::lanes(program, space)),
            _ => Order::Rows(Shares::of(space)),
        };
        let at = vars(&space.dims);
        let kept = (0..rank).filter(|axis| !space.reduced.contains(axis));
        let row: Vec<Index> = kept.map(|axis| at[axis].clone()).collect();
        let places = [
            (Access::Element, flat(&at, &space.dims)),
            (Access::Row, flat(&row, &space.rows())),
            (Access::Only, Index::default()),
        ];
        let mut tensors: Vec<TensorId> = space.members.iter().map(|m| m.tensor).collect();
        let mut reads = Vec::new();
        let mut fits = true;
        let mut members = Vec::new();
        for member in &space.members {
            fits &= is_flat(&member.expr);
            let expr = member.expr.replaced(&BTreeMap::new(), &mut |id, ty, at| {
                let own = flat(&at, &program.tensor(id).dims);
                let found = places.iter().find(|(_, place)| *place == own);
                let access = found.map(|(access, _)| *access);
                fits &= access.is_some();
                let access = access.unwrap_or(Access::Only);
                let slot = tensors.iter().position(|known| *known == id);
                let slot = slot.unwrap_or_else(|| {
                    tensors.push(id);
                    reads.push((ty, access));
                    tensors.len() - 1
                });
                // One tensor is read in one way.
                let read = slot.checked_sub(space.members.len());
                fits &= read.is_none_or(|read| reads[read] == (ty, access));
                Expr::Load(slot, ty, vec![order.index(access)]).into()
            });
            members.push((member.kind, expr, member.stored));
        }
        let form = Form {
            order,
            members,
            reads,
        };
        fits.then_some((form, tensors))
    }

    /// Addresses of one tensor of each launch, at most.
    pub fn columns(&self) -> usize {
        self.members.len() + self.reads.len()
    }

    /// The space of all that have this form. Tensors have their numbers in the form.
    fn space(&self) -> (Program, Space) {
        let mut program = Program::default();
        let members = self.members.iter().map(|(_, expr, _)| expr.ty());
        for ty in members.chain(self.reads.iter().map(|(ty, _)| *ty)) {
            program.add(Tensor {
                name: String::new(),
                ty,
                dims: vec![ANY as u64],
                def: Def::Input,
            });
        }
        let members = self.members.iter().enumerate();
        let members = members.map(|(tensor, (kind, expr, stored))| Member {
            tensor,
            kind: *kind,
            expr: expr.clone(),
            stored: *stored,
        });
        let space = Space {
            dims: Vec::new(),
            reduced: Vec::new(),
            members: members.collect(),
        };
        (program, space)
    }
}

impl Order {
    /// Where an element is in memory.
    fn index(self, access: Access) -> Index {
        match (access, self) {
            (Access::Only, _) => Index::default(),
            (Access::Row, _) => Index::var(ROW, ANY),
            (Access::Element, Order::Rows(_)) => Index::var(AT, ANY),
            (Access::Element, Order::Elements(lanes)) => {
                let lane = Index::var(pointwise::LANE, lanes as i64);
                let thread = Index::var(pointwise::THREAD, ANY / lanes as i64);
                thread.times(lanes as i64).plus(&lane)
            }
        }
    }
}

/// Whether an expression depends on numbers that it reads alone.
fn is_flat(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::Load(..) => true,
        Expr::Position(_) | Expr::Within(..) | Expr::Loop(..) => false,
        Expr::Unary(_, x) | Expr::Cast(_, x) => is_flat(x),
        Expr::Binary(_, x, y) => is_flat(x) && is_flat(y),
        Expr::Select(c, x, y) => is_flat(c) && is_flat(x) && is_flat(y),
    }
}

/// Writes the kernel of spaces that have one form. `over` has what is written over other tensors.
pub(crate) fn many(
    program: &Program,
    spaces: &[Space],
    over: &BTreeMap<TensorId, TensorId>,
) -> Option<Kernel> {
    let forms = spaces.iter().map(|space| Form::of(program, space));
    let (forms, tensors): (Vec<Form>, Vec<Vec<TensorId>>) =
        forms.collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let form = forms.first()?;
    let (names, space) = form.space();
    let written = written(&space);
    let vars = match form.order {
        Order::Elements(_) => &pointwise::VARS[..],
        Order::Rows(_) => &[(ROW, "row"), (ELEMENT, "k"), (AT, "at")],
    };
    let mut e = Emitter::new(&names, members(&space), vars, false);
    // For each tensor: its first block, then its sizes.
    let (mut sizes, mut blocks) = (Vec::new(), 0);
    let syncs = match form.order {
        Order::Elements(lanes) => {
            for space in spaces {
                let threads = space.dims.iter().product::<u64>() / lanes;
                sizes.push(vec![blocks, threads]);
                blocks += threads.div_ceil(THREADS).max(1);
            }
            e.line("const int count = sizes[2 * n + 1];");
            pointwise::write(&mut e, &names, &space, lanes, &written, ["block", "count"]);
            false
        }
        Order::Rows(shares) => {
            for space in spaces {
                let rows = space.rows().iter().product();
                sizes.push(vec![blocks, rows, space.inner().iter().product()]);
                blocks += rows.div_ceil(shares.rows()).max(1);
            }
            e.line("const int rows = sizes[3 * n + 1], inner = sizes[3 * n + 2];");
            let at = match shares.along {
                true => "const int at = row * inner + k;",
                false => "const int at = k * rows + row;",
            };
            let sizes = Sizes {
                block: "block",
                rows: "rows".to_owned(),
                inner: "inner".to_owned(),
                full: shares.lanes == 1 || shares.rows() == 1,
                place: Index::var(AT, ANY),
                at: Some(at.to_owned()),
            };
            rows::write(&mut e, &space, shares, &written, sizes)
        }
    };
    let (text, read) = e.finish();
    let of_tensor = Columns::of(&tensors, &written, &read, over);
    let count = spaces.len();
    let dims: Vec<&[u64]> = spaces.iter().map(|space| &space.dims[..]).collect();
    let comment = match form.order {
        Order::Elements(_) => format!("{dims:?}, each element by itself"),
        Order::Rows(Shares { lanes, .. }) => format!("rows of {dims:?}, {lanes} threads for a row"),
    };
    Some(checked(
        "many",
        &comment,
        of_tensor.parameters(),
        blocks,
        syncs,
        |name| of_tensor.text(name, &sizes, &text, &names, count),
    ))
}

/// Where the addresses of a kernel's tensors come from.
struct Columns<'a> {
    tensors: &'a [Vec<TensorId>],
    /// Columns of the table: what is written, then what is read; the number of the tensor in the form, and its name.
    columns: Vec<(TensorId, String)>,
    /// How many of them are written.
    writes: usize,
    /// Names of what is read where something is written: of the former, then of the latter.
    same: Vec<(TensorId, String, String)>,
    /// What all tensors share.
    shared: Vec<(TensorId, String)>,
    /// Tensors that something is written over.
    over: BTreeSet<TensorId>,
}

impl<'a> Columns<'a> {
    fn of(
        tensors: &'a [Vec<TensorId>],
        written: &[(TensorId, String)],
        read: &[(TensorId, String)],
        over: &BTreeMap<TensorId, TensorId>,
    ) -> Self {
        let mut found = Columns {
            tensors,
            columns: written.to_vec(),
            writes: written.len(),
            same: Vec::new(),
            shared: Vec::new(),
            over: over.values().copied().collect(),
        };
        for (slot, name) in read {
            let is_over =
                |to: &TensorId| tensors.iter().all(|t| over.get(&t[*to]) == Some(&t[*slot]));
            let all: BTreeSet<TensorId> = tensors.iter().map(|t| t[*slot]).collect();
            if let Some((_, to)) = written.iter().find(|(to, _)| is_over(to)) {
                found.same.push((*slot, name.clone(), to.clone()));
            } else if all.len() == 1 && tensors.len() > 1 {
                found.shared.push((*slot, name.clone()));
            } else {
                found.columns.push((*slot, name.clone()));
            }
        }
        found
    }

    /// Column by column, then what is shared; the length of the former.
    fn parameters(&self) -> (Vec<Parameter>, usize) {
        let mut found = Vec::new();
        for (column, (slot, _)) in self.columns.iter().enumerate() {
            let written = column < self.writes;
            let of_each = self.tensors.iter().map(|tensors| tensors[*slot]);
            found.extend(of_each.map(|tensor| Parameter { tensor, written }));
        }
        let table = found.len();
        for (slot, _) in &self.shared {
            let tensor = self.tensors[0][*slot];
            found.push(Parameter {
                tensor,
                written: false,
            });
        }
        (found, table)
    }

    fn text(
        &self,
        name: &str,
        sizes: &[Vec<u64>],
        body: &str,
        names: &Program,
        count: usize,
    ) -> String {
        let width = sizes.first().map_or(0, Vec::len);
        let sizes: Vec<String> = sizes.iter().flatten().map(u64::to_string).collect();
        let mut signature = vec![format!("const {name}_table table")];
        let ty = |slot: TensorId| names.tensor(slot).ty.c();
        for (slot, name) in &self.shared {
            signature.push(format!("const {}* __restrict__ {name}", ty(*slot)));
        }
        let mut text = format!(
            "struct {name}_table {{ void* at[{}]; }};\n\
             static __constant__ const int {name}_sizes[] = {{{}}};\n\
             extern \"C\" __global__ void {name}({})\n{{\n    const int* const sizes = {name}_sizes;\n",
            self.columns.len() * count,
            sizes.join(", "),
            signature.join(", ")
        );
        let last = (1..count).fold(1usize, |step, n| if n > step { 2 * step } else { step });
        text.push_str(&format!(
            "    int n = 0;\n    for (int step = {last}; step > 0; step /= 2)\n        \
             if (n + step < {count} && sizes[{width} * (n + step)] <= (int)blockIdx.x) n += step;\n    \
             const int block = (int)blockIdx.x - sizes[{width} * n];\n"
        ));
        for (column, (slot, name)) in self.columns.iter().enumerate() {
            let is_over = |tensors: &Vec<TensorId>| self.over.contains(&tensors[*slot]);
            let (constant, restrict) = match column < self.writes {
                true => ("", ""),
                false if self.tensors.iter().any(is_over) => ("const ", ""),
                false => ("const ", " __restrict__"),
            };
            let (ty, start) = (ty(*slot), column * count);
            text.push_str(&format!(
                "    {constant}{ty}*{restrict} {name} = ({constant}{ty}*)table.at[{start} + n];\n"
            ));
        }
        for (slot, name, to) in &self.same {
            text.push_str(&format!("    const {}* {name} = {to};\n", ty(*slot)));
        }
        text + body + "}\n"
    }
}

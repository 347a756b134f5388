//! Products that make the gradient of a weight.

use bcosc_ir::views::{AxesOp, Padding, Window};
use bcosc_ir::{Op, Operand};

use super::Gradient;
use crate::context::RuleContext;

impl Gradient<'_> {
    /// A product of matrices for each cell: with `images`, one for each image and a sum over them.
    pub(super) fn products(&self, cx: &mut RuleContext<'_>, images: bool) -> Operand {
        let out = self.out() / self.group;
        let mut left = cx.reshape(self.dy, &self.grouped(&[0], &[out, -1]));
        if !images {
            left = match self.group {
                1 => cx.transpose(left, &[1, 0, 2]),
                _ => cx.transpose(left, &[1, 2, 0, 3]),
            };
            left = cx.reshape(left, &self.grouped(&[], &[out, -1]));
        }
        let mut parts = Vec::new();
        for right in self.rows(cx, images) {
            let product = cx.op("MatMul", &[left, right]);
            parts.push(match images {
                true => cx.reduce_to(AxesOp::ReduceSum, product, &[0]),
                false => product,
            });
        }
        self.stacked(cx, &parts)
    }

    /// What each cell sees as rows of channels: `[N, (G), P, C/G]` with `images`, else `[(G), N P, C/G]`.
    fn rows(&self, cx: &mut RuleContext<'_>, images: bool) -> Vec<Operand> {
        let per_group = self.per_group();
        let mut x = self.padded(cx);
        let single = self.window.cells() == 1;
        let (channel, mut rank) = (if self.group > 1 { 2 } else { 1 }, self.rank() as i64);
        // [N, (G), C/G, spatial...]
        if single {
            x = self.seen(cx, x, 2, 0);
            x = cx.reshape(x, &self.grouped(&[0], &[per_group, -1]));
            rank = 1;
        } else {
            x = self.split(cx, x);
        }
        let mut order: Vec<i64> = (0..channel)
            .chain(channel + 1..channel + 1 + rank)
            .collect();
        order.push(channel);
        if !images && self.group > 1 {
            order.swap(0, 1);
        }
        let x = cx.transpose(x, &order);
        let lead: &[i64] = if images { &[0] } else { &[] };
        let sizes = self.grouped(lead, &[-1, per_group]);
        if single {
            return vec![cx.reshape(x, &sizes)];
        }
        let cells = self.cells(cx, x, channel).into_iter();
        cells.map(|cell| cx.reshape(cell, &sizes)).collect()
    }

    /// A product of matrices for each image; only the smaller factor is turned.
    pub(super) fn single_cell(&self, cx: &mut RuleContext<'_>) -> Operand {
        let (per_group, out) = (self.per_group(), self.out() / self.group);
        let x = self.padded(cx);
        let x = self.seen(cx, x, 2, 0);
        let x = cx.reshape(x, &self.grouped(&[0], &[per_group, -1]));
        let dy = cx.reshape(self.dy, &self.grouped(&[0], &[out, -1]));
        let of_x = per_group > out;
        let [left, right] = if of_x { [x, dy] } else { [dy, x] };
        let rank = if self.group > 1 { 4 } else { 3 };
        let right = cx.turned(right, rank);
        let product = cx.op("MatMul", &[left, right]);
        let mut sum = cx.reduce_to(AxesOp::ReduceSum, product, &[0]);
        if of_x {
            sum = cx.turned(sum, rank - 1);
        }
        cx.reshape(sum, &self.dims)
    }

    /// Products of elements, for groups of one channel.
    pub(super) fn elements(&self, cx: &mut RuleContext<'_>) -> Operand {
        let out = self.out() / self.group;
        let x = self.padded(cx);
        let rank = self.rank() as i64;
        let (mut dy, mut axes) = (self.dy, vec![0]);
        match out {
            1 => axes.extend(2..2 + rank),
            _ => {
                dy = cx.reshape(dy, &[0, self.group, out, -1]);
                axes.push(3);
            }
        }
        let mut parts = Vec::new();
        for mut cell in self.cells(cx, x, 2) {
            if out > 1 {
                cell = cx.reshape(cell, &[0, self.group, 1, -1]);
            }
            let product = cx.mul(cell, dy);
            parts.push(cx.reduce_to(AxesOp::ReduceSum, product, &axes));
        }
        self.stacked(cx, &parts)
    }

    /// One product of matrices: windows that neither overlap nor leave gaps are axes of x.
    pub(super) fn patches(&self, cx: &mut RuleContext<'_>) -> Operand {
        let rank = self.rank() as i64;
        let kernel = &self.window.kernel;
        let to: Vec<i64> = self.to.iter().copied().flatten().collect();
        let ends: Vec<i64> = to.iter().zip(kernel).map(|(n, k)| n * k).collect();
        let mut x = self.x;
        if self
            .from
            .iter()
            .zip(&ends)
            .any(|(from, end)| *from != Some(*end))
        {
            let axes: Vec<i64> = (2..2 + rank).collect();
            x = cx.slice(x, &axes, &vec![0; axes.len()], &ends);
        }
        let mut sizes = vec![0, self.per_group()];
        sizes.extend(to.iter().zip(kernel).flat_map(|(&n, &k)| [n, k]));
        let x = cx.reshape(x, &sizes);
        let mut order = vec![0];
        order.extend((0..rank).map(|axis| 2 + 2 * axis));
        order.push(1);
        order.extend((0..rank).map(|axis| 3 + 2 * axis));
        let x = cx.transpose(x, &order);
        let x = cx.reshape(x, &[-1, self.per_group() * self.window.cells()]);
        let dy = cx.reshape(self.dy, &[0, self.out(), -1]);
        let dy = cx.transpose(dy, &[1, 0, 2]);
        let dy = cx.reshape(dy, &[self.out(), -1]);
        let product = cx.op("MatMul", &[dy, x]);
        cx.reshape(product, &self.dims)
    }

    /// A convolution whose kernel is dy: images are its channels, channels its images.
    pub(super) fn swapped(&self, cx: &mut RuleContext<'_>) -> Operand {
        let rank = self.rank();
        let mut order: Vec<i64> = (0..2 + rank as i64).collect();
        order.swap(0, 1);
        let [x, dy] = [self.x, self.dy].map(|operand| cx.transpose(operand, &order));
        let window = Window {
            kernel: self.to.iter().copied().flatten().collect(),
            strides: self.window.dilations.clone(),
            dilations: self.window.strides.clone(),
            padding: Padding::Explicit(self.pads.clone().unwrap_or_default()),
        };
        let result = cx.patch.op(window.write(Op::new("", "Conv")), &[x, dy]);
        // What is left of x beyond the last window makes more cells.
        let axes: Vec<i64> = (2..2 + rank as i64).collect();
        let result = cx.slice(result, &axes, &vec![0; rank], &self.window.kernel);
        cx.transpose(result, &order)
    }
}

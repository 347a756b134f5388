//! What the cells of a window see of the input, and the weight's gradient of its cells.

use bcosc_ir::views::Padding;
use bcosc_ir::{Attribute, Operand};

use super::Gradient;
use crate::context::RuleContext;
use crate::transpose::window::extent;

impl Gradient<'_> {
    /// x with its border.
    pub(super) fn padded(&self, cx: &mut RuleContext<'_>) -> Operand {
        let rank = self.rank();
        let around = |begin: &[i64], end: &[i64]| [&[0, 0], begin, &[0, 0], end].concat();
        let axes: Vec<i64> = (2..2 + rank as i64).collect();
        if let Some(pads) = &self.pads {
            let mut x = self.x;
            if pads.iter().any(|&pad| pad < 0) {
                let starts: Vec<i64> = pads[..rank].iter().map(|&pad| (-pad).max(0)).collect();
                let end = |&pad: &i64| if pad < 0 { pad } else { i64::MAX };
                let ends: Vec<i64> = pads[rank..].iter().map(end).collect();
                x = cx.slice(x, &axes, &starts, &ends);
            }
            let pads: Vec<i64> = pads.iter().map(|&pad| pad.max(0)).collect();
            return cx.pad(x, &around(&pads[..rank], &pads[rank..]));
        }
        // As wide as the border can be, then cut at run time.
        let spatial = |cx: &mut RuleContext<'_>, of: Operand| {
            let shape = cx.op("Shape", &[of]);
            cx.slice(shape, &[0], &[2], &[i64::MAX])
        };
        let (size, steps) = (spatial(cx, self.x), spatial(cx, self.dy));
        let extents: Vec<i64> = (0..rank).map(|axis| extent(self.window, axis)).collect();
        let wide: Vec<i64> = extents.iter().map(|e| e - 1).collect();
        let beyond: Vec<i64> = extents
            .iter()
            .zip(&self.window.strides)
            .map(|(e, s)| e - s)
            .collect();
        let x = cx.pad(self.x, &around(&wide, &wide));
        let [strides, beyond, wide] = [&self.window.strides, &beyond, &wide].map(|v| cx.ints(v));
        let [zero, two] = [0, 2].map(|number| cx.ints(&[number]));
        let long = cx.mul(steps, strides);
        let long = cx.op("Add", &[long, beyond]);
        let total = cx.op("Sub", &[long, size]);
        let total = cx.op("Max", &[total, zero]);
        let small = cx.div(total, two);
        let begin = match self.window.padding {
            Padding::SameUpper => small,
            _ => cx.op("Sub", &[total, small]),
        };
        let start = cx.op("Sub", &[wide, begin]);
        let end = cx.op("Add", &[start, long]);
        let axes = cx.ints(&axes);
        cx.op("Slice", &[x, start, end, axes])
    }

    /// A padded x with an axis for groups, where there are several.
    pub(super) fn split(&self, cx: &mut RuleContext<'_>, x: Operand) -> Operand {
        if self.group == 1 {
            return x;
        }
        let rank = self.rank();
        let long = |axis: usize| {
            let pads = self.pads.as_ref()?;
            Some(self.from[axis]? + pads[axis] + pads[rank + axis])
        };
        let mut sizes = vec![0, self.group, self.per_group()];
        let spatial: Vec<Option<i64>> = (0..rank).map(long).collect();
        if spatial.iter().filter(|size| size.is_none()).count() <= 1 {
            sizes.extend(spatial.iter().map(|size| size.unwrap_or(-1)));
            return cx.reshape(x, &sizes);
        }
        let shape = cx.op("Shape", &[x]);
        let spatial = cx.slice(shape, &[0], &[2], &[i64::MAX]);
        let lead = cx.ints(&sizes);
        let axis = Attribute::int("axis", 0);
        let sizes = cx.op_with("Concat", &[lead, spatial], [axis]);
        cx.op("Reshape", &[x, sizes])
    }

    /// What each cell of the window sees of a padded x whose spatial axes start at `first`.
    pub(super) fn cells(&self, cx: &mut RuleContext<'_>, x: Operand, first: i64) -> Vec<Operand> {
        let cells = 0..self.window.cells();
        cells.map(|cell| self.seen(cx, x, first, cell)).collect()
    }

    /// What one of them sees.
    pub(super) fn seen(
        &self,
        cx: &mut RuleContext<'_>,
        x: Operand,
        first: i64,
        cell: i64,
    ) -> Operand {
        let (rank, window) = (self.rank(), self.window);
        let (mut starts, mut ends) = (vec![0; rank], vec![i64::MAX; rank]);
        let mut cell = cell;
        for axis in (0..rank).rev() {
            let kernel = window.kernel[axis];
            starts[axis] = cell % kernel * window.dilations[axis];
            cell /= kernel;
            // Counted from the end, whatever is left beyond the last window: less than a step.
            let end = starts[axis] + 1 - extent(window, axis);
            if end < 0 {
                ends[axis] = end;
            }
        }
        let steps = window.strides.iter().any(|&s| s > 1);
        let whole = starts.iter().all(|&s| s == 0) && ends.iter().all(|&e| e == i64::MAX);
        if whole && !steps {
            return x;
        }
        let axes: Vec<i64> = (first..first + rank as i64).collect();
        let mut operands = vec![x];
        operands.extend([&starts, &ends, &axes].map(|values| cx.ints(values)));
        if steps {
            operands.push(cx.ints(&window.strides));
        }
        cx.op("Slice", &operands)
    }

    /// The weight's gradient of those of its cells, each [(G), O/G, C/G].
    pub(super) fn stacked(&self, cx: &mut RuleContext<'_>, parts: &[Operand]) -> Operand {
        if let [only] = parts {
            return cx.reshape(*only, &self.dims);
        }
        let all = cx.op_with("Concat", parts, [Attribute::int("axis", 0)]);
        let all = cx.reshape(all, &[parts.len() as i64, self.out(), self.per_group()]);
        let all = cx.transpose(all, &[1, 2, 0]);
        cx.reshape(all, &self.dims)
    }
}

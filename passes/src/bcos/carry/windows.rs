//! Windows on the constant channel.
//!
//! A window of extent E, stride s and padding p makes an axis of length n `floor((n + p - E) / s) + 1` long, so the sizes
//! behind two windows are the same for every n where s and p - E are.

use bcosc_ir::views::{Padding, Window};

/// How a window changes the size of an axis: its stride, padding minus extent, and whether a last window may hang over the
/// border.
pub(super) type Sizes = Vec<(i64, i64, bool)>;

/// What a window does to the sizes of its axes.
pub(super) fn sizes(window: &Window, ceil_mode: bool) -> Sizes {
    let rank = window.rank();
    let axes = (0..rank).map(|axis| {
        let stride = window.strides[axis];
        let more = match &window.padding {
            Padding::Explicit(pads) => pads[axis] + pads[axis + rank] - extent(window, axis),
            // ceil(n / s) = floor((n - 1) / s) + 1
            Padding::SameUpper | Padding::SameLower => -1,
        };
        // With a stride of 1 the last window ends at the border anyway.
        (stride, more, ceil_mode && stride != 1)
    });
    axes.collect()
}

/// Whether sizes stay as they are.
pub(super) fn keeps_sizes(sizes: &Sizes) -> bool {
    sizes.iter().all(|&axis| axis == (1, -1, false))
}

/// The dense window of the same extent, for an average pool that does not count padding. Every position of the result has
/// a cell in the image: where padding is wider than the window, both grow, which leaves the sizes as they are.
pub(super) fn dense(window: &Window) -> Window {
    let rank = window.rank();
    let mut kernel: Vec<i64> = (0..rank).map(|axis| extent(window, axis)).collect();
    let mut padding = window.padding.clone();
    if let Padding::Explicit(pads) = &mut padding {
        for axis in 0..rank {
            let (first, last) = (pads[axis], pads[axis + rank]);
            let beyond = first.max(last) - kernel[axis] + 1;
            let grow = beyond.max(-first).max(-last).max(0);
            kernel[axis] += 2 * grow;
            pads[axis] += grow;
            pads[axis + rank] += grow;
        }
    }
    Window {
        kernel,
        strides: window.strides.clone(),
        dilations: vec![1; rank],
        padding,
    }
}

/// Cells from the first to the last of a window.
fn extent(window: &Window, axis: usize) -> i64 {
    (window.kernel[axis] - 1) * window.dilations[axis] + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: i64, stride: i64, dilation: i64, pads: [i64; 2]) -> Window {
        Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![dilation],
            padding: Padding::Explicit(pads.to_vec()),
        }
    }

    #[test]
    fn windows_that_fit_keep_sizes() {
        assert!(keeps_sizes(&sizes(&window(3, 1, 1, [1, 1]), false)));
        assert!(keeps_sizes(&sizes(&window(3, 1, 2, [2, 2]), true)));
        assert!(keeps_sizes(&sizes(&window(2, 1, 1, [0, 1]), false)));
        assert!(!keeps_sizes(&sizes(&window(3, 1, 1, [0, 0]), false)));
        assert!(!keeps_sizes(&sizes(&window(1, 2, 1, [0, 0]), false)));
    }

    #[test]
    fn a_strided_window_and_a_cell_of_it_have_the_same_sizes() {
        let same = |a, b| sizes(&a, false) == sizes(&b, false);
        assert!(same(window(3, 2, 1, [1, 1]), window(1, 2, 1, [0, 0])));
        assert!(!same(window(3, 2, 1, [0, 0]), window(1, 2, 1, [0, 0])));
        let mut padded = window(5, 2, 1, [0, 0]);
        padded.padding = Padding::SameLower;
        assert!(same(padded, window(1, 2, 1, [0, 0])));
    }

    #[test]
    fn a_dense_window_always_meets_the_image() {
        let found = |w: Window| {
            let found = dense(&w);
            assert_eq!(sizes(&found, false), sizes(&w, false));
            (found.kernel[0], found.padding)
        };
        let pads = |pads: [i64; 2]| Padding::Explicit(pads.to_vec());
        assert_eq!(found(window(3, 2, 2, [2, 1])), (5, pads([2, 1])));
        assert_eq!(found(window(1, 1, 1, [1, 1])), (3, pads([2, 2])));
        assert_eq!(found(window(2, 1, 1, [-1, 0])), (4, pads([0, 1])));
    }
}

//! Calls of libraries: convolutions and products of matrices.

use serde::{Deserialize, Serialize};

use crate::expr::TensorId;

/// A call of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// One of the three products of a convolution.
    Convolution {
        /// Which, and its sizes.
        convolution: Convolution,
        /// The two factors: `[x, w]`, `[dy, w]` or `[x, dy]`.
        operands: [TensorId; 2],
    },
    /// Products of matrices.
    Product {
        /// Sizes and strides.
        product: Product,
        /// The two factors.
        factors: [TensorId; 2],
        /// What is added to the products.
        added: Added<TensorId>,
    },
}

impl Call {
    /// Products without anything added to them.
    pub fn product(product: Product, factors: [TensorId; 2]) -> Self {
        Call::Product {
            product,
            factors,
            added: Added::default(),
        }
    }

    /// The two factors.
    pub fn factors(&self) -> [TensorId; 2] {
        match self {
            Call::Convolution { operands, .. } => *operands,
            Call::Product { factors, .. } => *factors,
        }
    }

    /// The two factors, to be changed.
    pub fn factors_mut(&mut self) -> &mut [TensorId; 2] {
        match self {
            Call::Convolution { operands, .. } => operands,
            Call::Product { factors, .. } => factors,
        }
    }

    /// The tensors that it reads.
    pub fn operands(&self) -> impl Iterator<Item = TensorId> {
        let added = match self {
            Call::Convolution { .. } => Added::default(),
            Call::Product { added, .. } => *added,
        };
        self.factors().into_iter().chain(added.operands())
    }
}

/// Which of the three products of a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// y of x and w.
    Forward,
    /// dx of dy and w.
    InputGradient,
    /// dw of x and dy.
    WeightGradient,
}

/// How the elements of images and weights follow one another in memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[N, C, spatial...]`.
    #[default]
    ChannelsFirst,
    /// `[N, spatial..., C]`; weights `[O, kernel..., C/groups]`.
    ChannelsLast,
}

/// A convolution. Sizes are given channels first, whatever the layout is. The border is as wide at the end of an axis as at its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Convolution {
    /// Which product.
    pub direction: Direction,
    /// Sizes of x `[N, C, spatial...]`.
    pub x: Vec<u64>,
    /// Sizes of w `[O, C/groups, kernel...]`.
    pub w: Vec<u64>,
    /// Sizes of y `[N, O, spatial...]`.
    pub y: Vec<u64>,
    /// Cells of the border at each end of each axis.
    pub pads: Vec<u64>,
    /// Step per axis.
    pub strides: Vec<u64>,
    /// Distance of cells per axis.
    pub dilations: Vec<u64>,
    /// Groups.
    pub groups: u64,
    /// How the two factors and the result lie in memory.
    pub layout: Layout,
}

/// Products of matrices `[m, k] x [k, n] = [m, n]`, one after another; the results lie side by side in row-major order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Product {
    /// Number of products.
    pub batch: u64,
    /// Rows of the result.
    pub m: u64,
    /// Columns of the result.
    pub n: u64,
    /// What is summed over.
    pub k: u64,
    /// Where the elements of the first factor are.
    pub a: Factor,
    /// Where the elements of the second factor are.
    pub b: Factor,
}

/// What is added to products of matrices, each a tensor or a buffer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Added<T> {
    /// One number per column of the result.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub bias: Option<T>,
    /// One number per element of the result.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub sum: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Added<T> {
    /// What it reads.
    pub fn operands(self) -> impl Iterator<Item = T> {
        self.bias.into_iter().chain(self.sum)
    }

    /// The same with other names.
    pub fn map<U>(self, mut name: impl FnMut(T) -> U) -> Added<U> {
        Added {
            bias: self.bias.map(&mut name),
            sum: self.sum.map(name),
        }
    }

    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        self.bias.is_none() && self.sum.is_none()
    }
}

/// Where the elements of a factor are in memory, counted in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Factor {
    /// The first element.
    pub offset: u64,
    /// From one product's matrix to that of the next; 0 if all have the same.
    pub batch: u64,
    /// From one row to the next.
    pub row: u64,
    /// From one column to the next. Row or column is 1.
    pub column: u64,
}

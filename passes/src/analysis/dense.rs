//! A view of a fully connected layer: its matrix, in either layout, and its bias.

use bcosc_ir::{Graph, Operand, Patch, Tensor, Value};

use crate::Reason;
use crate::analysis::layers::{Form, Layer};
use crate::analysis::weights::{self, WeightError};

/// `y = x A + b` with A `[inputs, outputs]`, in any operator.
pub(crate) struct Dense {
    weight: Value,
    /// Whether the weight is stored as `[outputs, inputs]`.
    transposed: bool,
    alpha: f64,
    /// Length of x.
    pub inputs: u64,
    /// Length of y.
    pub outputs: u64,
    biases: Vec<(Value, f64)>,
}

impl Dense {
    /// The view of a layer whose vectors are along the last axis of its input.
    pub fn of(graph: &Graph, layer: &Layer) -> Result<Self, WeightError> {
        let (transposed, alpha, own) = match &layer.form {
            Form::Gemm(gemm) if !gemm.trans_a => (
                gemm.trans_b,
                f64::from(gemm.alpha),
                gemm.c.map(|c| (c, f64::from(gemm.beta))),
            ),
            Form::RightMatMul => (false, 1.0, None),
            Form::Gemm(_) | Form::LeftMatMul | Form::Conv(_) => {
                return Err(Reason::NotOneVector.into());
            }
        };
        let dims = weights::constant_type(graph, layer.w).and_then(|t| t.known_shape());
        let Some(&[rows, columns]) = dims.as_deref() else {
            return Err(Reason::NotOneVector.into());
        };
        let (inputs, outputs) = match transposed {
            true => (columns, rows),
            false => (rows, columns),
        };
        let added = layer.added_bias(graph).map(|constant| (constant, 1.0));
        Ok(Dense {
            weight: layer.w,
            transposed,
            alpha,
            inputs,
            outputs,
            biases: [own, added].into_iter().flatten().collect(),
        })
    }

    /// A, for a product from the right.
    pub fn matrix(&self, graph: &Graph, patch: &mut Patch) -> Result<Operand, WeightError> {
        if !self.transposed && self.alpha == 1.0 {
            return Ok(Operand::Old(self.weight));
        }
        let stored = weights::floats(graph, self.weight)?;
        let elements = self.elements(&stored.elements, !self.transposed);
        let weight = stored.shaped(&[self.inputs, self.outputs], &elements);
        Ok(patch.parameter("weight", weight))
    }

    /// A for a pointwise convolution on data of this rank: `[outputs, inputs, 1, ...]`.
    pub fn kernel(&self, graph: &Graph, rank: usize) -> Result<Tensor, WeightError> {
        let mut dims = vec![self.outputs, self.inputs];
        dims.resize(rank, 1);
        if self.transposed && self.alpha == 1.0 {
            let stored = graph.constant(self.weight).ok_or(Reason::DynamicWeight)?;
            return Ok(Tensor::from_bytes(stored.dtype(), &dims, stored.bytes()?));
        }
        let stored = weights::floats(graph, self.weight)?;
        let elements = self.elements(&stored.elements, self.transposed);
        Ok(stored.shaped(&dims, &elements))
    }

    /// The stored elements times alpha, transposed or not.
    fn elements(&self, stored: &[f64], as_stored: bool) -> Vec<f64> {
        if as_stored {
            return stored.iter().map(|w| w * self.alpha).collect();
        }
        let columns = match self.transposed {
            true => self.inputs,
            false => self.outputs,
        } as usize;
        let rows = stored.len().checked_div(columns).unwrap_or(0);
        (0..columns)
            .flat_map(|column| (0..rows).map(move |row| row * columns + column))
            .map(|index| stored[index] * self.alpha)
            .collect()
    }

    /// b, as `[outputs]`.
    pub fn bias(&self, graph: &Graph) -> Result<Option<Tensor>, WeightError> {
        let mut total = vec![0.0; self.outputs as usize];
        let mut like = None;
        for (constant, factor) in &self.biases {
            if weights::constant_type(graph, *constant).is_none() {
                return Err(Reason::DynamicBias.into());
            }
            let bias = weights::floats(graph, *constant)?;
            let is_vector = bias.dims.last() == Some(&self.outputs);
            let spread = match bias.elements[..] {
                [one] => vec![one; total.len()],
                _ if is_vector && bias.elements.len() == total.len() => bias.elements.clone(),
                _ => return Err(Reason::BiasShape.into()),
            };
            for (sum, bias) in total.iter_mut().zip(spread) {
                *sum += factor * bias;
            }
            like = Some(bias);
        }
        Ok(like.map(|like| like.shaped(&[self.outputs], &total)))
    }
}

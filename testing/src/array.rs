//! Arrays in double precision, for reference computations in tests.

use bcosc_engine::default_interpreter;
use bcosc_ir::{DataType, Interpreter, Model, Tensor, Tensors};

use crate::{noise, text};

/// An array of double-precision numbers.
#[derive(Clone, Debug)]
pub struct Array {
    /// Dimensions, outermost first.
    pub dims: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<f64>,
}

impl Array {
    /// The elements of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        let dims = tensor.dims().iter().map(|&d| d as usize).collect();
        match tensor.to_f64s() {
            Ok(data) => Array { dims, data },
            Err(error) => panic!("{error}"),
        }
    }

    /// Noise.
    pub fn noise(seed: u64, dims: &[usize]) -> Self {
        let count = dims.iter().product::<usize>() as u64;
        Array {
            dims: dims.to_vec(),
            data: noise(seed, count),
        }
    }

    /// The element at a place.
    pub fn at(&self, place: &[usize]) -> f64 {
        let index = place.iter().zip(&self.dims).fold(0, |i, (p, d)| i * d + p);
        self.data[index]
    }

    /// Element `i` is a function of its place.
    pub fn from_fn(dims: &[usize], mut element: impl FnMut(&[usize]) -> f64) -> Self {
        let dims = dims.to_vec();
        let count: usize = dims.iter().product();
        let mut place = vec![0; dims.len()];
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            data.push(element(&place));
            for axis in (0..dims.len()).rev() {
                place[axis] += 1;
                if place[axis] < dims[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Array { dims, data }
    }

    /// The same numbers in a tensor.
    pub fn tensor(&self, dtype: DataType) -> Tensor {
        let dims: Vec<u64> = self.dims.iter().map(|&d| d as u64).collect();
        Tensor::floats(dtype, &dims, &self.data)
            .unwrap_or_else(|| panic!("{dtype} is not a floating-point type"))
    }

    /// Compares the array with a reference, relative to its largest element.
    pub fn assert_close(&self, expected: &Array, rtol: f64) {
        assert_eq!(self.dims, expected.dims);
        let scale = expected.data.iter().fold(0.0, |s: f64, x| s.max(x.abs()));
        assert!(scale > 0.0, "zeros prove nothing");
        for (i, (a, b)) in self.data.iter().zip(&expected.data).enumerate() {
            let close = (a - b).abs() <= rtol * scale;
            assert!(close, "element {i} is {a}, expected {b}");
        }
    }
}

/// The first output of the model for these inputs.
pub fn outputs(model: &Model, inputs: &Tensors) -> Vec<Array> {
    let found = match default_interpreter().run(model, inputs) {
        Ok(found) => found,
        Err(error) => panic!("{error}\n{}", text(model)),
    };
    let names = model.graph.outputs().iter();
    let names = names.map(|output| model.graph.value_name(output.value));
    names.map(|name| Array::of(&found[name])).collect()
}

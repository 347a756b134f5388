use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensors};

use super::{rounded, transformed};
use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::testing::{Array, after, exponent, infer, model, outputs};

fn ints(name: &str, values: &[usize]) -> Attribute {
    let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
    Attribute::ints(name, &values)
}

/// A convolution, written out.
#[derive(Clone)]
struct Convolution {
    x: Vec<usize>,
    w: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    auto_pad: Option<&'static str>,
    group: usize,
    bias: bool,
    dtype: DataType,
}

impl Convolution {
    /// A batch of 2; `x` is [channels, sizes...], `w` is [units, channels of a group, cells...].
    fn new(x: &[usize], w: &[usize]) -> Self {
        let axes = w.len() - 2;
        Convolution {
            x: [&[2], x].concat(),
            w: w.to_vec(),
            strides: vec![1; axes],
            dilations: vec![1; axes],
            pads: vec![0; 2 * axes],
            auto_pad: None,
            group: x[0] / w[1],
            bias: false,
            dtype: DataType::Float,
        }
    }

    fn axes(&self) -> usize {
        self.w.len() - 2
    }

    /// Length of the output and padding before the input, along one axis.
    fn axis(&self, axis: usize) -> (usize, usize) {
        let (size, stride) = (self.x[axis + 2], self.strides[axis]);
        let reach = (self.w[axis + 2] - 1) * self.dilations[axis] + 1;
        match self.auto_pad {
            None | Some("VALID") => {
                let (before, after) = (self.pads[axis], self.pads[axis + self.axes()]);
                ((size + before + after - reach) / stride + 1, before)
            }
            Some(same) => {
                let length = size.div_ceil(stride);
                let padding = ((length - 1) * stride + reach).saturating_sub(size);
                let upper = padding / 2;
                (
                    length,
                    if same == "SAME_UPPER" {
                        upper
                    } else {
                        padding - upper
                    },
                )
            }
        }
    }

    /// What B-cos makes of it, from the definition.
    fn expected(&self, x: &Array, w: &Array, bias: &Array, b: f64) -> Array {
        let along: Vec<_> = (0..self.axes()).map(|axis| self.axis(axis)).collect();
        let (units, channels) = (self.w[0], self.w[1]);
        let cells = Array::from_fn(&self.w[2..], |_| 0.0);
        let mut dims = vec![self.x[0], units];
        dims.extend(along.iter().map(|&(length, _)| length));
        Array::from_fn(&dims, |place| {
            let unit = place[1];
            let first = unit / (units / self.group) * channels;
            let mut product = if self.bias { bias.data[unit] } else { 0.0 };
            let mut squares = 0.0;
            for channel in 0..channels {
                Array::from_fn(&cells.dims, |cell| {
                    let mut seen = vec![place[0], first + channel];
                    for axis in 0..self.axes() {
                        let position = place[axis + 2] * self.strides[axis]
                            + cell[axis] * self.dilations[axis];
                        match position.checked_sub(along[axis].1) {
                            Some(p) if p < self.x[axis + 2] => seen.push(p),
                            _ => return 0.0,
                        }
                    }
                    let weight = w.at(&[&[unit, channel], cell].concat());
                    product += weight * x.at(&seen);
                    squares += x.at(&seen) * x.at(&seen);
                    0.0
                });
            }
            transformed(product, squares, b, true)
        })
    }

    fn model(&self, w: &Array, bias: &Array) -> Model {
        let sizes: Vec<String> = self.x[1..].iter().map(usize::to_string).collect();
        let mut attributes = vec![
            ints("strides", &self.strides),
            ints("dilations", &self.dilations),
            Attribute::int("group", self.group as i64),
        ];
        match self.auto_pad {
            Some(how) => attributes.push(Attribute::string("auto_pad", how)),
            None => attributes.push(ints("pads", &self.pads)),
        }
        let inputs: &[&str] = if self.bias {
            &["x", "w", "b"]
        } else {
            &["x", "w"]
        };
        let mut model = model(
            ModelBuilder::new(17)
                .input("x", self.dtype, &format!("batch,{}", sizes.join(",")))
                .param("w", w.tensor(self.dtype))
                .param("b", bias.tensor(self.dtype))
                .op("Conv", inputs, "y", attributes)
                .output("y"),
        );
        model.graph.remove_dead();
        infer(&mut model);
        model
    }

    /// Holds the lowered layer to the definition.
    fn check(&self) {
        let (x, w) = (Array::noise(1, &self.x), Array::noise(2, &self.w));
        let bias = Array::noise(3, &self.w[..1]);
        let (x, w, bias) = (rounded(&x), rounded(&w), rounded(&bias));
        let before = self.model(&w, &bias);
        let inputs = Tensors::from([("x".to_owned(), x.tensor(self.dtype))]);
        let tolerance = if self.dtype == DataType::Double {
            1e-12
        } else {
            3e-6
        };
        for b in [2.0, 1.5, 1.25] {
            let lowered = after(&[&BCOS, &LOWER], &before, &exponent(b));
            let found = outputs(&lowered, &inputs);
            found[0].assert_close(&self.expected(&x, &w, &bias, b), tolerance);
        }
    }
}

#[test]
fn convolutions_of_every_rank() {
    Convolution::new(&[3, 9], &[4, 3, 3]).check();
    Convolution::new(&[3, 6, 5], &[4, 3, 3, 2]).check();
    Convolution::new(&[2, 4, 5, 3], &[3, 2, 2, 3, 2]).check();
    Convolution::new(&[3, 6, 5], &[4, 3, 1, 1]).check();
    Convolution::new(&[1, 6, 5], &[2, 1, 1, 1]).check();
}

#[test]
fn convolutions_with_groups() {
    // Depthwise, with a multiplier, and groups of several channels and units.
    Convolution::new(&[4, 6, 5], &[4, 1, 3, 3]).check();
    Convolution::new(&[4, 6, 5], &[8, 1, 3, 3]).check();
    Convolution::new(&[6, 6, 5], &[4, 3, 3, 3]).check();
    Convolution::new(&[6, 6, 5], &[6, 2, 1, 1]).check();
    Convolution::new(&[6, 8], &[9, 2, 3]).check();
}

#[test]
fn windows_of_every_kind() {
    let plain = Convolution::new(&[3, 9, 8], &[4, 3, 3, 3]);
    let strided = Convolution {
        strides: vec![2, 3],
        ..plain.clone()
    };
    strided.check();
    let dilated = Convolution {
        dilations: vec![2, 3],
        pads: vec![2, 3, 2, 3],
        ..plain.clone()
    };
    dilated.check();
    let lopsided = Convolution {
        pads: vec![0, 1, 2, 0],
        ..strided.clone()
    };
    lopsided.check();
    let pointwise = Convolution {
        strides: vec![2, 2],
        ..Convolution::new(&[3, 9, 8], &[4, 3, 1, 1])
    };
    pointwise.check();
    let padded = Convolution {
        pads: vec![1, 0, 0, 2],
        ..pointwise.clone()
    };
    padded.check();
    for auto_pad in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        for case in [&plain, &strided, &pointwise] {
            Convolution {
                auto_pad: Some(auto_pad),
                ..case.clone()
            }
            .check();
        }
    }
}

#[test]
fn a_kept_bias_is_scaled_too() {
    Convolution {
        bias: true,
        ..Convolution::new(&[3, 6, 5], &[4, 3, 3, 3])
    }
    .check();
}

#[test]
fn double_precision_stays_double() {
    Convolution {
        dtype: DataType::Double,
        bias: true,
        ..Convolution::new(&[4, 6, 5], &[6, 2, 3, 3])
    }
    .check();
}

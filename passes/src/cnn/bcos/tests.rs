use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor, Tensors};

use super::*;
use crate::cnn::lower::Lower;
use crate::cnn::testing::{Array, Layers, after, exponent, image, outputs, passed};
use crate::testing::{infer, model, reasons, text};

fn ints(name: &str, values: &[usize]) -> Attribute {
    let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
    Attribute::ints(name, &values)
}

/// What the definition says of one output unit: its product with what it sees, and the sum of squares of that.
fn transformed(product: f64, squares: f64, b: f64, is_conv: bool) -> f64 {
    let norm = if is_conv {
        (squares + 1e-6).sqrt()
    } else {
        squares.sqrt() + 1e-12
    };
    let cosine = product.abs() / norm;
    if b == 2.0 {
        cosine * product
    } else {
        (cosine + 1e-6).powf(b - 1.0) * product
    }
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
                (length, if same == "SAME_UPPER" { upper } else { padding - upper })
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
        let inputs: &[&str] = if self.bias { &["x", "w", "b"] } else { &["x", "w"] };
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
        let tolerance = if self.dtype == DataType::Double { 1e-12 } else { 3e-6 };
        for b in [2.0, 1.5, 1.25] {
            let lowered = after(&[&Bcos, &Lower], &before, &exponent(b));
            let found = outputs(&lowered, &inputs);
            found[0].assert_close(&self.expected(&x, &w, &bias, b), tolerance);
        }
    }
}

/// Numbers that single precision holds.
fn rounded(array: &Array) -> Array {
    let data = array.data.iter().map(|&x| f64::from(x as f32)).collect();
    Array {
        data,
        ..array.clone()
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

/// Holds a lowered matrix product to the definition. `rows` tells for every output element its product
/// and the vector that it saw.
fn check_product(
    builder: ModelBuilder,
    x: &Array,
    dtype: DataType,
    expected: impl Fn(f64) -> Array,
) {
    let mut before = model(builder.output("y"));
    before.graph.remove_dead();
    infer(&mut before);
    let inputs = Tensors::from([("x".to_owned(), x.tensor(dtype))]);
    let tolerance = if dtype == DataType::Double { 1e-12 } else { 3e-6 };
    for b in [2.0, 1.5, 1.25] {
        let lowered = after(&[&Bcos, &Lower], &before, &exponent(b));
        outputs(&lowered, &inputs)[0].assert_close(&expected(b), tolerance);
    }
}

fn input(x: &Array, opset: i64, dtype: DataType) -> ModelBuilder {
    let dims: Vec<String> = x.dims.iter().map(usize::to_string).collect();
    ModelBuilder::new(opset).input("x", dtype, &dims.join(","))
}

/// `alpha * A' * B' + beta * C` for a C of some dimensions.
fn check_gemm(trans: [bool; 2], factors: [f32; 2], c: Option<&[usize]>, dtype: DataType) {
    let (rows, inputs, units) = (3, 5, 4);
    let [trans_a, trans_b] = trans;
    let dims = |transposed, a, b| if transposed { [b, a] } else { [a, b] };
    let x = rounded(&Array::noise(1, &dims(trans_a, rows, inputs)));
    let w = rounded(&Array::noise(2, &dims(trans_b, inputs, units)));
    let addend = rounded(&Array::noise(3, c.unwrap_or(&[1])));
    let [alpha, beta] = factors;
    let operands: &[&str] = if c.is_some() { &["x", "w", "c"] } else { &["x", "w"] };
    let builder = input(&x, 11, dtype)
        .param("w", w.tensor(dtype))
        .param("c", addend.tensor(dtype))
        .op(
            "Gemm",
            operands,
            "y",
            [
                Attribute::int("transA", trans_a.into()),
                Attribute::int("transB", trans_b.into()),
                Attribute::float("alpha", alpha),
                Attribute::float("beta", beta),
            ],
        );
    let at = |array: &Array, transposed, i, j| array.at(&if transposed { [j, i] } else { [i, j] });
    check_product(builder, &x, dtype, |b| {
        Array::from_fn(&[rows, units], |place| {
            let (row, unit) = (place[0], place[1]);
            let mut product = 0.0;
            let mut squares = 0.0;
            for i in 0..inputs {
                let seen = at(&x, trans_a, row, i);
                product += seen * at(&w, trans_b, i, unit) * f64::from(alpha);
                squares += seen * seen;
            }
            let c = c.map_or(0.0, |dims| {
                let place: Vec<usize> = dims.iter().zip(&place[2 - dims.len()..])
                    .map(|(&size, &p)| if size == 1 { 0 } else { p })
                    .collect();
                addend.at(&place) * f64::from(beta)
            });
            transformed(product + c, squares, b, false)
        })
    });
}

#[test]
fn gemms_of_every_form() {
    for trans_a in [false, true] {
        for trans_b in [false, true] {
            check_gemm([trans_a, trans_b], [1.0, 1.0], None, DataType::Float);
            check_gemm([trans_a, trans_b], [0.7, 1.3], Some(&[4]), DataType::Float);
        }
    }
    let addends: [&[usize]; 5] = [&[], &[1], &[1, 4], &[3, 1], &[3, 4]];
    for dims in addends {
        check_gemm([false, true], [1.5, 0.5], Some(dims), DataType::Float);
    }
    check_gemm([true, false], [1.0, 1.0], Some(&[4]), DataType::Double);
}

/// `x @ w` along the last axis.
fn check_right(x: &[usize], w: &[usize], bias: bool, opset: i64) {
    let (x, w) = (rounded(&Array::noise(1, x)), rounded(&Array::noise(2, w)));
    let rank = x.dims.len();
    let (inputs, units) = (x.dims[rank - 1], w.dims[w.dims.len() - 1]);
    let b = rounded(&Array::noise(3, &[units]));
    let mut builder = input(&x, opset, DataType::Float)
        .param("w", w.tensor(DataType::Float))
        .op("MatMul", &["x", "w"], if bias { "p" } else { "y" }, []);
    if bias {
        builder = builder
            .param("b", b.tensor(DataType::Float))
            .op("Add", &["b", "p"], "y", []);
    }
    let mut dims = x.dims.clone();
    dims[rank - 1] = units;
    check_product(builder, &x, DataType::Float, |exponent| {
        Array::from_fn(&dims, |place| {
            let unit = place[rank - 1];
            let mut product = if bias { b.data[unit] } else { 0.0 };
            let mut squares = 0.0;
            for i in 0..inputs {
                let seen = x.at(&[&place[..rank - 1], &[i]].concat());
                let batch = &place[..w.dims.len() - 2];
                product += seen * w.at(&[batch, &[i, unit]].concat());
                squares += seen * seen;
            }
            transformed(product, squares, exponent, false)
        })
    });
}

/// `w @ x` along the last axis but one.
fn check_left(x: &[usize], units: usize, bias: bool) {
    let x = rounded(&Array::noise(1, x));
    let rank = x.dims.len();
    let inputs = x.dims[rank - 2];
    let w = rounded(&Array::noise(2, &[units, inputs]));
    let b = rounded(&Array::noise(3, &[units, 1]));
    let mut builder = input(&x, 18, DataType::Float)
        .param("w", w.tensor(DataType::Float))
        .op("MatMul", &["w", "x"], if bias { "p" } else { "y" }, []);
    if bias {
        builder = builder
            .param("b", b.tensor(DataType::Float))
            .op("Add", &["p", "b"], "y", []);
    }
    let mut dims = x.dims.clone();
    dims[rank - 2] = units;
    check_product(builder, &x, DataType::Float, |exponent| {
        Array::from_fn(&dims, |place| {
            let unit = place[rank - 2];
            let mut product = if bias { b.data[unit] } else { 0.0 };
            let mut squares = 0.0;
            for i in 0..inputs {
                let seen = x.at(&[&place[..rank - 2], &[i, place[rank - 1]]].concat());
                product += seen * w.at(&[unit, i]);
                squares += seen * seen;
            }
            transformed(product, squares, exponent, false)
        })
    });
}

#[test]
fn products_with_constants_on_either_side() {
    for x in [&[5][..], &[3, 5], &[2, 3, 5], &[2, 2, 3, 5]] {
        check_right(x, &[5, 4], false, 18);
        check_right(x, &[5, 4], true, 13);
    }
    check_right(&[2, 3, 5], &[2, 5, 4], false, 18);
    for x in [&[5, 3][..], &[2, 5, 3], &[2, 2, 5, 3]] {
        check_left(x, 4, false);
        check_left(x, 4, true);
    }
}

#[test]
fn layers_become_marked_layers() {
    let before = image("batch,4,6,8")
        .conv("x", "a", &[4, 2, 3, 3], vec![Attribute::int("group", 2)])
        .op("GlobalAveragePool", &["a"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", 4, 3)
        .typed("y");
    insta::assert_snapshot!(text(&after(&[&Bcos], &before, &exponent(2.0))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,6,8] x) => (y)
    <
       float[4,2,3,3] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... 9e9056fd},
       float[3,4] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 73524159},
       float[3] "y.b" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       a = Conv <group = 2> (x, "a.w")
       ["a.patch_norm"] "a.patch_norm" = bcosc.PatchNorm <kernel_shape = [3, 3], group = 2, channels = 4> (x)  # from a
       ["a.bcos"] "a.bcos" = bcosc.Scale <b = 2.0, group = 2, channels = 4, spatial = 2> (a, "a.patch_norm")  # from a
       p = GlobalAveragePool ("a.bcos")
       f = Flatten (p)
       "y.before" = Gemm <transB = 1> (f, "y.w", "y.b")
       ["y.vector_norm"] "y.vector_norm" = bcosc.VectorNorm <axis = -1, transposed = 0> (f)  # from y
       ["y.bcos"] y = bcosc.Scale <b = 2.0, group = 1, channels = 1, spatial = 0> ("y.before", "y.vector_norm")  # from y
    }
    "#);
}

#[test]
fn layers_that_see_the_same_share_a_norm() {
    let builder = image("batch,4,6,8")
        .conv("x", "a", &[4, 4, 1, 1], vec![])
        .conv("x", "b", &[4, 4, 1, 1], vec![])
        .conv("x", "c", &[4, 4, 1, 1], vec![Attribute::ints("strides", &[2, 2])]);
    let before = builder.output("a").output("b").typed("c");
    let after = after(&[&Bcos], &before, &exponent(2.0));
    let ops = after.graph.ops();
    let norms = ops.iter().filter(|&&id| PatchNorm::of(&after.graph, id).is_some());
    assert_eq!(norms.count(), 2);
}

#[test]
fn nothing_happens_at_b_1() {
    let before = image("batch,4,6,8")
        .conv("x", "y", &[4, 4, 1, 1], vec![])
        .typed("y");
    let result = passed(&[&Bcos, &Lower], &before, &exponent(1.0), None);
    assert!(result.is_ok_and(|(after, _)| text(&after) == text(&before)));
}

fn refusal(builder: ModelBuilder) -> Vec<Reason> {
    let mut before = model(builder.output("y"));
    infer(&mut before);
    match passed(&[&Bcos], &before, &exponent(2.0), None) {
        Ok((_, outcome)) => {
            assert!(outcome.changes.is_empty());
            reasons(outcome)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_no_layer_with_constant_weights_stays() {
    let floats = |dims: &str| ModelBuilder::new(17).input("x", DataType::Float, dims);
    let attention = floats("2,3,3").op("MatMul", &["x", "x"], "y", []);
    assert_eq!(refusal(attention), [Reason::DynamicWeight]);
    let dynamic = floats("1,3,3,3").op("Conv", &["x", "x"], "y", []);
    assert_eq!(refusal(dynamic), [Reason::DynamicWeight]);
    let vector = floats("2,3").matmul("x", "y", &[3]);
    assert_eq!(refusal(vector), [Reason::VectorProduct]);
    let seen = floats("3")
        .param("w", crate::testing::weight(1, &[2, 3]))
        .op("MatMul", &["w", "x"], "y", []);
    assert_eq!(refusal(seen), [Reason::VectorProduct]);
    let integers = ModelBuilder::new(17)
        .input("x", DataType::Int64, "2,2")
        .param("w", Tensor::i64s(&[2, 2], vec![1, 2, 3, 4]))
        .op("MatMul", &["x", "w"], "y", []);
    assert_eq!(refusal(integers), [Reason::NotFloating]);
    let transposed = floats("1,2,3,3")
        .param("w", crate::testing::weight(1, &[2, 2, 2, 2]))
        .op("ConvTranspose", &["x", "w"], "y", []);
    assert_eq!(refusal(transposed), [Reason::NoBcosForm]);
}

#[test]
fn broken_layers_stay() {
    let with = |dims: &[u64], attributes: Vec<Attribute>| {
        let builder = ModelBuilder::new(17).input("x", DataType::Float, "1,4,3,3");
        let before = model(builder.conv("x", "y", dims, attributes).output("y"));
        match passed(&[&Bcos], &before, &exponent(2.0), None) {
            Ok((_, outcome)) => assert_eq!(reasons(outcome), [Reason::Malformed]),
            Err(error) => panic!("{error}"),
        }
    };
    with(&[4], vec![]);
    with(&[4, 4], vec![]);
    with(&[0, 4, 1, 1], vec![]);
    with(&[4, 4, 1, 0], vec![]);
    with(&[3, 2, 1, 1], vec![Attribute::int("group", 2)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", 0)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", -1)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", i64::MAX)]);
    with(&[4, 4, 1, 1], vec![Attribute::ints("strides", &[1])]);
    with(&[4, 4, 1, 1], vec![Attribute::ints("pads", &[1, 1])]);
    with(&[4, 4, 1, 1], vec![Attribute::string("auto_pad", "SOME")]);
    let none = model(ModelBuilder::new(17).op("Conv", &[], "y", []).output("y"));
    let result = passed(&[&Bcos], &none, &exponent(2.0), None);
    assert!(result.is_ok_and(|(_, outcome)| reasons(outcome) == [Reason::Malformed]));
}

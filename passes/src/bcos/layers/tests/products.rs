use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensors};

use super::{rounded, transformed};
use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::testing::{Array, after, exponent, infer, model, outputs};

/// Checks a lowered matrix product against the definition. `rows` tells for every output element its product
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
    let tolerance = if dtype == DataType::Double {
        1e-12
    } else {
        3e-6
    };
    for b in [2.0, 1.5, 1.25] {
        let lowered = after(&[&BCOS, &LOWER], &before, &exponent(b));
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
    let operands: &[&str] = if c.is_some() {
        &["x", "w", "c"]
    } else {
        &["x", "w"]
    };
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
                let place: Vec<usize> = dims
                    .iter()
                    .zip(&place[2 - dims.len()..])
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
    // tract multiplies an addend by a single-precision beta, whatever its type.
    check_gemm([true, false], [1.0, 1.0], None, DataType::Double);
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

//! Layers whose bias the input carries: the bias is a weight on a channel of ones.

use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensors};

use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::testing::{Array, after, exponent, infer, model, outputs, text, weight};
use crate::{Biases, Settings};

fn carried(b: f64) -> Settings {
    Settings {
        biases: Some(Biases::Carry),
        ..exponent(b)
    }
}

/// An array with another one behind it along axis 1.
fn joined(a: &Array, b: &Array) -> Array {
    let mut dims = a.dims.clone();
    dims[1] += b.dims[1];
    Array::from_fn(&dims, |p| {
        let mut own = p.to_vec();
        match p[1].checked_sub(a.dims[1]) {
            None => a.at(p),
            Some(behind) => {
                own[1] = behind;
                b.at(&own)
            }
        }
    })
}

/// Checks that a layer of 3 inputs with a bias is the layer of 4 inputs whose last one is 1 and whose last weights are the bias.
fn check(op_type: &str, spatial: &[usize], trans_b: bool) {
    let dims = |channels: usize| [&[2, channels], spatial].concat();
    let x = Array::noise(1, &dims(3));
    let ones = Array::from_fn(&dims(1), |_| 1.0);
    let w = Array::noise(
        2,
        &[&[5, 3], &spatial.iter().map(|_| 1).collect::<Vec<_>>()[..]].concat(),
    );
    let bias = Array::noise(3, &[5]);
    let mut column = bias.clone();
    column.dims = [&[5, 1], &w.dims[2..]].concat();
    let layer = |x: &Array, w: &Array, bias: Option<&Array>, b: f64| {
        let sizes: Vec<String> = x.dims.iter().map(usize::to_string).collect();
        let mut builder = ModelBuilder::new(17)
            .input("x", DataType::Float, &sizes.join(","))
            .param("w", w.tensor(DataType::Float));
        let mut operands = vec!["x", "w"];
        if let Some(bias) = bias {
            builder = builder.param("b", bias.tensor(DataType::Float));
            operands.push("b");
        }
        let transposed = trans_b.then(|| Attribute::int("transB", 1));
        let mut before = model(builder.op(op_type, &operands, "y", transposed).output("y"));
        infer(&mut before);
        let lowered = after(&[&BCOS, &LOWER], &before, &carried(b));
        let inputs = Tensors::from([("x".to_owned(), x.tensor(DataType::Float))]);
        outputs(&lowered, &inputs).remove(0)
    };
    for b in [2.0, 1.25] {
        let with_bias = layer(&x, &w, Some(&bias), b);
        let with_ones = layer(&joined(&x, &ones), &joined(&w, &column), None, b);
        // Without a bias, a convolution adds 1e-6 to its squared norm.
        with_bias.assert_close(&with_ones, 3e-6);
        // Where the input is 0, the bias is the whole product.
        let dark = Array::from_fn(&x.dims, |_| 0.0);
        let found = layer(&dark, &w, Some(&bias), b);
        let expected = Array::from_fn(&found.dims, |p| {
            let bias = bias.at(&[p[1]]);
            (bias.abs() + f64::from(u8::from(b != 2.0)) * 1e-6).powf(b - 1.0) * bias
        });
        found.assert_close(&expected, 2e-6);
    }
}

#[test]
fn a_bias_is_a_weight_on_a_channel_of_ones() {
    check("Conv", &[2, 3], false);
    check("Gemm", &[], true);
}

#[test]
fn the_norm_counts_the_constant() {
    let before = model(
        ModelBuilder::new(17)
            .input("x", DataType::Float, "2,3")
            .param("w", weight(1, &[3, 2]))
            .param("b", weight(2, &[2]))
            .op("MatMul", &["x", "w"], "p", [])
            .op("Add", &["p", "b"], "y", [])
            .output("y"),
    );
    insta::assert_snapshot!(text(&after(&[&BCOS], &before, &carried(2.0))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[2,3] x) => (y)
    <
       float[3,2] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, 0.39491323, 0.67910695},
       float[2] b = {-0.34211493, 0.33705345}
    >
    {
       p = MatMul (x, w)
       ["p.vector_norm"] "p.vector_norm" = bcosc.VectorNorm <axis = -1, transposed = 0, constant = 1> (x)  # from p
       "y.before" = Add (p, b)
       ["p.bcos"] y = bcosc.Scale <b = 2.0, group = 1, channels = 1, spatial = 0> ("y.before", "p.vector_norm")  # from p
    }
    "#);
    insta::assert_snapshot!(text(&after(&[&BCOS, &LOWER], &before, &carried(2.0))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[2,3] x) => (y)
    <
       float[3,2] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, 0.39491323, 0.67910695},
       float[2] b = {-0.34211493, 0.33705345},
       float "p.vector_norm.one" = {1.0}
    >
    {
       p = MatMul (x, w)
       ["p.vector_norm.reducesumsquare"] "p.vector_norm.reducesumsquare" = ReduceSumSquare <keepdims = 1, axes = [-1]> (x)  # from p
       ["p.vector_norm.squared_norm"] "p.vector_norm.squared_norm" = Add ("p.vector_norm.reducesumsquare", "p.vector_norm.one")  # from p
       ["p.vector_norm.norm"] "p.vector_norm.norm" = Sqrt ("p.vector_norm.squared_norm")  # from p
       "y.before" = Add (p, b)
       ["p.bcos.abs"] "p.bcos.abs" = Abs ("y.before")  # from p
       ["p.bcos.cosine"] "p.bcos.cosine" = Div ("p.bcos.abs", "p.vector_norm.norm")  # from p
       ["p.bcos.scaled"] y = Mul ("y.before", "p.bcos.cosine")  # from p
    }
    "#);
}

#[test]
fn layers_without_a_bias_and_biases_that_are_kept_leave_the_norm_alone() {
    let conv = |bias: bool| {
        let operands: &[&str] = if bias { &["x", "w", "b"] } else { &["x", "w"] };
        let mut before = model(
            ModelBuilder::new(17)
                .input("x", DataType::Float, "2,3,4,4")
                .param("w", weight(1, &[2, 3, 1, 1]))
                .param("b", weight(2, &[2]))
                .op("Conv", operands, "y", [])
                .output("y"),
        );
        before.graph.remove_dead();
        infer(&mut before);
        before
    };
    let counts = |bias: bool, settings: &Settings| {
        text(&after(&[&BCOS], &conv(bias), settings)).contains("constant = 1")
    };
    assert!(counts(true, &carried(2.0)));
    assert!(!counts(false, &carried(2.0)));
    let keep = Settings {
        biases: Some(Biases::Keep),
        ..exponent(2.0)
    };
    assert!(!counts(true, &keep));
}

use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, Interpreter, Tensor};

use crate::detached::cotangents;
use crate::explanation::{Kind, explanation};
use crate::parts::{Parts, Shared};
use crate::testing::{backward, floats, pulled_back};
use bcosc_passes::{Context, Settings};
use bcosc_testing::{infer, inferred, input, model, noise, weight};

#[test]
fn a_norm_that_does_nothing_leaves_nothing() {
    let ones = || Tensor::f32s(&[4], vec![1.0; 4]);
    let zeros = || Tensor::f32s(&[4], vec![0.0; 4]);
    let builder = input(18, "batch,3,8,8")
        .param("w", weight(0, &[4, 3, 3, 3]))
        .param("scale", ones())
        .param("bias", zeros())
        .param("mean", zeros())
        .param("var", Tensor::f32s(&[4], vec![1.0 - 1e-5; 4]))
        .param("v", weight(1, &[4, 4, 3, 3]))
        .param("u", weight(1, &[4, 5]))
        .op(
            "Conv",
            &["x", "w"],
            "c",
            [
                Attribute::ints("pads", &[1, 1, 1, 1]),
                Attribute::ints("strides", &[2, 2]),
            ],
        )
        .op(
            "BatchNormalization",
            &["c", "scale", "bias", "mean", "var"],
            "n",
            [],
        )
        .op("Relu", &["n"], "r", [])
        .op("Conv", &["r", "v"], "d", [])
        .op("GlobalAveragePool", &["d"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .op("MatMul", &["f", "u"], "y", []);
    let mut found = model(builder.output("y"));
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    explanation(&mut found, Kind::Logits, &cx).unwrap();
    let kinds: Vec<&str> = found
        .graph
        .ops()
        .into_iter()
        .filter_map(|id| found.graph.op(id).map(|op| op.op_type()))
        .collect();
    // One for each layer and gate, the mean, and the contributions.
    let back = kinds.iter().skip_while(|kind| **kind != "Cast").skip(1);
    let back: Vec<&str> = back.copied().collect();
    assert_eq!(
        back,
        [
            "MatMul",
            "Reshape",
            "Div",
            "Expand",
            "ConvTranspose",
            "Where",
            "ConvTranspose",
            "Mul",
            "ReduceSum"
        ]
    );
}

/// Height and width are fixed, and the batch is dynamic.
#[test]
fn a_decoder_of_an_open_batch_is_explained() {
    let strided = || {
        [
            Attribute::ints("strides", &[2, 2]),
            Attribute::ints("pads", &[1, 1, 1, 1]),
        ]
    };
    let builder = input(18, "N,3,8,8")
        .param("pads", Tensor::i64_vec(&[0, 0, 1, 1, 0, 0, 1, 1]))
        .param("w", weight(0, &[4, 3, 3, 3]))
        .param("v", weight(1, &[4, 2, 4, 4]))
        .param("u", weight(2, &[2, 3]))
        .op(
            "Pad",
            &["x", "pads"],
            "p",
            [Attribute::string("mode", "reflect")],
        )
        .op("Conv", &["p", "w"], "c", strided())
        .op("Relu", &["c"], "r", [])
        .op("ConvTranspose", &["r", "v"], "t", strided())
        .op(
            "MaxPool",
            &["t"],
            "m",
            [Attribute::ints("kernel_shape", &[2, 2])],
        )
        .op("GlobalAveragePool", &["m"], "g", [])
        .op("Flatten", &["g"], "f", [])
        .op("MatMul", &["f", "u"], "y", []);
    let mut found = model(builder.output("y"));
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    explanation(&mut found, Kind::Logits, &cx).unwrap();
    let x = Tensor::floats(DataType::Float, &[2, 3, 8, 8], &noise(5, 384)).unwrap();
    let target = Tensor::i64_vec(&[2, 0]);
    let inputs = [("x".to_owned(), x), ("target".to_owned(), target)].into();
    let outputs = default_interpreter().run(&found, &inputs).unwrap();
    let [logits, contributions] = ["logits", "contributions"].map(|name| floats(&outputs[name]));
    for (image, class) in [2, 0].into_iter().enumerate() {
        let sum: f64 = contributions[64 * image..64 * (image + 1)].iter().sum();
        let logit = logits[3 * image + class];
        assert!((sum - logit).abs() < 1e-5 * logit.abs(), "{sum} {logit}");
    }
}

#[test]
fn cotangents_of_several_values_at_once() {
    let builder = input(18, "batch,4")
        .input("p", DataType::Float, "4")
        .op("Sigmoid", &["x"], "g", [])
        .op("Mul", &["g", "x"], "m", [])
        .op("Add", &["m", "p"], "y", [])
        .op("Neg", &["m"], "z", []);
    let mut found = inferred(builder.output("y").output("z"));
    let value = |name: &str| found.graph.value_named(name).unwrap();
    let [x, p, g, m, y, z] = ["x", "p", "g", "m", "y", "z"].map(value);
    let results = cotangents(&mut found, &[(y, y), (z, z)], &[x, m, g, p]).unwrap();
    // The gate is held fixed, and m is on the way to x.
    let given: Vec<bool> = results.iter().map(Option::is_some).collect();
    assert_eq!(given, [true, true, false, true]);
    let names = ["dx", "dm", "dp"];
    let outputs: Vec<_> = results.into_iter().flatten().zip(names).collect();
    let outputs: Vec<_> = outputs.iter().map(|(v, n)| (*v, (*n).to_owned())).collect();
    found.graph.set_outputs(&outputs);
    found.graph.remove_dead();
    let x = [0.5, -1.0, 2.0, 0.25];
    let p = [1.0, 2.0, 3.0, 4.0];
    let tensors = [("x", &x, vec![1, 4]), ("p", &p, vec![4])];
    let inputs = tensors.map(|(name, v, dims)| {
        let tensor = Tensor::floats(DataType::Float, &dims, v).unwrap();
        (name.to_owned(), tensor)
    });
    let outputs = default_interpreter().run(&found, &inputs.into()).unwrap();
    let [dx, dm, dp] = names.map(|name| floats(&outputs[name]));
    for i in 0..4 {
        let gate = 1.0 / (1.0 + f64::exp(-x[i]));
        // The seeds are y and z themselves: y - z reaches m.
        let expected = 2.0 * gate * x[i] + p[i];
        assert!((dm[i] - expected).abs() < 1e-6, "{dm:?}");
        assert!((dx[i] - gate * expected).abs() < 1e-6, "{dx:?}");
        assert!((dp[i] - gate * x[i] - p[i]).abs() < 1e-6, "{dp:?}");
    }
}

/// A deviation of 0 is not a divisor.
#[test]
fn a_flat_picture_has_a_cotangent() {
    let builder = input(18, "batch,2,3,3").op("MeanVarianceNormalization", &["x"], "y", []);
    let (_, both) = backward("flat", model(builder.output("y")));
    let [x, s] = [0.25, 1.0].map(|v| Tensor::f32s(&[1, 2, 3, 3], vec![v; 18]));
    let found = floats(&pulled_back(&both, &x, &s));
    assert!(found.iter().all(|dx| dx.is_finite()), "{found:?}");
}

/// Both parts of an explanation graph together compute what the whole does; the layers are in one of them only.
#[test]
fn parts_compute_what_the_whole_does() {
    let builder = input(18, "batch,3,8,8")
        .param("w", weight(0, &[4, 3, 3, 3]))
        .param("u", weight(1, &[4, 5]))
        .op("Conv", &["x", "w"], "c", [])
        .op(
            "Gelu",
            &["c"],
            "r",
            [Attribute::string("approximate", "none")],
        )
        .op(
            "MaxPool",
            &["r"],
            "m",
            [Attribute::ints("kernel_shape", &[2, 2])],
        )
        .op("GlobalAveragePool", &["m"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .op("MatMul", &["f", "u"], "y", []);
    let mut whole = model(builder.output("y"));
    let settings = Settings {
        opset: Some(20),
        ..Settings::default()
    };
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    explanation(&mut whole, Kind::Logits, &cx).unwrap();
    infer(&mut whole);
    let Parts {
        forward,
        backward,
        shared,
    } = Parts::of(&whole).unwrap();
    let count = |model: &bcosc_ir::Model, kind: &str| {
        let ops = model.graph.ops().into_iter();
        ops.filter(|id| model.graph.op(*id).is_some_and(|op| op.is(kind)))
            .count()
    };
    assert_eq!(count(&forward, "Conv"), count(&whole, "Conv"));
    assert_eq!(count(&backward, "Conv"), 0);
    assert_eq!(
        count(&backward, "ConvTranspose"),
        count(&whole, "ConvTranspose")
    );

    let image = Tensor::f32s(&[2, 3, 8, 8], {
        let numbers = noise(7, 2 * 3 * 64);
        numbers.into_iter().map(|x| x as f32).collect()
    });
    let run = |model, inputs| default_interpreter().run(model, &inputs).unwrap();
    let seen = run(&forward, [("x".to_owned(), image.clone())].into());
    let names = |model: &bcosc_ir::Model| -> Vec<String> {
        let inputs = model.graph.inputs().into_iter();
        inputs
            .map(|v| model.graph.value_name(v).to_owned())
            .collect()
    };
    for class in [[3, 1], [-1, 0]] {
        let target = Tensor::i64_vec(&class);
        let expected = run(
            &whole,
            [
                ("x".to_owned(), image.clone()),
                ("target".to_owned(), target.clone()),
            ]
            .into(),
        );
        let mut given = bcosc_ir::Tensors::from([("target".to_owned(), target)]);
        for (name, from) in names(&backward).into_iter().skip(1).zip(&shared) {
            let value = match from {
                Shared::Input(_) => image.clone(),
                Shared::Output(_) => seen[&name].clone(),
            };
            given.insert(name, value);
        }
        let found = run(&backward, given);
        for name in ["class", "weights", "contributions"] {
            let value = whole
                .graph
                .outputs()
                .iter()
                .position(|o| o.info.name() == name);
            let found = &found[backward.graph.outputs()[value.unwrap() - 1].info.name()];
            assert_eq!(
                found.to_f64s().ok(),
                expected[name].to_f64s().ok(),
                "{name}"
            );
            assert_eq!(
                found.to_i64s().ok(),
                expected[name].to_i64s().ok(),
                "{name}"
            );
        }
    }
}

use bcosc_ir::{Attribute, ModelBuilder, Tensor, Tensors};

use super::*;
use crate::Settings;
use crate::analysis::carried;
use crate::analysis::linearity::Linearity;
use crate::bcos::input::double::DOUBLE_INPUT;
use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::bcos::norms::uncentre::UNCENTRE_NORMS;
use crate::testing::{
    Array, Layers, contract, image, infer, inputs_for, model, outputs, passed, reasons, text,
    weight,
};

fn settings(input: InputContract, b: f64, biases: Biases) -> Settings {
    Settings {
        b,
        biases: Some(biases),
        // At B = 1 the graph normalises.
        ..contract(input, b > 1.0)
    }
}

fn converted(before: &Model, settings: &Settings) -> (Model, Outcome) {
    with_passes(
        &[&UNCENTRE_NORMS, &DOUBLE_INPUT, &BCOS, &CARRY_BIASES],
        before,
        settings,
    )
}

fn with_passes(passes: &[&Pass], before: &Model, settings: &Settings) -> (Model, Outcome) {
    match passed(passes, before, settings, None) {
        Ok(done) => done,
        Err(error) => panic!("{error}"),
    }
}

fn refusal(before: &Model, input: InputContract) -> String {
    let passes = [&UNCENTRE_NORMS, &DOUBLE_INPUT, &CARRY_BIASES];
    match passed(&passes, before, &settings(input, 1.0, Biases::Carry), None) {
        Ok((_, outcome)) => panic!("{:?}", outcome.changes),
        Err(error) => error.to_string(),
    }
}

/// Raw images for a model, in its input format.
fn images(model: &Model) -> Tensors {
    let noise = inputs_for(model, 2);
    let pixels = |x: Array| {
        let half = x.dims[1] / 2;
        let raw = Array::from_fn(&x.dims, |p| x.at(p).abs() / 1.2);
        Array::from_fn(&x.dims, |p| {
            let mut own = p.to_vec();
            own[1] %= half.max(1);
            match x.dims[1] == 6 && p[1] >= half {
                true => 1.0 - raw.at(&own),
                false => raw.at(p),
            }
        })
    };
    let raw = noise.into_iter().map(|(name, x)| {
        let dtype = x.dtype();
        (name, pixels(Array::of(&x)).tensor(dtype))
    });
    raw.collect()
}

/// Checks, in every input format and at two B, that carried biases give the same as those that are still plain constants, and that no
/// constant is left but those in `left`. Returns the model at B = 1.
fn check(before: &Model, carried: usize, left: &[&str]) -> Model {
    let mut first = None;
    for (input, b) in [
        (InputContract::AddInverse, 1.0),
        (InputContract::Rgb, 1.0),
        (InputContract::AddInverse, 1.75),
    ] {
        let (found, outcome) = converted(before, &settings(input, b, Biases::Carry));
        let report = format!("{:?}\n{}", outcome.skips, text(&found));
        let means = usize::from(b == 1.0);
        assert_eq!(outcome.changes.len(), carried + means, "{report}");
        let (kept, _) = with_passes(
            &[&UNCENTRE_NORMS, &DOUBLE_INPUT, &BCOS],
            before,
            &settings(input, b, Biases::Carry),
        );
        let [found, kept] = [found, kept].map(|mut model| {
            (LOWER.run)(
                &mut model,
                &Context {
                    settings: &Settings::default(),
                    interpreter: bcosc_engine::default_interpreter(),
                    calibration: None,
                },
            )
            .unwrap_or_else(|error| panic!("{error}"));
            infer(&mut model);
            model
        });
        let images = images(&found);
        let expected = outputs(&kept, &images);
        for (found, expected) in outputs(&found, &images).iter().zip(&expected) {
            found.assert_close(expected, 2e-6);
        }
        for verdict in Linearity::of(&found.graph).verdicts() {
            let constants: Vec<&str> = verdict.constants.iter().map(|c| &*c.constant).collect();
            assert_eq!(constants, left, "{}", text(&found));
            assert!(verdict.dynamic_linear, "{verdict:?}");
        }
        assert_eq!(carried::weights(&found.graph).len(), carried);
        first.get_or_insert(found);
    }
    first.unwrap_or_else(|| panic!("no format"))
}

/// The operators that the constant goes through.
fn constants(model: &Model) -> Vec<String> {
    let ops = model.graph.ops().into_iter();
    let named =
        ops.filter(|&node| carried::is_constant_channel(&model.graph, model.graph.output(node, 0)));
    named
        .filter_map(|node| Some(model.graph.op(node)?.op_type().to_owned()))
        .collect()
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute::ints(name, values)
}

fn headed(builder: ModelBuilder, x: &str, channels: u64) -> Model {
    builder
        .op("GlobalAveragePool", &[x], "p", [])
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", channels, 3)
        .typed("y")
}

#[test]
fn biases_become_weights_of_the_constant() {
    let strided = [ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])];
    let builder = image("batch,3,height,width")
        .biased_conv("x", "a", &[2, 3, 3, 3], strided)
        .norm("a", "n", 2)
        .op("Relu", &["n"], "r", []);
    let before = headed(builder, "r", 2);
    let (after, _) = converted(
        &before,
        &settings(InputContract::AddInverse, 1.0, Biases::Carry),
    );
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,6,height,width] x) => (y)
    <
       float[2] "n.gamma" = {0.34835157, 0.23100644},
       float[2] "n.var" = {0.84616053, 0.5832936},
       float[3,2] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, 0.33834577, 0.61412346},
       float[1,6,1,1] "a.mean" = {0.485, 0.456, 0.406, 0.515, 0.544, 0.594},
       float[1,6,1,1] "a.std" = {0.229, 0.224, 0.225, 0.229, 0.224, 0.225},
       float[2,6,3,3] "a.weight" = {-0.40991154, -0.2792931, -0.5457593, -0.5323246, ... 518e6d5a},
       float "a.centred.two" = {2.0},
       float[2,1,1,1] "a.bias" = {-1.0143253, 0.68723387},
       float[2] "n.mean_2" = {0.0, 0.0},
       float[2] "n.bias_2" = {0.0, 0.0},
       float[2,1,1,1] "n.bias_3" = {0.26362124, -0.50734895},
       int64[2] "y.shape" = {-1, 1},
       float[1,3] "y.bias" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       ["a.centred.reducemean"] "a.centred.reducemean" = ReduceMean <keepdims = 1, axes = [1]> (x)  # from a
       ["a.centred.constant"] "a.centred.constant" = Mul ("a.centred.reducemean", "a.centred.two")  # from a
       ["a.centred.mean"] "a.centred.mean" = Mul ("a.centred.constant", "a.mean")  # from a
       ["a.centred"] "a.centred" = Sub (x, "a.centred.mean")  # from a
       ["a.normalized"] "a.normalized" = Div ("a.centred", "a.std")  # from a
       a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> ("a.normalized", "a.weight")
       ["a.constant"] "a.constant" = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> ("a.centred.constant")  # from a
       ["a.carried"] "a.carried" = Conv ("a.constant", "a.bias")  # from a
       ["a.biased"] "a.biased" = Add (a, "a.carried")  # from a
       n = BatchNormalization ("a.biased", "n.gamma", "n.bias_2", "n.mean_2", "n.var")
       ["n.carried"] "n.carried" = Conv ("a.constant", "n.bias_3")  # from n
       ["n.biased"] "n.biased" = Add (n, "n.carried")  # from n
       r = Relu ("n.biased")
       p = GlobalAveragePool (r)
       f = Flatten (p)
       "y.before" = Gemm <transB = 1> (f, "y.w")
       ["y.reducemean"] "y.reducemean" = ReduceMean <keepdims = 1, axes = [2, 3]> ("a.centred.constant")  # from y
       ["y.constant"] "y.constant" = Reshape ("y.reducemean", "y.shape")  # from y
       ["y.carried"] "y.carried" = MatMul ("y.constant", "y.bias")  # from y
       ["y.biased"] y = Add ("y.before", "y.carried")  # from y
    }
    "#);
    check(&before, 3, &[]);
}

#[test]
fn layers_of_one_resolution_share_the_constant() {
    let strided = |kernel: i64, pad: i64| {
        [
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[pad; 4]),
            ints("strides", &[2, 2]),
        ]
    };
    let builder = image("batch,3,height,width")
        .biased_conv("x", "s", &[4, 3, 3, 3], [ints("pads", &[1; 4])])
        .biased_conv("s", "a", &[4, 4, 3, 3], strided(3, 1))
        .op("Relu", &["a"], "r", [])
        .biased_conv("r", "b", &[4, 4, 3, 3], [ints("pads", &[1; 4])])
        .biased_conv("s", "shortcut", &[4, 4, 1, 1], strided(1, 0))
        .op("Add", &["b", "shortcut"], "sum", [])
        .biased_conv("sum", "c", &[2, 4, 1, 1], []);
    let found = check(&headed(builder, "c", 2), 6, &[]);
    let mut used = constants(&found);
    used.sort();
    // For the image, the second resolution, and the head.
    assert_eq!(used, ["AveragePool", "Mul", "ReduceMean", "Reshape"]);
}

#[test]
fn windows_of_every_form_keep_their_sizes() {
    for (kernel, attributes) in [
        (
            [3, 3],
            vec![ints("dilations", &[2, 1]), ints("strides", &[1, 2])],
        ),
        (
            [3, 2],
            vec![ints("pads", &[0, 1, 2, 0]), ints("strides", &[3, 1])],
        ),
        ([1, 1], vec![ints("pads", &[2, 1, 1, 1])]),
        (
            [3, 2],
            vec![
                Attribute::string("auto_pad", "SAME_UPPER"),
                ints("strides", &[2, 1]),
            ],
        ),
    ] {
        let [h, w] = kernel;
        let builder = image("batch,3,height,width")
            .biased_conv("x", "a", &[4, 3, h, w], attributes)
            .op("Relu", &["a"], "r", [])
            .biased_conv("r", "b", &[4, 4, 2, 2], []);
        check(&builder.typed("b"), 2, &[]);
    }
}

#[test]
fn pools_and_gates_keep_it() {
    let pool = [
        ints("kernel_shape", &[3, 3]),
        ints("strides", &[2, 2]),
        Attribute::int("ceil_mode", 1),
    ];
    let builder = image("batch,3,12,9")
        .biased_conv("x", "a", &[4, 3, 1, 1], [])
        .op("AveragePool", &["a"], "p", pool)
        .op("GlobalAveragePool", &["p"], "m", [])
        .biased_conv("m", "g", &[4, 4, 1, 1], [])
        .op("Sigmoid", &["g"], "gate", [])
        .op("Mul", &["p", "gate"], "e", [])
        .biased_conv("e", "b", &[2, 4, 3, 3], []);
    let found = check(&builder.typed("b"), 3, &[]);
    let pools = constants(&found);
    let pools = pools.iter().filter(|op| *op == "AveragePool").count();
    // Of the pool and of the last layer: the gate's mean does not hide positions.
    assert_eq!(pools, 2);
}

#[test]
fn biases_of_decomposed_norms_are_carried() {
    let builder = image("batch,3,height,width")
        .conv("x", "a", &[4, 3, 3, 3], [])
        .param("s", weight(1, &[4, 1, 1]))
        .op("Mul", &["a", "s"], "n", [])
        .op("Relu", &["n"], "r", [])
        .param("shift", weight(2, &[4, 1, 1]))
        .op("Sub", &["r", "shift"], "z", [])
        .conv("z", "y", &[2, 4, 1, 1], []);
    check(&builder.typed("y"), 1, &[]);
}

/// Tokens of a patch convolution.
fn tokens() -> ModelBuilder {
    image("batch,3,8,8")
        .biased_conv("x", "a", &[4, 3, 4, 4], [ints("strides", &[4, 4])])
        .param("flat", Tensor::i64_vec(&[0, 4, -1]))
        .op("Reshape", &["a", "flat"], "columns", [])
        .op("Transpose", &["columns"], "t", [ints("perm", &[0, 2, 1])])
}

#[test]
fn tokens_see_the_mean_over_positions() {
    let builder = tokens()
        .param("s", weight(1, &[4]))
        .param("beta", weight(2, &[4]))
        .op("LayerNormalization", &["t", "s", "beta"], "n", [])
        .matmul("n", "m", &[4, 5])
        .param("c", weight(6, &[5]))
        .op("Add", &["m", "c"], "l", [])
        .param("position", weight(7, &[1, 4, 5]))
        .op("Add", &["l", "position"], "z", [])
        .op(
            "ReduceMean",
            &["z"],
            "mean",
            [ints("axes", &[1]), Attribute::int("keepdims", 0)],
        )
        .linear("mean", "y", 5, 3);
    check(&builder.typed("y"), 4, &["position"]);
}

#[test]
fn tokens_of_all_images_in_rows_keep_their_image() {
    // [N, T, C] as [T, N, C], then [T N, C], and back, as attention modules do.
    let builder = tokens()
        .op("Transpose", &["t"], "first", [ints("perm", &[1, 0, 2])])
        .param("rows", Tensor::i64_vec(&[-1, 4]))
        .op("Reshape", &["first", "rows"], "r", [])
        .linear("r", "l", 4, 5)
        .op("Relu", &["l"], "active", [])
        .linear("active", "k", 5, 6)
        .param("back", Tensor::i64_vec(&[4, -1, 6]))
        .op("Reshape", &["k", "back"], "b", [])
        .op("Transpose", &["b"], "z", [ints("perm", &[1, 0, 2])])
        .matmul("z", "m", &[6, 2])
        .param("c", weight(6, &[2]))
        .op("Add", &["m", "c"], "y", []);
    let before = builder.typed("y");
    let found = check(&before, 4, &[]);
    // Each image's part of the result follows from its own pixels only.
    let dark = |x: Tensor| {
        let mut x = Array::of(&x);
        let image = x.data.len() / 2;
        x.data[image..].fill(0.0);
        x.tensor(DataType::Float)
    };
    let both = images(&found);
    let first: Tensors = both
        .clone()
        .into_iter()
        .map(|(n, x)| (n, dark(x)))
        .collect();
    let half = |mut y: Array| {
        y.data.truncate(y.data.len() / 2);
        y.dims[0] = 1;
        y
    };
    let [alone, beside] = [&first, &both].map(|x| half(outputs(&found, x).remove(0)));
    alone.assert_close(&beside, 1e-6);
}

#[test]
fn one_number_for_all_units_is_carried() {
    let builder = image("batch,3,5,5")
        .conv("x", "a", &[4, 3, 3, 3], [])
        .param("c", Tensor::f32s(&[1], vec![1.0]))
        .op("Add", &["a", "c"], "y", []);
    check(&builder.typed("y"), 1, &[]);
}

#[test]
fn a_model_for_one_image_carries_everywhere() {
    let builder = image("1,3,4,4")
        .biased_conv("x", "a", &[4, 3, 2, 2], [])
        .param("shape", Tensor::i64_vec(&[6, 2, 3]))
        .op("Reshape", &["a", "shape"], "r", [])
        .matmul("r", "m", &[3, 5])
        .param("c", weight(6, &[5]))
        .op("Add", &["m", "c"], "y", []);
    check(&builder.typed("y"), 2, &[]);
}

#[test]
fn nothing_is_carried_unless_it_is_asked_for() {
    let before = image("batch,3,5,5")
        .biased_conv("x", "y", &[4, 3, 3, 3], [])
        .typed("y");
    for biases in [Biases::Keep, Biases::Remove] {
        let (_, outcome) = converted(&before, &settings(InputContract::Rgb, 1.0, biases));
        assert_eq!(outcome, Outcome::default());
    }
}

#[test]
fn the_input_must_hold_a_constant() {
    let before = image("batch,3,5,5")
        .biased_conv("x", "y", &[4, 3, 3, 3], [])
        .typed("y");
    assert_eq!(
        refusal(&before, InputContract::Same),
        Reason::NoConstant.to_string()
    );
}

#[test]
fn a_bias_behind_an_unknown_operator_stays() {
    let mut before = model(
        image("batch,3,5,5")
            .opset("com.acme", 1)
            .conv("x", "a", &[4, 3, 3, 3], [])
            .op("com.acme::Odd", &["a"], "o", [])
            .biased_conv("o", "y", &[4, 4, 1, 1], [])
            .output("y"),
    );
    infer(&mut before);
    let (_, outcome) = converted(&before, &settings(InputContract::Rgb, 1.0, Biases::Carry));
    assert_eq!(reasons(outcome), [Reason::NotCarried]);
}

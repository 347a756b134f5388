//! Outputs of models, against numbers computed by hand.

use bcosc_engine::default_interpreter;
use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};
use bcosc_ir::{Attribute, DataType, Interpreter, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::message::{branch, if_node, node, untyped};
use bcosc_testing::{counting, input, weight};

fn run(model: &Model, input: Tensor) -> Tensor {
    let inputs: Tensors = [("x".to_owned(), input)].into();
    default_interpreter()
        .run(model, &inputs)
        .unwrap()
        .remove("y")
        .unwrap()
}

fn pool(op: &str, attributes: Vec<Attribute>) -> Vec<f32> {
    let model = input(19, "N,1,3,3").op(op, &["x"], "y", attributes);
    run(
        &model.output("y").finish().unwrap(),
        counting(&[1, 1, 3, 3]),
    )
    .to_f32s()
    .unwrap()
}

#[test]
fn a_convolution_with_asymmetric_padding_and_stride() {
    let model = input(13, "N,1,3,3")
        .param("w", Tensor::f32s(&[1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]))
        .param("b", Tensor::f32s(&[1], vec![100.0]))
        .op(
            "Conv",
            &["x", "w", "b"],
            "y",
            [
                Attribute::ints("pads", &[0, 1, 1, 0]),
                Attribute::ints("strides", &[2, 2]),
            ],
        )
        .output("y")
        .finish()
        .unwrap();
    let y = run(&model, counting(&[1, 1, 3, 3]));
    assert_eq!(y.dims(), [1, 1, 2, 2]);
    // Top left sees 0 1 / 0 4, top right 2 3 / 5 6, bottom left 0 7 / 0 0, bottom right 8 9 / 0 0.
    assert_eq!(y.to_f32s().unwrap(), [118.0, 147.0, 114.0, 126.0]);
}

#[test]
fn grouped_convolutions_of_one_and_three_dimensions() {
    let line = input(13, "N,2,3")
        .param("w", Tensor::f32s(&[2, 1, 2], vec![1.0, 1.0, 1.0, -1.0]))
        .op("Conv", &["x", "w"], "y", [Attribute::int("group", 2)])
        .output("y")
        .finish()
        .unwrap();
    assert_eq!(
        run(&line, counting(&[1, 2, 3])).to_f32s().unwrap(),
        [3.0, 5.0, -1.0, -1.0]
    );
    let solid = input(13, "N,1,2,2,2")
        .param("w", Tensor::f32s(&[1, 1, 2, 2, 2], vec![1.0; 8]))
        .op("Conv", &["x", "w"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    assert_eq!(
        run(&solid, counting(&[1, 1, 2, 2, 2])).to_f32s().unwrap(),
        [36.0]
    );
}

#[test]
fn pools_count_padding_as_they_are_told() {
    let window = || {
        vec![
            Attribute::ints("kernel_shape", &[2, 2]),
            Attribute::ints("pads", &[1, 1, 0, 0]),
            Attribute::ints("strides", &[2, 2]),
        ]
    };
    let with = |extra: Attribute| [window(), vec![extra]].concat();
    assert_eq!(pool("AveragePool", window()), [1.0, 2.5, 5.5, 7.0]);
    assert_eq!(
        pool("AveragePool", with(Attribute::int("count_include_pad", 1))),
        [0.25, 1.25, 2.75, 7.0]
    );
    assert_eq!(pool("MaxPool", window()), [1.0, 3.0, 7.0, 9.0]);
}

#[test]
fn windows_that_stick_out_in_ceil_mode() {
    let window = || {
        vec![
            Attribute::ints("kernel_shape", &[2, 2]),
            Attribute::ints("strides", &[2, 2]),
            Attribute::int("ceil_mode", 1),
        ]
    };
    assert_eq!(pool("MaxPool", window()), [5.0, 6.0, 8.0, 9.0]);
    assert_eq!(pool("AveragePool", window()), [3.0, 4.5, 7.5, 9.0]);
    // Only declared padding counts; what ceil mode adds beyond it does not.
    let counted = [window(), vec![Attribute::int("count_include_pad", 1)]].concat();
    assert_eq!(pool("AveragePool", counted), [3.0, 4.5, 7.5, 9.0]);
}

#[test]
fn automatic_padding_goes_below_or_above() {
    let window = |mode| {
        vec![
            Attribute::ints("kernel_shape", &[2, 2]),
            Attribute::string("auto_pad", mode),
            Attribute::int("count_include_pad", 1),
        ]
    };
    let upper = pool("AveragePool", window("SAME_UPPER"));
    assert_eq!(upper, [3.0, 4.0, 2.25, 6.0, 7.0, 3.75, 3.75, 4.25, 2.25]);
    let lower = pool("AveragePool", window("SAME_LOWER"));
    assert_eq!(lower, [0.25, 0.75, 1.25, 1.25, 3.0, 4.0, 2.75, 6.0, 7.0]);
}

#[test]
fn outputs_may_be_sizes_inputs_and_constants() {
    let model = input(13, "N,3")
        .param("c", Tensor::f32s(&[2], vec![1.0, 2.0]))
        .op("Shape", &["x"], "s", [])
        .output("s")
        .output("x")
        .output("c")
        .finish()
        .unwrap();
    let x = counting(&[2, 3]);
    let found = default_interpreter()
        .run(&model, &[("x".to_owned(), x.clone())].into())
        .unwrap();
    assert_eq!(found["s"], Tensor::i64_vec(&[2, 3]));
    assert_eq!(found["x"], x);
    assert_eq!(found["c"], Tensor::f32s(&[2], vec![1.0, 2.0]));
}

#[test]
fn other_float_types_compute() {
    for dtype in [DataType::Double, DataType::Float16, DataType::Bfloat16] {
        let weight = Tensor::floats(dtype, &[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let model = ModelBuilder::new(13)
            .input("x", dtype, "N,2")
            .param("w", weight)
            .op("MatMul", &["x", "w"], "h", [])
            .op(
                "Cast",
                &["h"],
                "y",
                [Attribute::int("to", dtype.to_i32().into())],
            )
            .output_as("y", dtype, "N,2")
            .finish()
            .unwrap();
        let y = run(&model, Tensor::floats(dtype, &[1, 2], &[1.0, 0.5]).unwrap());
        assert_eq!((y.dtype(), y.to_f32s().unwrap()), (dtype, vec![2.5, 4.0]));
    }
}

fn failure(model: &Model, inputs: &Tensors) -> String {
    default_interpreter()
        .run(model, inputs)
        .unwrap_err()
        .to_string()
}

#[test]
fn what_cannot_run_is_said_by_name() {
    let x: Tensors = [("x".to_owned(), counting(&[1, 4]))].into();
    let unknown = input(13, "N,4")
        .op("com.example::Mystery", &["x"], "a", [])
        .op("com.example::Riddle", &["a"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let message = failure(&unknown, &x);
    assert!(
        message.contains("node `a` (com.example.Mystery)"),
        "{message}"
    );
    assert!(
        message.contains("node `y` (com.example.Riddle)"),
        "{message}"
    );

    let mismatch = input(13, "N,4")
        .param("w", weight(1, &[5, 3]))
        .op("MatMul", &["x", "w"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let message = failure(&mismatch, &x);
    assert!(message.contains("node `y`"), "{message}");

    let bomb = input(13, "N,4")
        .param("huge", Tensor::i64_vec(&[1 << 30, 1 << 20]))
        .op("ConstantOfShape", &["huge"], "b", [])
        .op("Add", &["x", "b"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let message = failure(&bomb, &x);
    assert!(message.contains("node `b`"), "{message}");
}

#[test]
fn inputs_have_to_be_what_is_declared() {
    let model = input(13, "N,4")
        .op("Relu", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    assert_eq!(failure(&model, &Tensors::new()), "input `x` is missing");
    let wide = [("x".to_owned(), counting(&[1, 5]))].into();
    assert_eq!(
        failure(&model, &wide),
        "input `x` is declared float[N,4], given [1, 5]"
    );
    let ints = [("x".to_owned(), Tensor::i64s(&[1, 4], vec![0; 4]))].into();
    assert_eq!(
        failure(&model, &ints),
        "input `x` is declared float, given int64"
    );
    let stranger = [
        ("x".to_owned(), counting(&[1, 4])),
        ("z".to_owned(), counting(&[1])),
    ]
    .into();
    assert_eq!(failure(&model, &stranger), "the model has no input `z`");
}

#[test]
fn pieces_of_a_split_tensor_are_slices() {
    let net = |split: Option<Tensor>, place: i64, keep: i64| {
        let net = input(18, "N,5");
        let net = net.param("place", Tensor::i64s(&[], vec![place]));
        let attributes = vec![Attribute::int("axis", 1), Attribute::int("keepdims", keep)];
        let net = match split {
            Some(split) => {
                let net = net.param("split", split);
                net.op("SplitToSequence", &["x", "split"], "s", attributes)
            }
            None => net.op("SplitToSequence", &["x"], "s", attributes),
        };
        net.op("SequenceAt", &["s", "place"], "y", [])
            .output("y")
            .finish()
            .unwrap()
    };
    let y = |split, place, keep| run(&net(split, place, keep), counting(&[1, 5]));
    let two = || Some(Tensor::i64s(&[], vec![2]));
    assert_eq!(y(two(), 1, 1), Tensor::f32s(&[1, 2], vec![3.0, 4.0]));
    assert_eq!(y(two(), 2, 0), Tensor::f32s(&[1, 1], vec![5.0]));
    let listed = Some(Tensor::i64_vec(&[1, 3, 1]));
    assert_eq!(y(listed, 1, 1), Tensor::f32s(&[1, 3], vec![2.0, 3.0, 4.0]));
    assert_eq!(y(None, 3, 1), Tensor::f32s(&[1, 1], vec![4.0]));
    assert_eq!(y(None, 3, 0), Tensor::f32s(&[1], vec![4.0]));
}

#[test]
fn the_largest_integer_survives_a_cast() {
    let model = input(17, "N,2")
        .param("start", Tensor::i64_vec(&[0]))
        .param("last", Tensor::i64_vec(&[i64::MAX]))
        .op("Cast", &["last"], "end", [Attribute::int("to", 7)])
        .op("Slice", &["x", "start", "end", "start"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let y = run(&model, counting(&[1, 2]));
    assert_eq!(y.to_f32s().unwrap(), [1.0, 2.0]);
}

#[test]
fn shapes_are_filled_with_floats_by_default() {
    let model = input(17, "N,2")
        .op("Shape", &["x"], "shape", [])
        .op("ConstantOfShape", &["shape"], "zeros", [])
        .op("Add", &["x", "zeros"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let y = run(&model, counting(&[1, 2]));
    assert_eq!(y.to_f32s().unwrap(), [1.0, 2.0]);
}

#[test]
fn a_branch_on_sizes_is_taken() {
    // What torch.squeeze(x, 0) becomes where the first size is symbolic.
    let branch = |op: &str, inputs: &[&str], output: &str| {
        untyped(branch(vec![node(op, inputs, &[output])], &[output]))
    };
    let model = input(13, "N,2")
        .param("one", Tensor::i64s(&[], vec![1]))
        .param("zero", Tensor::i64_vec(&[0]))
        .param("first", Tensor::i64s(&[], vec![0]))
        .op("Relu", &["x"], "relu", [])
        .op("Shape", &["relu"], "shape", [])
        .op("Gather", &["shape", "first"], "size", [])
        .op("Equal", &["size", "one"], "single", [])
        .node(if_node(
            "single",
            branch("Squeeze", &["relu", "zero"], "squeezed"),
            branch("Identity", &["relu"], "kept"),
            "y",
        ))
        .output("y")
        .finish()
        .unwrap();
    assert_eq!(
        run(&model, counting(&[1, 2])),
        Tensor::f32s(&[2], vec![1.0, 2.0])
    );
    assert_eq!(run(&model, counting(&[2, 2])), counting(&[2, 2]));
}

#[test]
fn what_old_opsets_upsample_takes_the_nearest_to_the_left() {
    let scales = |factor| Tensor::f32s(&[4], vec![1.0, 1.0, 1.0, factor]);
    let resized = |opset, op: &str, factor, mode| {
        let net = input(opset, "N,1,1,3");
        let net = net.param("scales", scales(factor));
        let model = net.op(op, &["x", "scales"], "y", [Attribute::string("mode", mode)]);
        let y = run(
            &model.output("y").finish().unwrap(),
            counting(&[1, 1, 1, 3]),
        );
        y.to_f32s().unwrap()
    };
    let tripled = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0];
    assert_eq!(resized(9, "Upsample", 3.0, "nearest"), tripled);
    assert_eq!(resized(10, "Resize", 3.0, "nearest"), tripled);
    let between = [1.0, 1.5, 2.0, 2.5, 3.0, 3.0];
    assert_eq!(resized(9, "Upsample", 2.0, "linear"), between);
    assert_eq!(resized(10, "Resize", 2.0, "linear"), between);

    let scales = AttributeProto {
        name: Some("scales".to_owned()),
        floats: vec![1.0, 1.0, 1.0, 3.0],
        r#type: Some(6),
        ..AttributeProto::default()
    };
    let upsample = NodeProto {
        attribute: vec![scales],
        ..node("Upsample", &["x"], &["y"])
    };
    let model = input(8, "N,1,1,3").node(upsample);
    let y = run(
        &model.output("y").finish().unwrap(),
        counting(&[1, 1, 1, 3]),
    );
    assert_eq!(y.to_f32s().unwrap(), tripled);
}

#[test]
fn activations_keep_their_factors() {
    let activated = |opset, op: &str, alpha: f32| {
        let alpha = Attribute::float("alpha", alpha);
        let net = input(opset, "N");
        let net = net.op(op, &["x"], "y", vec![alpha]).output("y");
        let y = run(
            &net.finish().unwrap(),
            Tensor::f32s(&[3], vec![-1.0, 0.0, 1.0]),
        );
        y.to_f32s().unwrap()
    };
    let close = |found: &[f32], expected: &[f32]| {
        let pairs = found.iter().zip(expected);
        found.len() == expected.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6)
    };
    // 2 (exp (-1/2) - 1), and the logistic function of 3/2.
    let (bent, gate) = (-0.786_938_7, 0.817_574_5);
    assert!(close(&activated(12, "Celu", 2.0), &[bent, 0.0, 1.0]));
    assert!(close(
        &activated(24, "Swish", 1.5),
        &[gate - 1.0, 0.0, gate]
    ));
}

#[test]
fn softplus_does_not_overflow() {
    let net = input(17, "N").op("Softplus", &["x"], "y", []).output("y");
    let x = vec![-1e30, -100.0, -1.0, 0.0, 1.0, 89.0, 1e30, f32::INFINITY];
    let x = Tensor::f32s(&[8], x);
    let outputs = default_interpreter().run(&net.finish().unwrap(), &[("x".to_owned(), x)].into());
    let found = outputs.unwrap()["y"].to_f64s().unwrap();
    let (small, big) = (0.313_261_7, 1.313_261_7);
    let ln2 = std::f64::consts::LN_2;
    let expected = [0.0, 0.0, small, ln2, big, 89.0, 1e30, f64::INFINITY];
    for (found, expected) in found.into_iter().zip(expected) {
        let same = found == expected || (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
        assert!(same, "{found} instead of {expected}");
    }
}

#[test]
fn nodes_that_would_be_misread_are_refused() {
    let refused = |opset, op: &str, inputs: &[&str], attributes| {
        let net = input(opset, "N,4,4,4");
        let net = net.op(op, inputs, "y", attributes).output("y");
        failure(
            &net.finish().unwrap(),
            &[("x".to_owned(), counting(&[1, 4, 4, 4]))].into(),
        )
    };
    let attention = ["x", "x", "x"];
    let windowed = vec![Attribute::int("left_window_size", 2)];
    assert_eq!(
        refused(25, "Attention", &attention, windowed),
        "node `y` (Attention): tract does not support this node: it ignores the window of attention"
    );
    let cached = ["x", "x", "x", "", "x", "x"];
    let causal = vec![Attribute::int("is_causal", 1)];
    assert_eq!(
        refused(24, "Attention", &cached, causal),
        "node `y` (Attention): tract does not support this node: it counts a causal mask from the start of the cache"
    );
    let cells = vec![
        Attribute::int("blocksize", 2),
        Attribute::string("mode", "CRD"),
    ];
    assert_eq!(
        refused(28, "SpaceToDepth", &["x"], cells),
        "node `y` (SpaceToDepth): tract does not support this node: it supports mode DCR only"
    );
}

#[test]
fn what_would_be_misread_in_a_branch_is_refused() {
    let branch = |alpha: f32| {
        let alpha = Attribute::float("alpha", alpha).proto().clone();
        let celu = NodeProto {
            attribute: vec![alpha],
            ..node("Celu", &["x"], &["z"])
        };
        untyped(branch(vec![celu], &["z"]))
    };
    let net = |alpha| {
        input(12, "N")
            .input("on", DataType::Bool, "")
            .node(if_node("on", branch(alpha), branch(alpha), "y"))
            .output("y")
            .finish()
            .unwrap()
    };
    let on = Tensor::from_bytes(DataType::Bool, &[], vec![1].into());
    let inputs: Tensors = [("x".to_owned(), counting(&[2])), ("on".to_owned(), on)].into();
    assert!(default_interpreter().run(&net(1.0), &inputs).is_ok());
    assert_eq!(
        failure(&net(2.0), &inputs),
        "node `y` (If): tract does not support this node: it ignores the factor of an activation"
    );
}

use bcosc_engine::default_interpreter;
use bcosc_ir::{
    Attribute, DataType, Interpreter, Model, ModelBuilder, ParameterData, Tensor, Tensors,
};
use bcosc_testing::{body, inferred, input, noise};

use crate::derivative::gradients;
use crate::lower::lower;

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute::ints(name, values)
}

/// A layer of `x` and an input `w`, whose gradient with respect to `w` is `dw` for a cotangent `s`.
fn gradient(op: &str, x: &str, w: &str, attributes: Vec<Attribute>) -> (Model, Model) {
    let builder = input(18, x).input("w", DataType::Float, w);
    let forward = layer(builder, op, attributes);
    let mut model = forward.clone();
    let y = model.graph.outputs()[0].value;
    let of_y = model.graph.value_type(y).unwrap();
    let (s, w) = (
        model.graph.add_input("s", of_y),
        model.graph.value_named("w").unwrap(),
    );
    let found = gradients(&mut model, &[(y, s)], &[w]).unwrap();
    model
        .graph
        .set_outputs(&[(found[0].unwrap(), "dw".to_owned())]);
    model.graph.remove_dead();
    (forward, model)
}

fn layer(builder: ModelBuilder, op: &str, attributes: Vec<Attribute>) -> Model {
    inferred(builder.op(op, &["x", "w"], "y", attributes).output("y"))
}

/// The operators of a gradient once it is lowered, with lists of integers in their places.
fn lowered(x: &str, w: &str, attributes: Vec<Attribute>) -> String {
    let (_, mut model) = gradient("Conv", x, w, attributes);
    lower(&mut model).unwrap();
    operators(&model)
}

fn operators(model: &Model) -> String {
    let mut lines = body(model).join("\n").replace("  # from y", "");
    for (node, parameter) in model.graph.parameters() {
        let name = model.graph.value_name(model.graph.output(node, 0));
        let numbers = match &parameter.data {
            ParameterData::Dense(tensor) => tensor.to_i64s().unwrap(),
            ParameterData::Sparse(_) => continue,
        };
        let numbers = format!("{numbers:?}").replace(&i64::MAX.to_string(), "end");
        lines = lines.replace(&format!("\"{name}\""), &numbers);
    }
    lines.replace("y.weight_gradient.", "")
}

#[test]
fn a_product_is_one_operator_until_it_is_lowered() {
    let attributes = vec![ints("pads", &[1, 1, 1, 1]), Attribute::int("group", 2)];
    let (_, model) = gradient("Conv", "batch,4,9,8", "6,2,3,3", attributes);
    insta::assert_snapshot!(operators(&model), @r#"
    ["y.weight_gradient"] "y.weight_gradient" = bcosc.ConvWeightGradient <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2> (x, s)
    [dw] dw = Identity ("y.weight_gradient")
    "#);
}

#[test]
fn rows_of_all_images() {
    insta::assert_snapshot!(lowered("batch,4,9,8", "6,4,1,2", vec![ints("strides", &[2, 1])]), @r#"
    ["reshape"] "reshape" = Reshape (s, [0, 6, -1])
    ["transpose"] "transpose" = Transpose <perm = [1, 0, 2]> ("reshape")
    ["reshape_2"] "reshape_2" = Reshape ("transpose", [6, -1])
    ["transpose_2"] "transpose_2" = Transpose <perm = [0, 2, 3, 1]> (x)
    ["slice"] "slice" = Slice ("transpose_2", [0, 0], [end, -1], [1, 2], [2, 1])
    ["slice_2"] "slice_2" = Slice ("transpose_2", [0, 1], [end, end], [1, 2], [2, 1])
    ["reshape_3"] "reshape_3" = Reshape ("slice", [-1, 4])
    ["reshape_4"] "reshape_4" = Reshape ("slice_2", [-1, 4])
    ["matmul"] "matmul" = MatMul ("reshape_2", "reshape_3")
    ["matmul_2"] "matmul_2" = MatMul ("reshape_2", "reshape_4")
    ["concat"] "concat" = Concat <axis = 0> ("matmul", "matmul_2")
    ["reshape_5"] "reshape_5" = Reshape ("concat", [2, 6, 4])
    ["transpose_3"] "transpose_3" = Transpose <perm = [1, 2, 0]> ("reshape_5")
    ["reshape_6"] "reshape_6" = Reshape ("transpose_3", [6, 4, 1, 2])
    [dw] dw = Identity ("reshape_6")
    "#);
}

#[test]
fn rows_of_a_single_cell() {
    insta::assert_snapshot!(lowered("batch,4,height,width", "6,4,1,1", vec![ints("strides", &[2, 2])]), @r#"
    ["reshape"] "reshape" = Reshape (s, [0, 6, -1])
    ["transpose"] "transpose" = Transpose <perm = [1, 0, 2]> ("reshape")
    ["reshape_2"] "reshape_2" = Reshape ("transpose", [6, -1])
    ["slice"] "slice" = Slice (x, [0, 0], [end, end], [2, 3], [2, 2])
    ["reshape_3"] "reshape_3" = Reshape ("slice", [0, 4, -1])
    ["transpose_2"] "transpose_2" = Transpose <perm = [0, 2, 1]> ("reshape_3")
    ["reshape_4"] "reshape_4" = Reshape ("transpose_2", [-1, 4])
    ["matmul"] "matmul" = MatMul ("reshape_2", "reshape_4")
    ["reshape_5"] "reshape_5" = Reshape ("matmul", [6, 4, 1, 1])
    [dw] dw = Identity ("reshape_5")
    "#);
}

#[test]
fn a_product_for_each_image() {
    let attributes = vec![ints("pads", &[0, 1, 0, 0]), Attribute::int("group", 2)];
    insta::assert_snapshot!(lowered("batch,4,32,32", "6,2,1,2", attributes), @r#"
    ["reshape"] "reshape" = Reshape (s, [0, 2, 3, -1])
    ["pad"] "pad" = Pad (x, [0, 0, 0, 1, 0, 0, 0, 0])
    ["reshape_2"] "reshape_2" = Reshape ("pad", [0, 2, 2, 32, 33])
    ["transpose"] "transpose" = Transpose <perm = [0, 1, 3, 4, 2]> ("reshape_2")
    ["slice"] "slice" = Slice ("transpose", [0, 0], [end, -1], [2, 3])
    ["slice_2"] "slice_2" = Slice ("transpose", [0, 1], [end, end], [2, 3])
    ["reshape_3"] "reshape_3" = Reshape ("slice", [0, 2, -1, 2])
    ["reshape_4"] "reshape_4" = Reshape ("slice_2", [0, 2, -1, 2])
    ["matmul"] "matmul" = MatMul ("reshape", "reshape_3")
    ["reducesum"] "reducesum" = ReduceSum <keepdims = 0> ("matmul", [0])
    ["matmul_2"] "matmul_2" = MatMul ("reshape", "reshape_4")
    ["reducesum_2"] "reducesum_2" = ReduceSum <keepdims = 0> ("matmul_2", [0])
    ["concat"] "concat" = Concat <axis = 0> ("reducesum", "reducesum_2")
    ["reshape_5"] "reshape_5" = Reshape ("concat", [2, 6, 2])
    ["transpose_2"] "transpose_2" = Transpose <perm = [1, 2, 0]> ("reshape_5")
    ["reshape_6"] "reshape_6" = Reshape ("transpose_2", [6, 2, 1, 2])
    [dw] dw = Identity ("reshape_6")
    "#);
}

#[test]
fn a_single_cell_for_each_image() {
    insta::assert_snapshot!(lowered("batch,4,32,32", "6,4,1,1", vec![]), @r#"
    ["reshape"] "reshape" = Reshape (x, [0, 4, -1])
    ["reshape_2"] "reshape_2" = Reshape (s, [0, 6, -1])
    ["transpose"] "transpose" = Transpose <perm = [0, 2, 1]> ("reshape")
    ["matmul"] "matmul" = MatMul ("reshape_2", "transpose")
    ["reducesum"] "reducesum" = ReduceSum <keepdims = 0> ("matmul", [0])
    ["reshape_3"] "reshape_3" = Reshape ("reducesum", [6, 4, 1, 1])
    [dw] dw = Identity ("reshape_3")
    "#);
}

#[test]
fn products_of_elements() {
    insta::assert_snapshot!(lowered("batch,4,height,width", "4,1,1,2", vec![Attribute::int("group", 4)]), @r#"
    ["slice"] "slice" = Slice (x, [0, 0], [end, -1], [2, 3])
    ["slice_2"] "slice_2" = Slice (x, [0, 1], [end, end], [2, 3])
    ["mul"] "mul" = Mul ("slice", s)
    ["reducesum"] "reducesum" = ReduceSum <keepdims = 0> ("mul", [0, 2, 3])
    ["mul_2"] "mul_2" = Mul ("slice_2", s)
    ["reducesum_2"] "reducesum_2" = ReduceSum <keepdims = 0> ("mul_2", [0, 2, 3])
    ["concat"] "concat" = Concat <axis = 0> ("reducesum", "reducesum_2")
    ["reshape"] "reshape" = Reshape ("concat", [2, 4, 1])
    ["transpose"] "transpose" = Transpose <perm = [1, 2, 0]> ("reshape")
    ["reshape_2"] "reshape_2" = Reshape ("transpose", [4, 1, 1, 2])
    [dw] dw = Identity ("reshape_2")
    "#);
}

#[test]
fn patches() {
    insta::assert_snapshot!(lowered("batch,3,8,9", "6,3,4,4", vec![ints("strides", &[4, 4])]), @r#"
    ["slice"] "slice" = Slice (x, [0, 0], [8, 8], [2, 3])
    ["reshape"] "reshape" = Reshape ("slice", [0, 3, 2, 4, 2, 4])
    ["transpose"] "transpose" = Transpose <perm = [0, 2, 4, 1, 3, 5]> ("reshape")
    ["reshape_2"] "reshape_2" = Reshape ("transpose", [-1, 48])
    ["reshape_3"] "reshape_3" = Reshape (s, [0, 6, -1])
    ["transpose_2"] "transpose_2" = Transpose <perm = [1, 0, 2]> ("reshape_3")
    ["reshape_4"] "reshape_4" = Reshape ("transpose_2", [6, -1])
    ["matmul"] "matmul" = MatMul ("reshape_4", "reshape_2")
    ["reshape_5"] "reshape_5" = Reshape ("matmul", [6, 3, 4, 4])
    [dw] dw = Identity ("reshape_5")
    "#);
}

#[test]
fn a_convolution_with_batch_and_channels_swapped() {
    let attributes = vec![ints("strides", &[2, 2]), ints("pads", &[3, 3, 3, 3])];
    insta::assert_snapshot!(lowered("batch,3,16,16", "6,3,7,7", attributes), @r#"
    ["transpose"] "transpose" = Transpose <perm = [1, 0, 2, 3]> (x)
    ["transpose_2"] "transpose_2" = Transpose <perm = [1, 0, 2, 3]> (s)
    ["conv"] "conv" = Conv <kernel_shape = [8, 8], pads = [3, 3, 3, 3], dilations = [2, 2]> ("transpose", "transpose_2")
    ["slice"] "slice" = Slice ("conv", [0, 0], [7, 7], [2, 3])
    ["transpose_3"] "transpose_3" = Transpose <perm = [1, 0, 2, 3]> ("slice")
    [dw] dw = Identity ("transpose_3")
    "#);
}

#[test]
fn a_border_that_depends_on_open_sizes() {
    let attributes = vec![
        ints("strides", &[2, 2]),
        Attribute::string("auto_pad", "SAME_UPPER"),
    ];
    insta::assert_snapshot!(lowered("batch,4,height,width", "6,4,1,2", attributes), @r#"
    ["reshape"] "reshape" = Reshape (s, [0, 6, -1])
    ["transpose"] "transpose" = Transpose <perm = [1, 0, 2]> ("reshape")
    ["reshape_2"] "reshape_2" = Reshape ("transpose", [6, -1])
    ["shape"] "shape" = Shape (x)
    ["slice"] "slice" = Slice ("shape", [2], [end], [0])
    ["shape_2"] "shape_2" = Shape (s)
    ["slice_2"] "slice_2" = Slice ("shape_2", [2], [end], [0])
    ["pad"] "pad" = Pad (x, [0, 0, 0, 1, 0, 0, 0, 1])
    ["mul"] "mul" = Mul ("slice_2", [2, 2])
    ["add"] "add" = Add ("mul", [-1, 0])
    ["sub"] "sub" = Sub ("add", "slice")
    ["max"] "max" = Max ("sub", [0])
    ["div"] "div" = Div ("max", [2])
    ["sub_2"] "sub_2" = Sub ([0, 1], "div")
    ["add_2"] "add_2" = Add ("sub_2", "add")
    ["slice_3"] "slice_3" = Slice ("pad", "sub_2", "add_2", [2, 3])
    ["transpose_2"] "transpose_2" = Transpose <perm = [0, 2, 3, 1]> ("slice_3")
    ["slice_4"] "slice_4" = Slice ("transpose_2", [0, 0], [end, -1], [1, 2], [2, 2])
    ["slice_5"] "slice_5" = Slice ("transpose_2", [0, 1], [end, end], [1, 2], [2, 2])
    ["reshape_3"] "reshape_3" = Reshape ("slice_4", [-1, 4])
    ["reshape_4"] "reshape_4" = Reshape ("slice_5", [-1, 4])
    ["matmul"] "matmul" = MatMul ("reshape_2", "reshape_3")
    ["matmul_2"] "matmul_2" = MatMul ("reshape_2", "reshape_4")
    ["concat"] "concat" = Concat <axis = 0> ("matmul", "matmul_2")
    ["reshape_5"] "reshape_5" = Reshape ("concat", [2, 6, 4])
    ["transpose_3"] "transpose_3" = Transpose <perm = [1, 2, 0]> ("reshape_5")
    ["reshape_6"] "reshape_6" = Reshape ("transpose_3", [6, 4, 1, 2])
    [dw] dw = Identity ("reshape_6")
    "#);
}

/// ONNX Runtime and PyTorch do not have this form: the output is linear in the weight.
#[test]
fn a_transposed_convolution_with_zeros_beyond_a_step() {
    let attributes = vec![
        ints("strides", &[2, 2]),
        ints("dilations", &[3, 3]),
        ints("output_padding", &[2, 3]),
    ];
    let (forward, mut model) = gradient("ConvTranspose", "2,4,5,6", "4,3,2,2", attributes);
    lower(&mut model).unwrap();
    let number = |seed: u64, dims: &[u64]| {
        let numbers = noise(seed, dims.iter().product());
        Tensor::floats(DataType::Float, dims, &numbers).unwrap()
    };
    let x = number(0, &[2, 4, 5, 6]);
    let run = |model: &Model, inputs: Tensors, name: &str| {
        default_interpreter().run(model, &inputs).unwrap()[name].clone()
    };
    let dot = |a: &Tensor, b: &Tensor| -> f64 {
        let (a, b) = (a.to_f64s().unwrap(), b.to_f64s().unwrap());
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    };
    for seed in 1..4 {
        let w = number(seed, &[4, 3, 2, 2]);
        let given = [("x".to_owned(), x.clone()), ("w".to_owned(), w.clone())];
        let mut inputs: Tensors = given.into();
        let y = run(&forward, inputs.clone(), "y");
        let s = number(seed + 10, &y.dims());
        inputs.insert("s".to_owned(), s.clone());
        let dw = run(&model, inputs, "dw");
        let (left, right) = (dot(&s, &y), dot(&dw, &w));
        assert!(
            (left - right).abs() < 1e-5 * dot(&y, &y),
            "{left} and {right}"
        );
    }
}

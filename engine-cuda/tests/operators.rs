//! Operators whose fixtures do not fit the sizes of `cpu.rs`, on the CPU against tract. Skipped without a C++ compiler.

mod common;

use bcosc_engine_cuda::plan;
use bcosc_engine_cuda::plan::Step;
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::noise;
use common::cpu::{Case, Memory, compiler, run};
use common::{difference, reference};

const TOLERANCE: f64 = 1e-5;

/// Numbers between about -1.1 and 1.1.
fn numbers(seed: u64, dims: &[u64]) -> Tensor {
    let numbers = noise(seed, dims.iter().product());
    Tensor::f32s(dims, numbers.into_iter().map(|x| x as f32).collect())
}

/// A model with an output `y`, for inputs by name.
fn model(
    opset: i64,
    op: &str,
    inputs: &[(&str, &Tensor)],
    to: &str,
    attributes: Vec<Attribute>,
) -> Model {
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let built = inputs
        .iter()
        .fold(ModelBuilder::new(opset), |built, (name, tensor)| {
            let dims: Vec<String> = tensor.dims().iter().map(u64::to_string).collect();
            built.input(name, tensor.dtype(), &dims.join(","))
        });
    let built = built.op(op, &names, "y", attributes);
    built.output_as("y", DataType::Float, to).finish().unwrap()
}

/// Compares plans with what is expected of them.
fn check(cases: Vec<(String, Model, Tensors, Tensors)>) {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return;
    };
    let (mut planned, mut expected) = (Vec::new(), Vec::new());
    for (name, model, inputs, wanted) in cases {
        let shapes = inputs.iter().map(|(name, x)| (name.clone(), x.dims()));
        planned.push(Case {
            planned: plan(&model, &shapes.collect()).unwrap_or_else(|e| panic!("{name}: {e}")),
            name,
            inputs,
        });
        expected.push(wanted);
    }
    let found = run(compiler, &planned, Memory::Apart);
    for ((case, found), expected) in planned.iter().zip(&found).zip(&expected) {
        let (error, place) = difference(found, expected);
        assert!(error < TOLERANCE, "{}: {error:e} at {place}", case.name);
    }
}

fn named(inputs: &[(&str, &Tensor)]) -> Tensors {
    let inputs = inputs.iter();
    inputs
        .map(|(name, x)| ((*name).to_owned(), (*x).clone()))
        .collect()
}

/// A case that tract computes too.
fn against_tract(
    name: String,
    model: Model,
    inputs: &[(&str, &Tensor)],
) -> (String, Model, Tensors, Tensors) {
    let expected = reference(&model, &named(inputs));
    (name, model, named(inputs), expected)
}

#[test]
fn samples_of_a_grid_are_those_of_tract() {
    let x = numbers(1, &[2, 3, 5, 4]);
    let grid = numbers(2, &[2, 3, 7, 2]);
    let mut cases = Vec::new();
    for mode in ["nearest", "bilinear", "bicubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for corners in [0, 1] {
                // tract moves these samples to the border before it interpolates.
                if mode == "bicubic" && padding == "border" {
                    continue;
                }
                let attributes = vec![
                    Attribute::string("mode", mode),
                    Attribute::string("padding_mode", padding),
                    Attribute::int("align_corners", corners),
                ];
                let inputs = [("x", &x), ("grid", &grid)];
                let model = model(18, "GridSample", &inputs, "2,3,3,7", attributes);
                let name = format!("{mode} {padding} {corners}");
                cases.push(against_tract(name, model, &inputs));
            }
        }
    }
    // Three axes, and what is no number.
    let x = numbers(3, &[1, 2, 3, 4, 2]);
    let grid = numbers(4, &[1, 2, 2, 5, 3]);
    let inputs = [("x", &x), ("grid", &grid)];
    let linear = vec![Attribute::string("mode", "linear")];
    let volume = model(20, "GridSample", &inputs, "1,2,2,2,5", linear);
    cases.push(against_tract("volume".to_owned(), volume, &inputs));
    check(cases);
}

#[test]
fn products_with_something_added_are_those_of_tract() {
    let mut cases = Vec::new();
    for (rows, dims) in [(5, "2,5,7"), (1, "2,1,7")] {
        let [a, c] = [1, 2].map(|seed| numbers(seed, &[2, rows, 8]));
        let (b, bias) = (numbers(3, &[8, 7]), numbers(4, &[7]));
        let inputs = [("a", &a), ("b", &b), ("bias", &bias), ("c", &c)];
        let built = inputs
            .iter()
            .fold(ModelBuilder::new(17), |built, (name, x)| {
                let dims: Vec<String> = x.dims().iter().map(u64::to_string).collect();
                built.input(name, x.dtype(), &dims.join(","))
            });
        let model = built
            .op("MatMul", &["a", "b"], "ab", [])
            .op("MatMul", &["c", "b"], "cb", [])
            .op("Add", &["ab", "bias"], "biased", [])
            .op("Add", &["cb", "biased"], "y", [])
            .output_as("y", DataType::Float, dims)
            .finish()
            .unwrap();
        let shapes = named(&inputs).into_iter().map(|(name, x)| (name, x.dims()));
        let steps = plan(&model, &shapes.collect()).unwrap().plan.steps;
        let [Step::Product { .. }, Step::Product { added, .. }] = &steps[..] else {
            panic!("{steps:?}");
        };
        assert_eq!(added.operands().count(), 2);
        cases.push(against_tract(format!("{rows} rows"), model, &inputs));
    }
    check(cases);
}

#[test]
fn a_grid_with_infinities_reads_inside() {
    let x = Tensor::f32s(&[1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let far = [f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];
    let grid = Tensor::f32s(&[1, 1, 4, 2], far.iter().flat_map(|v| [*v, 0.0]).collect());
    let inputs = [("x", &x), ("grid", &grid)];
    let attributes = vec![
        Attribute::string("mode", "nearest"),
        Attribute::string("padding_mode", "border"),
    ];
    let model = model(18, "GridSample", &inputs, "1,1,1,4", attributes);
    let expected = Tensor::f32s(&[1, 1, 1, 4], vec![2.0, 1.0, 2.0, 1.0]);
    let expected = [("y".to_owned(), expected)].into();
    check(vec![("far".to_owned(), model, named(&inputs), expected)]);
}

#[test]
fn attention_is_that_of_tract() {
    // Two images, four heads of queries that share two of keys, five positions.
    let [q, k, v] = [(1, 4), (2, 2), (3, 2)].map(|(seed, heads)| numbers(seed, &[2, heads, 5, 3]));
    let mask = numbers(4, &[5, 5]);
    let plain = [("q", &q), ("k", &k), ("v", &v)];
    let with = |mask| [plain[0], plain[1], plain[2], ("mask", mask)];
    let causal = || {
        vec![
            Attribute::int("is_causal", 1),
            Attribute::float("scale", 0.7),
        ]
    };
    let mut cases = Vec::new();
    for (name, inputs, attributes) in [
        ("plain", &plain[..], vec![]),
        ("causal", &plain[..], causal()),
        ("biased", &with(&mask)[..], vec![]),
    ] {
        let model = model(23, "Attention", inputs, "2,4,5,3", attributes);
        cases.push(against_tract(name.to_owned(), model, inputs));
    }
    // tract takes masks of numbers alone.
    let seen = (0..25).map(|n| n % 3 != 1);
    let low: Vec<f32> = seen
        .clone()
        .map(|seen| if seen { 0.0 } else { -1e30 })
        .collect();
    let low = Tensor::f32s(&[5, 5], low);
    let seen: Vec<u8> = seen.map(u8::from).collect();
    let seen = Tensor::from_bytes(DataType::Bool, &[5, 5], seen.into());
    let of = |mask| model(23, "Attention", &with(mask), "2,4,5,3", vec![]);
    let expected = reference(&of(&low), &named(&with(&low)));
    cases.push((
        "masked".to_owned(),
        of(&seen),
        named(&with(&seen)),
        expected,
    ));
    let [q, k, v] = [(5, 12), (6, 6), (7, 8)].map(|(seed, all)| numbers(seed, &[2, 5, all]));
    let packed = [("q", &q), ("k", &k), ("v", &v)];
    let heads = vec![
        Attribute::int("q_num_heads", 4),
        Attribute::int("kv_num_heads", 2),
    ];
    let model = model(23, "Attention", &packed, "2,5,16", heads);
    cases.push(against_tract("packed".to_owned(), model, &packed));
    check(cases);
}

#[test]
fn capped_scores_are_those_of_the_formula() {
    let [q, k, v] = [1, 2, 3].map(|seed| numbers(seed, &[2, 3, 5, 4]));
    let inputs = [("q", &q), ("k", &k), ("v", &v)];
    let capped = vec![Attribute::float("softcap", 0.2)];
    let capped = model(23, "Attention", &inputs, "2,3,5,4", capped);
    let number = |value: f32| Tensor::f32s(&[], vec![value]);
    let built = inputs
        .iter()
        .fold(ModelBuilder::new(17), |built, (name, _)| {
            built.input(name, DataType::Float, "2,3,5,4")
        });
    let formula = built
        .param("cap", number(0.2))
        .param("scale", number(0.5 / 0.2))
        .op(
            "Transpose",
            &["k"],
            "turned",
            [Attribute::ints("perm", &[0, 1, 3, 2])],
        )
        .op("MatMul", &["q", "turned"], "products", [])
        .op("Mul", &["products", "scale"], "scaled", [])
        .op("Tanh", &["scaled"], "soft", [])
        .op("Mul", &["soft", "cap"], "scores", [])
        .op(
            "Softmax",
            &["scores"],
            "weights",
            [Attribute::int("axis", -1)],
        )
        .op("MatMul", &["weights", "v"], "y", [])
        .output_as("y", DataType::Float, "2,3,5,4")
        .finish()
        .unwrap();
    let expected = reference(&formula, &named(&inputs));
    check(vec![(
        "capped".to_owned(),
        capped,
        named(&inputs),
        expected,
    )]);
}

#[test]
fn sequences_are_reversed_up_to_their_lengths() {
    // Four times, two sequences.
    let x = Tensor::f32s(&[4, 2], (0..8).map(|n| n as f32).collect());
    let lengths = Tensor::i64s(&[2], vec![3, 1]);
    let inputs = [("x", &x), ("lengths", &lengths)];
    let model = model(10, "ReverseSequence", &inputs, "4,2", vec![]);
    let expected = vec![4.0, 1.0, 2.0, 3.0, 0.0, 5.0, 6.0, 7.0];
    let expected = [("y".to_owned(), Tensor::f32s(&[4, 2], expected))].into();
    check(vec![(
        "reversed".to_owned(),
        model,
        named(&inputs),
        expected,
    )]);
}

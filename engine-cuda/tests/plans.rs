//! Plans of small graphs: what they look like, and what holds for all of them.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_engine::{EngineError, InputShapes, Precision};
use bcosc_engine_cuda::plan::{Place, Plan, Step};
use bcosc_engine_cuda::program::Layout;
use bcosc_engine_cuda::{Planned, plan, plan_in};
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor};
use proptest::prelude::*;

fn shapes(named: &[(&str, &[u64])]) -> InputShapes {
    named
        .iter()
        .map(|(name, dims)| ((*name).to_owned(), dims.to_vec()))
        .collect()
}

fn planned(model: &Model, named: &[(&str, &[u64])]) -> Planned {
    plan(model, &shapes(named)).unwrap()
}

/// The kernels' text, then the plan without it.
fn shown(plan: &Plan) -> String {
    let text: String = plan
        .kernels
        .iter()
        .map(|kernel| format!("{}\n", kernel.text))
        .collect();
    let mut short = plan.clone();
    short
        .kernels
        .iter_mut()
        .for_each(|kernel| kernel.text.clear());
    format!("{text}{}", short.to_json().unwrap())
}

#[test]
fn a_softmax_is_one_kernel_with_what_comes_before_and_after() {
    let model = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,40")
        .param(
            "bias",
            Tensor::f32s(&[40], (0..40).map(|n| n as f32).collect()),
        )
        .op("Add", &["x", "bias"], "biased", [])
        .op(
            "Softmax",
            &["biased"],
            "shares",
            [Attribute::int("axis", -1)],
        )
        .op("Sqrt", &["shares"], "y", [])
        .output_as("y", DataType::Float, "batch,40")
        .finish()
        .unwrap();
    insta::assert_snapshot!(shown(&planned(&model, &[("x", &[300, 40])]).plan));
}

#[test]
fn a_layer_with_its_gradient_and_update_in_place() {
    let model = ModelBuilder::new(17)
        .input("x", DataType::Float, "8,6,9,9")
        .input("w", DataType::Float, "4,6,3,3")
        .op("Conv", &["x", "w"], "z", [])
        .op("Relu", &["z"], "y", [])
        .op(
            "ReduceMean",
            &["y"],
            "loss",
            [Attribute::int("keepdims", 0)],
        )
        .op("Mul", &["w", "loss"], "scaled", [])
        .op("Sub", &["w", "scaled"], "w.next", [])
        .output_as("loss", DataType::Float, "")
        .output_as("w.next", DataType::Float, "4,6,3,3")
        .finish()
        .unwrap();
    let dims: [(&str, &[u64]); 2] = [("x", &[8, 6, 9, 9]), ("w", &[4, 6, 3, 3])];
    let planned = planned(&model, &dims);
    insta::assert_snapshot!(shown(&planned.plan));
    let again: Plan = serde_json::from_str(&planned.plan.to_json().unwrap()).unwrap();
    assert_eq!(again, planned.plan);
}

#[test]
fn parameters_of_any_size_are_updated_by_one_kernel() {
    let sizes = [("a", "40,6"), ("b", "7,9"), ("c", "33")];
    let mut built = ModelBuilder::new(17).input("rate", DataType::Float, "");
    for (name, dims) in sizes {
        let [gradient, change, next] = ["d", "change.", ""].map(|before| format!("{before}{name}"));
        let next = format!("{next}.next");
        built = built
            .input(name, DataType::Float, dims)
            .input(&gradient, DataType::Float, dims)
            .op("Mul", &[&gradient, "rate"], &change, [])
            .op("Sub", &[name, &change], &next, [])
            .output_as(&next, DataType::Float, dims);
    }
    let dims: [(&str, &[u64]); 7] = [
        ("rate", &[]),
        ("a", &[40, 6]),
        ("da", &[40, 6]),
        ("b", &[7, 9]),
        ("db", &[7, 9]),
        ("c", &[33]),
        ("dc", &[33]),
    ];
    let plan = planned(&built.finish().unwrap(), &dims).plan;
    let [Step::Launch { arguments, .. }] = &plan.steps[..] else {
        panic!("{:?}", plan.steps);
    };
    // New values over the old ones, gradients, and the rate for all.
    let kernel = &plan.kernels[0];
    assert_eq!((kernel.writes, kernel.table, arguments.len()), (3, 6, 7));
    let in_place = |&buffer: &usize| matches!(plan.buffers[buffer].place, Place::Within(_));
    assert!(arguments[..3].iter().all(in_place));
    insta::assert_snapshot!(kernel.text);
}

/// Steps of a plan by kind, and how much is added to products.
fn kinds(ops: &[(&str, [&str; 2], &str)], bias: &str, outputs: &[&str]) -> (String, usize) {
    let mut built = ModelBuilder::new(17)
        .input("a", DataType::Float, "5,6,8")
        .input("b", DataType::Float, "8,7")
        .input("bias", DataType::Float, bias)
        .input("state", DataType::Float, "5,6,7")
        .op("MatMul", &["a", "b"], "ab", []);
    for (op, operands, result) in ops {
        built = built.op(op, &operands[..], result, []);
    }
    for output in outputs {
        built = built.output_as(output, DataType::Float, "5,6,7");
    }
    let bias: Vec<u64> = bias.split(',').map(|size| size.parse().unwrap()).collect();
    let dims: [(&str, &[u64]); 4] = [
        ("a", &[5, 6, 8]),
        ("b", &[8, 7]),
        ("bias", &bias),
        ("state", &[5, 6, 7]),
    ];
    let plan = planned(&built.finish().unwrap(), &dims).plan;
    let kinds = plan.steps.iter().map(|step| match step {
        Step::Product { .. } => "product",
        Step::Convolution { .. } => "convolution",
        Step::Launch { .. } => "kernel",
        Step::Copy { .. } => "copy",
    });
    let added = plan.steps.iter().map(|step| match step {
        Step::Product { added, .. } => added.operands().count(),
        _ => 0,
    });
    (kinds.collect::<Vec<_>>().join(", "), added.sum())
}

/// A second product.
const OTHER: (&str, [&str; 2], &str) = ("MatMul", ["a", "b"], "other");

#[test]
fn a_product_adds_a_bias_and_a_sum_of_its_size() {
    let one = |text: &str, added| (text.to_owned(), added);
    let biased = ("Add", ["bias", "ab"], "y");
    assert_eq!(kinds(&[biased], "7", &["y"]), one("product", 1));
    let both = [
        OTHER,
        ("Add", ["ab", "bias"], "biased"),
        ("Add", ["other", "biased"], "y"),
    ];
    assert_eq!(kinds(&both, "1,7", &["y"]), one("product, product", 2));
    let residual = [OTHER, ("Add", ["ab", "other"], "y")];
    assert_eq!(kinds(&residual, "7", &["y"]), one("product, product", 1));
}

#[test]
fn a_product_does_not_add_what_the_library_cannot_add() {
    let apart = |found: (String, usize)| {
        assert!(found.0.ends_with("kernel") && found.1 == 0, "{found:?}");
    };
    let biased = ("Add", ["ab", "bias"], "y");
    // One number per row, per matrix, or for all.
    for bias in ["6,1", "5,1,1", "1"] {
        apart(kinds(&[biased], bias, &["y"]));
    }
    // The product is needed without the bias.
    apart(kinds(&[biased], "7", &["y", "ab"]));
    // A difference; what a kernel can write over; more than the library adds.
    apart(kinds(&[("Sub", ["ab", "bias"], "y")], "7", &["y"]));
    apart(kinds(&[("Add", ["ab", "state"], "y")], "7", &["y"]));
    let twice = [
        OTHER,
        ("Add", ["ab", "other"], "once"),
        ("Add", ["once", "other"], "y"),
    ];
    apart(kinds(&twice, "7", &["y"]));
}

/// Two convolutions with a rectifier between them.
fn two_convolutions() -> Model {
    let weight = |seed: u64| {
        let numbers = bcosc_testing::noise(seed, 8 * 8 * 9);
        Tensor::f32s(&[8, 8, 3, 3], numbers.iter().map(|x| *x as f32).collect())
    };
    let pads = || [Attribute::ints("pads", &[1, 1, 1, 1])];
    ModelBuilder::new(17)
        .input("x", DataType::Float, "2,8,9,9")
        .param("v", weight(1))
        .param("w", weight(2))
        .op("Conv", &["x", "v"], "a", pads())
        .op("Relu", &["a"], "b", [])
        .op("Conv", &["b", "w"], "y", pads())
        .output_as("y", DataType::Float, "2,8,9,9")
        .finish()
        .unwrap()
}

#[test]
fn only_what_comes_from_outside_is_copied_into_the_layout_of_libraries() {
    let shapes = shapes(&[("x", &[2, 8, 9, 9])]);
    // The rectifier; then also the image, and the output.
    for (precision, launches) in [
        (Precision::Fp32, 1),
        (Precision::Tf32, 3),
        (Precision::Bf16, 3),
    ] {
        let plan = plan_in(&two_convolutions(), &shapes, precision)
            .unwrap()
            .plan;
        assert_eq!(plan.precision, precision);
        let (mut found, mut layouts) = (0, Vec::new());
        for step in &plan.steps {
            match step {
                Step::Launch { .. } => found += 1,
                Step::Convolution { convolution, .. } => layouts.push(convolution.layout),
                other => panic!("{other:?}"),
            }
        }
        let wanted = match precision {
            Precision::Fp32 => Layout::ChannelsFirst,
            Precision::Tf32 | Precision::Bf16 => Layout::ChannelsLast,
        };
        assert_eq!((found, layouts), (launches, vec![wanted; 2]), "{precision}");
        sound(&plan).unwrap();
    }
}

#[test]
fn what_has_no_kernel_is_named() {
    let model = ModelBuilder::new(17)
        .input("x", DataType::Float, "3,3")
        .op("Det", &["x"], "d", [])
        .op("Bernoulli", &["x"], "h", [])
        .op("Add", &["h", "d"], "y", [])
        .output_as("y", DataType::Float, "3,3")
        .finish()
        .unwrap();
    let error = plan(&model, &shapes(&[("x", &[3, 3])])).unwrap_err();
    assert!(matches!(&error, EngineError::Unsupported(parts) if parts.len() == 2));
    insta::assert_snapshot!(
        error,
        @"node `d` (Det): there is no kernel for this operator; node `h` (Bernoulli): there is no kernel for this operator"
    );
}

#[test]
fn constants_are_computed_once() {
    let model = ModelBuilder::new(17)
        .input("x", DataType::Float, "2,400000")
        .param(
            "w",
            Tensor::f32s(&[400_000], (0..400_000).map(|n| n as f32).collect()),
        )
        .op("Exp", &["w"], "e", [])
        .op("Sin", &["e"], "s", [])
        .op("Mul", &["x", "s"], "y", [])
        .output_as("y", DataType::Float, "2,400000")
        .finish()
        .unwrap();
    let plan = planned(&model, &[("x", &[2, 400_000])]).plan;
    assert_eq!((plan.prepare.len(), plan.steps.len()), (1, 1));
}

/// What must hold for every plan.
fn sound(plan: &Plan) -> Result<(), TestCaseError> {
    let given = plan
        .inputs
        .iter()
        .chain(&plan.constants)
        .map(|binding| binding.buffer);
    let mut written: BTreeSet<usize> = given.collect();
    // Where each buffer's numbers are last needed.
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for (n, step) in plan.steps.iter().enumerate() {
        for read in step.reads(&plan.kernels) {
            last.insert(read, n);
        }
    }
    for output in &plan.outputs {
        last.insert(output.buffer, plan.steps.len());
    }
    // The numbers that are in the arena and still needed.
    let mut live: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for step in &plan.prepare {
        prop_assert!(
            step.reads(&plan.kernels)
                .iter()
                .all(|read| written.contains(read))
        );
        written.extend(step.writes(&plan.kernels));
    }
    for (n, step) in plan.steps.iter().enumerate() {
        for read in step.reads(&plan.kernels) {
            prop_assert!(
                written.contains(&read),
                "step {} reads {} too early",
                n,
                read
            );
        }
        for write in step.writes(&plan.kernels) {
            let buffer = &plan.buffers[write];
            if let Place::Arena(start) = buffer.place {
                let end = start + buffer.bytes();
                prop_assert!(end <= plan.arena);
                for (other, (from, to)) in &live {
                    prop_assert!(
                        end <= *from || *to <= start,
                        "step {}: {} is over {}",
                        n,
                        write,
                        other
                    );
                }
                live.insert(write, (start, end));
            }
            written.insert(write);
        }
        // Buffers that nobody reads later are free from the next step on.
        live.retain(|buffer, _| last.get(buffer).is_some_and(|&last| last > n));
        // Nothing but kernels, libraries and copies on the device: all of it can be captured.
        let captured = matches!(
            step,
            Step::Launch { .. }
                | Step::Convolution { .. }
                | Step::Product { .. }
                | Step::Copy { .. }
        );
        prop_assert!(captured);
    }
    for output in &plan.outputs {
        prop_assert!(
            written.contains(&output.buffer),
            "{} is not computed",
            output.name
        );
    }
    Ok(())
}

/// Operators that a random graph is made of, and how many operands they have.
const OPERATORS: [(&str, usize); 9] = [
    ("Relu", 1),
    ("Exp", 1),
    ("Softmax", 1),
    ("Add", 2),
    ("Mul", 2),
    ("Div", 2),
    ("MatMul", 2),
    ("ReduceMean", 1),
    ("Transpose", 1),
];

fn random(drawn: &[(usize, usize, usize)], outputs: &[usize]) -> Model {
    let mut builder = ModelBuilder::new(17)
        .input("v0", DataType::Float, "24,24")
        .input("v1", DataType::Float, "24,24")
        .param(
            "v2",
            Tensor::f32s(&[24, 24], (0..576).map(|n| n as f32).collect()),
        );
    let mut count = 3;
    for &(operator, a, b) in drawn {
        let (name, operands) = OPERATORS[operator % OPERATORS.len()];
        let operand = |n: usize| format!("v{}", n % count);
        let names = [operand(a), operand(b)];
        let names: Vec<&str> = names.iter().take(operands).map(String::as_str).collect();
        let result = format!("v{count}");
        if name == "ReduceMean" {
            // Back to the full shape, so that everything fits everything.
            let row = format!("row{count}");
            builder = builder.op(name, &names, &row, [Attribute::ints("axes", &[1])]);
            builder = builder.op("Sub", &[names[0], &row], &result, []);
        } else {
            builder = builder.op(name, &names, &result, []);
        }
        count += 1;
    }
    let mut wanted: BTreeSet<usize> = outputs.iter().map(|n| 3 + n % drawn.len()).collect();
    wanted.insert(count - 1);
    for output in wanted {
        builder = builder.output_as(&format!("v{output}"), DataType::Float, "24,24");
    }
    builder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_random_graphs_are_sound(
        drawn in proptest::collection::vec((0usize..9, 0usize..40, 0usize..40), 1..24),
        outputs in proptest::collection::vec(0usize..40, 0..3),
    ) {
        let model = random(&drawn, &outputs);
        let dims: [(&str, &[u64]); 2] = [("v0", &[24, 24]), ("v1", &[24, 24])];
        for precision in Precision::ALL {
            sound(&plan_in(&model, &shapes(&dims), precision).unwrap().plan)?;
        }
    }
}

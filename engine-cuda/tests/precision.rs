//! Plans in TF32 and bf16, on the CPU: where values lie in memory, and how they are rounded. Skipped without a C++ compiler.
//!
//! The loops in the place of libraries do not round to TF32, so these plans give single precision's numbers, whatever order
//! images are in.

mod common;

use bcosc_engine::Precision;
use bcosc_engine_cuda::plan_in;
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::noise;
use common::cpu::{Case, Memory, compiler, computed, run};
use common::{Graph, difference, graph, inputs, reference, shapes};
use half::bf16;

fn case(name: String, model: &Model, inputs: &Tensors, precision: Precision) -> Case {
    let shapes = inputs.iter().map(|(name, x)| (name.clone(), x.dims()));
    Case {
        name,
        planned: plan_in(model, &shapes.collect(), precision).unwrap(),
        inputs: inputs.clone(),
    }
}

/// The largest error of each case relative to the range of an output.
fn errors(cases: Vec<(Case, Tensors)>, memory: Memory) -> Option<Vec<f64>> {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return None;
    };
    let (cases, expected): (Vec<Case>, Vec<Tensors>) = cases.into_iter().unzip();
    let found = run(compiler, &cases, memory);
    let found = cases.iter().zip(&found).zip(&expected);
    let found = found.map(|((case, found), expected)| {
        let (error, place) = difference(found, expected);
        eprintln!("{}: {error:e} at {place}", case.name);
        error
    });
    Some(found.collect())
}

fn networks(pairs: &[(&str, Graph)], precision: Precision, memory: Memory) -> Vec<(Case, Tensors)> {
    let cases = pairs.iter().map(|&(network, kind)| {
        let (model, standard) = graph(network, kind);
        let mut inputs = inputs(&model, &shapes(&model, 3, 32));
        // Then 0.1 times the gradients are what the optimiser keeps.
        for (_, kept) in inputs
            .iter_mut()
            .filter(|(name, _)| name.ends_with(".exp_avg"))
        {
            *kept = Tensor::f32s(&kept.dims(), vec![0.0; kept.len() as usize]);
        }
        let expected = reference(&standard, &inputs);
        let name = format!("{network} {kind:?} {precision} {}", memory == Memory::Apart);
        (case(name, &model, &inputs, precision), expected)
    });
    cases.collect()
}

#[test]
fn channels_last_gives_the_numbers_of_tract() {
    let pairs = [
        ("resnet_tiny_grouped", Graph::Forward),
        ("densenet_tiny", Graph::Explanation),
        ("clip_rn_tiny", Graph::Forward),
    ];
    let cases = networks(&pairs, Precision::Tf32, Memory::Apart);
    let Some(errors) = errors(cases, Memory::Apart) else {
        return;
    };
    assert!(errors.iter().all(|error| *error < 1e-4), "{errors:?}");
}

#[test]
fn training_steps_with_channels_last_give_the_numbers_of_tract() {
    let pairs = ["resnet_tiny", "densenet_tiny", "vitc_tiny"].map(|name| (name, Graph::Step));
    let cases = networks(&pairs, Precision::Tf32, Memory::Planned);
    let Some(errors) = errors(cases, Memory::Planned) else {
        return;
    };
    assert!(errors.iter().all(|error| *error < 1e-4), "{errors:?}");
}

/// Each of them rounded.
fn rounded(tensor: &Tensor) -> Tensor {
    let numbers = tensor.to_f64s().unwrap();
    let numbers = numbers.iter().map(|x| bf16::from_f32(*x as f32).to_f32());
    Tensor::f32s(&tensor.dims(), numbers.collect())
}

#[test]
fn numbers_are_rounded_to_bf16_as_half_does_it() {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return;
    };
    // Every upper half, and lower halves on both sides of a tie: zeros, subnormal numbers, infinities and NaNs among them.
    let low = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let all = (0..1u32 << 16).flat_map(|high| low.map(|low| high << 16 | low));
    let numbers: Vec<f32> = all.map(f32::from_bits).collect();
    let data: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let body = format!(
        "for (int n = 0; n < {}; ++n) {{ float x; read_exactly(data, (char*)&x, 4); const bf16 y = x;\n\
         const float z = y; std::fwrite(&y, 1, 2, results); std::fwrite(&z, 1, 4, results); }}",
        numbers.len()
    );
    let found = computed(compiler, &body, &data);
    let (found, _) = found.as_chunks::<6>();
    assert_eq!(found.len(), numbers.len());
    for (x, [a, b, wide @ ..]) in numbers.iter().zip(found) {
        let expected = bf16::from_f32(*x);
        let found = u16::from_le_bytes([*a, *b]);
        assert_eq!(found, expected.to_bits(), "{x:?} {:08x}", x.to_bits());
        assert_eq!(u32::from_le_bytes(*wide), u32::from(found) << 16);
    }
}

/// A convolution, its result scaled, and a product with few results.
fn small() -> Model {
    ModelBuilder::new(17)
        .input("x", DataType::Float, "3,5,9,7")
        .input("w", DataType::Float, "6,5,3,3")
        .input("v", DataType::Float, "6,1")
        .op("Relu", &["x"], "positive", [])
        .op(
            "Conv",
            &["positive", "w"],
            "y",
            [Attribute::ints("pads", &[1, 1, 1, 1])],
        )
        .op("GlobalAveragePool", &["y"], "mean", [])
        .op("Flatten", &["mean"], "flat", [])
        .op("MatMul", &["flat", "v"], "z", [])
        .output_as("y", DataType::Float, "3,6,9,7")
        .output_as("z", DataType::Float, "3,1")
        .finish()
        .unwrap()
}

#[test]
fn libraries_read_and_write_rounded_numbers() {
    let model = small();
    let tensor = |seed: u64, dims: &[u64]| {
        let numbers = noise(seed, dims.iter().product());
        Tensor::f32s(dims, numbers.iter().map(|x| *x as f32).collect())
    };
    let inputs: Tensors = [
        ("x".to_owned(), tensor(1, &[3, 5, 9, 7])),
        ("w".to_owned(), tensor(2, &[6, 5, 3, 3])),
        ("v".to_owned(), tensor(3, &[6, 1])),
    ]
    .into();
    let narrow: Tensors = inputs
        .iter()
        .map(|(n, x)| (n.clone(), rounded(x)))
        .collect();
    let exact = reference(&model, &narrow);
    let expected: Tensors = [("y".to_owned(), rounded(&exact["y"]))].into();
    let case = case("small".to_owned(), &model, &inputs, Precision::Bf16);
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return;
    };
    let found = run(compiler, &[case], Memory::Apart).remove(0);
    // Sums in another order may round to the next number, which is one part in 256 away.
    let of_y = Tensors::from([("y".to_owned(), found["y"].clone())]);
    let (error, place) = difference(&of_y, &expected);
    assert!(error < 1.0 / 256.0, "{error:e} at {place}");
    let [y, z] = ["y", "z"].map(|name| &found[name]);
    assert_eq!(y, &rounded(y), "results are rounded");
    let (numbers, nearest) = (y.to_f32s().unwrap(), expected["y"].to_f32s().unwrap());
    let same = numbers
        .iter()
        .zip(&*nearest)
        .filter(|(a, b)| a == b)
        .count();
    assert!(
        20 * same > 19 * numbers.len(),
        "{same} of {} are the nearest",
        numbers.len()
    );
    for (z, exact) in z
        .to_f32s()
        .unwrap()
        .iter()
        .zip(&*exact["z"].to_f32s().unwrap())
    {
        assert!((z - exact).abs() < exact.abs() / 128.0, "{z}, not {exact}");
    }
    assert_ne!(z, &rounded(z), "small results are not");
}

#[test]
fn networks_in_bf16_are_close_to_tract() {
    let pairs = [
        ("resnet_tiny", Graph::Forward),
        ("vitc_tiny", Graph::Forward),
        ("resnet_tiny_grouped", Graph::Explanation),
        ("vit_tiny", Graph::Step),
        ("resnet_tiny", Graph::Step),
    ];
    let cases = networks(&pairs, Precision::Bf16, Memory::Planned);
    let Some(errors) = errors(cases, Memory::Planned) else {
        return;
    };
    eprintln!("{errors:?}");
    assert!(errors.iter().all(|error| *error < 0.05), "{errors:?}");
}

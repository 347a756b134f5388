//! Every kernel of the golden networks compiles by NVRTC; skipped where there is none.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bcosc_engine::Precision;
use bcosc_engine_cuda::plan::Source;
use bcosc_engine_cuda::plan_in;
use bcosc_engine_cuda::runtime::{Architecture, Compiler};
use common::{Graph, NETWORKS, graph, shapes};

/// The architecture that every kernel is compiled for.
const ALL: Architecture = Architecture(90);
/// The other architectures that the engine is for. Kernels have nothing that depends on the architecture, so a sample shows
/// whether its compiler takes them.
const SAMPLED: [Architecture; 6] = [
    Architecture(70),
    Architecture(75),
    Architecture(80),
    Architecture(86),
    Architecture(89),
    Architecture(100),
];
/// One kernel of so many is in a sample, and others for the next architecture.
const STRIDE: usize = 12;
/// Kernels that are compiled together.
const TOGETHER: usize = 16;

#[test]
fn kernels_compile_for_every_architecture() {
    let compiler = match Compiler::new() {
        Ok(compiler) => compiler,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let kernels = kernels();
    let mut work = Vec::new();
    let known = |architecture: Architecture| {
        let known = compiler.architectures().contains(&architecture);
        if !known {
            eprintln!("skipped: this NVRTC does not know {architecture:?}");
        }
        known
    };
    for (precision, kernels) in &kernels {
        if known(ALL) {
            let parts = kernels.chunks(TOGETHER);
            work.extend(parts.map(|part| (ALL, *precision, joined(part.iter()))));
        }
        for (number, architecture) in SAMPLED.into_iter().enumerate() {
            if known(architecture) {
                let sample = kernels.iter().skip(number).step_by(STRIDE);
                work.push((architecture, *precision, joined(sample)));
            }
        }
    }
    assert!(!work.is_empty(), "this NVRTC knows no architecture");
    // The largest first.
    work.sort_by_key(|(.., source)| std::cmp::Reverse(source.text.len()));
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((to, precision, source)) =
                    work.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let code = compiler.compile(source, *to, *precision);
                    match code {
                        Ok(code) => assert!(!code.is_empty(), "{to:?} {precision}"),
                        Err(error) => panic!("{to:?} {precision}: {error}"),
                    }
                }
            });
        }
    });
}

/// What the golden networks need, each kernel once. Those for TF32 are left out: they differ in the order of elements alone.
fn kernels() -> BTreeMap<Precision, Vec<Source>> {
    let mut kernels: BTreeMap<(Precision, String), Source> = BTreeMap::new();
    for network in NETWORKS {
        for kind in Graph::ALL {
            let (model, _) = graph(network, kind);
            // An odd batch, and one whose elements come in fours.
            let all = [
                (3, Precision::Fp32),
                (8, Precision::Fp32),
                (8, Precision::Bf16),
            ];
            for (batch, precision) in all {
                let planned = plan_in(&model, &shapes(&model, batch, 32), precision).unwrap();
                let found = planned.plan.kernels.into_iter();
                kernels.extend(found.map(|kernel| ((precision, kernel.name.clone()), kernel)));
            }
        }
    }
    let mut found: BTreeMap<Precision, Vec<Source>> = BTreeMap::new();
    for ((precision, _), kernel) in kernels {
        found.entry(precision).or_default().push(kernel);
    }
    found
}

/// Several kernels as one text.
fn joined<'a>(kernels: impl Iterator<Item = &'a Source>) -> Source {
    Source {
        name: "all".to_owned(),
        text: kernels.map(|kernel| kernel.text.as_str()).collect(),
        parameters: Vec::new(),
        writes: 0,
        table: 0,
        syncs: false,
    }
}

#[test]
fn what_does_not_compile_is_an_error_with_the_compilers_message() {
    let Ok(compiler) = Compiler::new() else {
        eprintln!("skipped: there is no NVRTC");
        return;
    };
    let broken = Source {
        name: "broken".to_owned(),
        text: "extern \"C\" __global__ void broken() { nothing(); }".to_owned(),
        parameters: Vec::new(),
        writes: 0,
        table: 0,
        syncs: false,
    };
    let error = compiler
        .compile(&broken, Architecture(80), Precision::Fp32)
        .unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
}

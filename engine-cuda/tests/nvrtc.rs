//! Every kernel of the golden networks compiles by NVRTC; skipped where there is none.

mod common;

use std::collections::BTreeMap;

use bcosc_engine_cuda::plan;
use bcosc_engine_cuda::plan::Source;
use bcosc_engine_cuda::runtime::{Architecture, Compiler};
use common::{Graph, NETWORKS, graph, shapes};

/// The architectures that the engine is for.
const ARCHITECTURES: [u32; 7] = [70, 75, 80, 86, 89, 90, 100];

#[test]
fn kernels_compile_for_every_architecture() {
    let compiler = match Compiler::new() {
        Ok(compiler) => compiler,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let mut kernels: BTreeMap<String, Source> = BTreeMap::new();
    for network in NETWORKS {
        for kind in Graph::ALL {
            let (model, _) = graph(network, kind);
            // An odd batch, and one whose elements come in fours.
            for batch in [3, 8] {
                let planned = plan(&model, &shapes(&model, batch, 32)).unwrap();
                let found = planned.plan.kernels.into_iter();
                kernels.extend(found.map(|kernel| (kernel.name.clone(), kernel)));
            }
        }
    }
    let whole = Source {
        name: "all".to_owned(),
        text: kernels
            .values()
            .map(|kernel| kernel.text.as_str())
            .collect(),
        parameters: Vec::new(),
        writes: 0,
        syncs: false,
    };
    let mut compiled = 0;
    for architecture in ARCHITECTURES.map(Architecture) {
        if !compiler.architectures().contains(&architecture) {
            eprintln!("skipped: this NVRTC does not know {architecture:?}");
            continue;
        }
        let code = compiler.compile(&whole, architecture).unwrap();
        assert!(!code.is_empty());
        compiled += 1;
    }
    eprintln!("{} kernels, {compiled} architectures", kernels.len());
    assert!(compiled > 0);
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
        syncs: false,
    };
    let error = compiler.compile(&broken, Architecture(80)).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
}

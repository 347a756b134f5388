//! Plans on the CPU: kernels through a C++ compiler, libraries as plain loops.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use bcosc_engine_cuda::Planned;
use bcosc_engine_cuda::kernels::PRELUDE;
use bcosc_engine_cuda::plan::{Place, Plan, Step};
use bcosc_engine_cuda::program::{Convolution, Direction, Factor, Layout, Product};
use bcosc_ir::{Tensor, Tensors};

const SHIM: &str = concat!(
    include_str!("cuda.h"),
    include_str!("threads.h"),
    include_str!("shim.h")
);

/// Whether there is a C++ compiler, and whether its sanitizers work.
pub fn compiler() -> Option<&'static str> {
    let works = |name: &&str| {
        Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    };
    ["g++", "c++", "clang++"].into_iter().find(works)
}

/// A plan with its inputs.
pub struct Case {
    pub name: String,
    pub planned: Planned,
    pub inputs: Tensors,
}

/// How memory is laid out.
#[derive(Clone, Copy, PartialEq)]
pub enum Memory {
    /// Every buffer has its own, and a sanitizer looks on.
    Apart,
    /// As the plan says.
    Planned,
}

/// Runs plans; the outputs of each, by name.
pub fn run(compiler: &str, cases: &[Case], memory: Memory) -> Vec<Tensors> {
    outputs(
        cases,
        &ran(compiler, &text(cases, memory), &bytes(cases), memory),
    )
}

/// Runs statements that read `data` and write `results`, with what kernels use before them.
pub fn computed(compiler: &str, statements: &str, data: &[u8]) -> Vec<u8> {
    let text = format!("{SHIM}\n{PRELUDE}\n{}{statements}{}", head(), tail());
    ran(compiler, &text, data, Memory::Apart)
}

/// Compiles a program and runs it; what it wrote.
fn ran(compiler: &str, text: &str, given: &[u8], memory: Memory) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let [source, program, data, results] =
        ["cases.cpp", "cases", "data.bin", "results.bin"].map(|name| folder.path().join(name));
    std::fs::write(&source, text).unwrap();
    std::fs::write(&data, given).unwrap();
    let mut build = Command::new(compiler);
    build
        .args(["-std=c++17", "-w", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(&source);
    match memory {
        Memory::Apart => build.args([
            "-O1",
            "-g1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]),
        // The compiler takes longer than the kernels.
        Memory::Planned => build.arg("-O0"),
    };
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", shortened(&built.stderr));
    let ran = Command::new(&program)
        .args([&data, &results])
        .env(
            "ASAN_OPTIONS",
            "detect_leaks=0:detect_stack_use_after_return=0",
        )
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", shortened(&ran.stderr));
    std::fs::read(&results).unwrap()
}

fn head() -> &'static str {
    "int main(int, char** names) {\n    FILE* data = std::fopen(names[1], \"rb\");\n    \
     FILE* results = std::fopen(names[2], \"wb\");\n"
}

fn tail() -> &'static str {
    "    std::fclose(results);\n}\n"
}

/// The end of what a compiler or a program said, without the cases that went well.
fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines
        .iter()
        .rposition(|line| line.starts_with("case "))
        .unwrap_or(0);
    lines[last..]
        .iter()
        .take(60)
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

fn text(cases: &[Case], memory: Memory) -> String {
    let mut text = format!("{SHIM}\n{PRELUDE}");
    let mut seen = BTreeSet::new();
    for case in cases {
        for kernel in &case.planned.plan.kernels {
            if seen.insert(&kernel.name) {
                text.push_str(&kernel.text);
            }
        }
    }
    for (n, case) in cases.iter().enumerate() {
        let plan = &case.planned.plan;
        let _ = writeln!(
            text,
            "static void case_{n}(FILE* data, FILE* results) {{\n    Buffers b;"
        );
        let _ = writeln!(text, "    b.at.resize({});", plan.buffers.len());
        if memory == Memory::Planned {
            let (arena, prepared) = (plan.arena, plan.prepared);
            let _ = writeln!(
                text,
                "    char* arena = b.claim({arena});\n    char* prepared = b.claim({prepared});"
            );
        }
        for (id, buffer) in plan.buffers.iter().enumerate() {
            let place = match (buffer.place, memory) {
                (Place::Within(other), _) => format!("b.at[{other}]"),
                (Place::Arena(at), Memory::Planned) => format!("arena + {at}"),
                (Place::Prepared(at), Memory::Planned) => format!("prepared + {at}"),
                _ => format!("b.claim({})", buffer.bytes()),
            };
            let _ = writeln!(text, "    b.at[{id}] = {place};");
        }
        for binding in plan.constants.iter().chain(&plan.inputs) {
            let size = plan.buffers[binding.buffer].bytes();
            let _ = writeln!(
                text,
                "    read_exactly(data, b.at[{}], {size});",
                binding.buffer
            );
        }
        for step in plan.prepare.iter().chain(&plan.steps) {
            let _ = writeln!(text, "    {}", of_step(plan, step));
        }
        for binding in &plan.outputs {
            let size = plan.buffers[binding.buffer].bytes();
            let _ = writeln!(
                text,
                "    std::fwrite(b.at[{}], 1, {size}, results);",
                binding.buffer
            );
        }
        text.push_str("}\n");
    }
    text.push_str(head());
    for (n, case) in cases.iter().enumerate() {
        let _ = writeln!(
            text,
            "    std::fprintf(stderr, \"case {}\\n\"); case_{n}(data, results);",
            case.name
        );
    }
    text.push_str(tail());
    text
}

fn of_step(plan: &Plan, step: &Step) -> String {
    let ty = |buffer: usize| plan.buffers[buffer].ty.c();
    match step {
        Step::Launch {
            kernel,
            blocks,
            arguments,
        } => {
            let kernel = &plan.kernels[*kernel];
            let (table, others) = arguments.split_at(kernel.table);
            let types = &kernel.parameters[kernel.table..];
            let pointers = others.iter().zip(types);
            let pointers = pointers.map(|(buffer, ty)| format!("({}*)b.at[{buffer}]", ty.c()));
            let table: Vec<String> = table.iter().map(|b| format!("b.at[{b}]")).collect();
            let table = match table.is_empty() {
                true => None,
                false => Some(format!("{}_table{{{{{}}}}}", kernel.name, table.join(", "))),
            };
            let arguments: Vec<String> = table.into_iter().chain(pointers).collect();
            let call = format!("{}({})", kernel.name, arguments.join(", "));
            format!("launch({blocks}, {}, [&] {{ {call}; }});", kernel.syncs)
        }
        Step::Convolution {
            convolution,
            operands: [a, b],
            result,
        } => {
            let (window, direction) = window(convolution);
            let t = ty(*result);
            format!(
                "convolve(Window{{{window}}}, {direction}, ({t}*)b.at[{a}], ({t}*)b.at[{b}], ({t}*)b.at[{result}]);"
            )
        }
        Step::Product {
            product,
            operands: [a, b],
            added,
            result,
        } => {
            let Product {
                batch,
                m,
                n,
                k,
                a: fa,
                b: fb,
            } = product;
            let factor = |f: &Factor| {
                format!(
                    "Factor{{{}, {}, {}, {}}}",
                    f.offset, f.batch, f.row, f.column
                )
            };
            let t = ty(*result);
            let given = |buffer: Option<usize>| match buffer {
                Some(buffer) => format!("({t}*)b.at[{buffer}]"),
                None => format!("({t}*)nullptr"),
            };
            format!(
                "multiply({batch}L, {m}L, {n}L, {k}L, {}, {}, ({of}*)b.at[{a}], ({of}*)b.at[{b}], {}, {}, ({t}*)b.at[{result}]);",
                factor(fa),
                factor(fb),
                given(added.bias),
                given(added.sum),
                of = ty(*a)
            )
        }
        Step::Copy { from, to } => {
            format!(
                "std::memcpy(b.at[{to}], b.at[{from}], {});",
                plan.buffers[*from].bytes()
            )
        }
    }
}

fn window(c: &Convolution) -> (String, u32) {
    let three = |values: &[u64], fill: u64| {
        let mut all = vec![fill; 3 - values.len()];
        all.extend_from_slice(values);
        let all: Vec<String> = all.iter().map(u64::to_string).collect();
        format!("{{{}}}", all.join(", "))
    };
    let direction = match c.direction {
        Direction::Forward => 0,
        Direction::InputGradient => 1,
        Direction::WeightGradient => 2,
    };
    let window = format!(
        "{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}",
        c.x[0],
        c.x[1],
        c.w[0],
        c.groups,
        three(&c.x[2..], 1),
        three(&c.w[2..], 1),
        three(&c.y[2..], 1),
        three(&c.pads, 0),
        three(&c.strides, 1),
        three(&c.dilations, 1),
        c.layout == Layout::ChannelsLast
    );
    (window, direction)
}

/// Constants, then inputs, of each case.
fn bytes(cases: &[Case]) -> Vec<u8> {
    let mut all = Vec::new();
    for case in cases {
        for constant in &case.planned.constants {
            all.extend_from_slice(&constant.bytes().unwrap());
        }
        for input in &case.planned.plan.inputs {
            let tensor = &case.inputs[&input.name];
            assert_eq!(tensor.dims(), input.dims, "{}: {}", case.name, input.name);
            all.extend_from_slice(&tensor.bytes().unwrap());
        }
    }
    all
}

fn outputs(cases: &[Case], all: &[u8]) -> Vec<Tensors> {
    let mut rest = all;
    let mut found = Vec::new();
    for case in cases {
        let plan = &case.planned.plan;
        let mut named = Tensors::new();
        for output in &plan.outputs {
            let buffer = &plan.buffers[output.buffer];
            let (own, others) = rest.split_at(buffer.bytes() as usize);
            rest = others;
            let tensor =
                Tensor::from_bytes(buffer.ty.data_type(), &output.dims, own.to_vec().into());
            named.insert(output.name.clone(), tensor);
        }
        found.push(named);
    }
    assert!(rest.is_empty());
    found
}

//! Where a model's time goes on the default engine: milliseconds of processor time by operator.
//!
//! ```text
//! cargo run --release -p bcosc-engine --example profile -- 5 step.onnx
//! ```
//!
//! The inputs are those of `latency`, whose sizes must be known. Each figure is the mean of the runs after the first. Under
//! each operator are the nodes that take longest, with the shapes of their operands.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bcosc_engine::{SessionOptions, Value, default_engine};
use bcosc_ir::{Model, onnx};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// How many nodes are listed under an operator.
const LISTED: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: profile RUNS MODEL";
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().ok_or(usage)?.parse()?;
    let path = args.next().ok_or(usage)?;
    let model = Model::from_proto(onnx::read(Path::new(&path))?.model)?;
    let inputs = bcosc_testing::inputs_for(&model, 1);
    let shapes = inputs.iter().map(|(name, x)| (name.clone(), x.dims()));
    let session = default_engine()
        .load(&model)?
        .into_session(&shapes.collect(), &SessionOptions::default())?;
    let ports = session.inputs().iter();
    let inputs: Vec<Value> = ports
        .filter_map(|port| Some(default_engine().upload(inputs.get(&port.name)?)))
        .collect::<Result<_, _>>()?;
    session.run(inputs.clone())?;
    let profile = Profile::default();
    tracing::subscriber::set_global_default(profile.clone())?;
    for _ in 0..runs {
        profile.start()?;
        session.run(inputs.clone())?;
    }
    profile.print(runs as f64);
    Ok(())
}

/// Milliseconds of each node, by operator.
#[derive(Clone, Default)]
struct Profile(Arc<Mutex<Times>>);

#[derive(Default)]
struct Times {
    /// When the operator that runs began.
    begun: f64,
    operators: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Profile {
    fn start(&self) -> Result<(), Box<dyn Error>> {
        let now = processor_milliseconds().ok_or("the processor time of a thread is not known")?;
        if let Ok(mut times) = self.0.lock() {
            times.begun = now;
        }
        Ok(())
    }

    fn print(&self, runs: f64) {
        let Ok(times) = self.0.lock() else {
            return;
        };
        let sum = |nodes: &BTreeMap<String, f64>| nodes.values().sum::<f64>();
        let total: f64 = times.operators.values().map(sum).sum();
        println!("{:8.1} ms in all", total / runs);
        for (operator, nodes) in falling(&times.operators, sum) {
            let all = sum(nodes);
            println!(
                "{:8.1} ms {:5.1} %  {operator}, {} nodes",
                all / runs,
                100.0 * all / total,
                nodes.len()
            );
            for (node, time) in falling(nodes, |time| *time).into_iter().take(LISTED) {
                println!("{:16.2} ms  {node}", time / runs);
            }
        }
    }
}

/// The entries of a map, the largest first.
fn falling<T>(map: &BTreeMap<String, T>, size: impl Fn(&T) -> f64) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|a, b| size(b.1).total_cmp(&size(a.1)));
    entries
}

/// An event says which operator has run since the one before.
impl Subscriber for Profile {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "operators"
    }

    fn event(&self, event: &Event<'_>) {
        let now = processor_milliseconds().unwrap_or(f64::NAN);
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Ok(mut times) = self.0.lock() {
            let taken = now - times.begun;
            let nodes = times.operators.entry(fields.operator).or_default();
            let node = format!("{} {}", fields.node, fields.shapes);
            *nodes.entry(node).or_default() += taken;
            times.begun = processor_milliseconds().unwrap_or(f64::NAN);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    operator: String,
    node: String,
    shapes: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "operator" => self.operator = format!("{value:?}"),
            "shapes" => self.shapes = format!("{value:?}"),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "node" {
            self.node = value.to_owned();
        }
    }
}

fn processor_milliseconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

//! Random graphs under random patches.

mod common;

use bcosc_ir::{Model, NodeId, Op, Patch, Tensor, TextOptions, Value};
use bcosc_testing::input;
use common::{all_values, mixed};
use proptest::prelude::*;

/// Operands of each operator, as places in the list of values; some are outputs.
#[derive(Clone, Debug)]
struct Plan {
    ops: Vec<(Vec<prop::sample::Index>, u8)>,
    outputs: Vec<prop::sample::Index>,
    patches: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    /// Replace a value by an operator of an earlier one.
    Replace(prop::sample::Index, prop::sample::Index),
    /// Put an operator after a value.
    InsertAfter(prop::sample::Index),
    /// Use an earlier value in the place of a value.
    Merge(prop::sample::Index, prop::sample::Index),
    /// Give an operator another earlier operand, or leave it out.
    SetInput(prop::sample::Index, u32, Option<prop::sample::Index>),
    RemoveDead,
}

fn plan() -> impl Strategy<Value = Plan> {
    let index = any::<prop::sample::Index>;
    let op = (prop::collection::vec(index(), 0..4), 1..3u8);
    let change = prop_oneof![
        (index(), index()).prop_map(|(old, new)| Change::Replace(old, new)),
        index().prop_map(Change::InsertAfter),
        (index(), index()).prop_map(|(old, new)| Change::Merge(old, new)),
        (index(), 0..4u32, prop::option::of(index()))
            .prop_map(|(n, s, v)| Change::SetInput(n, s, v)),
        Just(Change::RemoveDead),
    ];
    (
        prop::collection::vec(op, 1..12),
        prop::collection::vec(index(), 1..4),
        prop::collection::vec(change, 0..12),
    )
        .prop_map(|(ops, outputs, patches)| Plan {
            ops,
            outputs,
            patches,
        })
}

fn build(plan: &Plan) -> Model {
    let start = input(20, "n,4").param("w", Tensor::f32s(&[1, 4], vec![0.5; 4]));
    let (mut builder, made) = mixed(start, &plan.ops);
    let mut outputs: Vec<&str> = plan
        .outputs
        .iter()
        .map(|o| made[o.index(made.len())].as_str())
        .collect();
    outputs.sort_unstable();
    outputs.dedup();
    for output in outputs {
        builder = builder.output(output);
    }
    builder.finish().unwrap()
}

fn change(model: &mut Model, change: &Change) {
    let values = all_values(model);
    let ops = model.graph.ops();
    if ops.is_empty() {
        return;
    }
    let from_ops: Vec<usize> = (0..values.len())
        .filter(|&i| model.graph.op(values[i].node).is_some())
        .collect();
    let mut patch;
    match change {
        Change::Replace(old, new) => {
            let at = from_ops[old.index(from_ops.len())];
            patch = Patch::at(values[at].node);
            let operand = before(model, &values, values[at].node, new);
            let new = patch.op(Op::new("", "New"), &[operand.into()]);
            patch.replace(values[at], new);
        }
        Change::InsertAfter(old) => {
            let old = values[from_ops[old.index(from_ops.len())]];
            patch = Patch::at(old.node);
            let new = patch.op(Op::new("", "After"), &[old.into()]);
            patch.replace(old, new);
        }
        Change::Merge(old, new) => {
            let at = from_ops[old.index(from_ops.len())];
            patch = Patch::at(values[at].node);
            patch.replace(values[at], before(model, &values, values[at].node, new));
        }
        Change::SetInput(node, slot, new) => {
            let node = ops[node.index(ops.len())];
            patch = Patch::at(node);
            let new = new.map(|new| before(model, &values, node, &new).into());
            patch.set_input(node, *slot, new);
        }
        Change::RemoveDead => {
            model.graph.remove_dead();
            return;
        }
    }
    model.graph.apply(patch).unwrap();
}

/// A value that comes before node `id`, or else the graph's input.
fn before(model: &Model, values: &[Value], id: NodeId, pick: &prop::sample::Index) -> Value {
    match values.iter().position(|v| v.node == id) {
        None | Some(0) => model.graph.inputs()[0],
        Some(first) => values[pick.index(first)],
    }
}

fn output_names(model: &Model) -> Vec<String> {
    let outputs = model.graph.outputs().iter();
    outputs
        .map(|o| model.graph.value_name(o.value).to_owned())
        .collect()
}

proptest! {
    #[test]
    fn patched_graphs_stay_graphs(plan in plan()) {
        let mut model = build(&plan);
        let outputs = output_names(&model);
        for step in &plan.patches {
            change(&mut model, step);
            prop_assert_eq!(&output_names(&model), &outputs);
        }
        let exported = model.to_proto();
        let again = Model::from_proto(exported.clone()).unwrap();
        prop_assert_eq!(again.to_proto(), exported);
        // Names join what edges joined.
        let full = TextOptions { full: true };
        prop_assert_eq!(again.to_text(full), model.to_text(full));
        prop_assert_eq!(again.graph.nodes().len(), model.graph.nodes().len());
    }

    #[test]
    fn equal_runs_give_equal_bytes(plan in plan()) {
        let run = || {
            let mut model = build(&plan);
            plan.patches.iter().for_each(|step| change(&mut model, step));
            bcosc_ir::onnx::encode(&model.to_proto()).unwrap()
        };
        prop_assert_eq!(run(), run());
    }
}

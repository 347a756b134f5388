//! Parts of random graphs, spliced together again, compute the same as the whole.

mod common;

use std::collections::BTreeMap;

use bcosc_ir::{DataType, Model, Node, Tensor, TensorType, Value};
use bcosc_testing::input;
use common::{all_values, mixed};
use proptest::prelude::*;
use proptest::sample::Index;

/// Operators by their operands and their number of outputs.
type Ops = Vec<(Vec<Index>, u8)>;

fn ops() -> impl Strategy<Value = Ops> {
    let op = (prop::collection::vec(any::<Index>(), 1..4), 1..3u8);
    prop::collection::vec(op, 1..12)
}

fn build(ops: &Ops) -> Model {
    let start = input(20, "4").param("w", Tensor::f32s(&[4], vec![0.5; 4]));
    let (builder, made) = mixed(start, ops);
    let outputs = made.iter().fold(builder, |b, name| b.output(name));
    let mut model = outputs.finish().unwrap();
    for value in all_values(&model) {
        model
            .graph
            .set_value_type(value, TensorType::fixed(DataType::Float, &[4]));
    }
    model
}

/// Equal computations by number: an operator, the numbers of its operands, and a slot.
#[derive(Default)]
struct Numbers(BTreeMap<(String, Vec<usize>, u32), usize>);

impl Numbers {
    /// The number of each output of a model. Inputs are distinguished by name, constants by what they hold.
    fn of(&mut self, model: &Model) -> BTreeMap<String, usize> {
        let graph = &model.graph;
        let mut found: BTreeMap<Value, usize> = BTreeMap::new();
        for value in all_values(model) {
            let what = match graph.node(value.node) {
                Node::Op(op) => op.op_type().to_owned(),
                Node::Input(_) => graph.value_name(value).to_owned(),
                Node::Parameter(_) => format!("{:?}", graph.constant(value).unwrap().to_f64s()),
                Node::Capture(label) => panic!("{label} is captured"),
            };
            let operands = graph.inputs_of(value.node).into_iter().flatten();
            let mut operands: Vec<usize> = operands.map(|v| found[&v]).collect();
            let mut slot = value.slot;
            if what == "Identity" {
                found.insert(value, operands[0]);
                continue;
            }
            if operands.is_empty() {
                (operands, slot) = (vec![], 0);
            }
            let next = self.0.len();
            let number = *self.0.entry((what, operands, slot)).or_insert(next);
            found.insert(value, number);
        }
        let outputs = graph.outputs().iter();
        outputs
            .map(|o| (o.info.name().to_owned(), found[&o.value]))
            .collect()
    }
}

proptest! {
    #[test]
    fn parts_put_together_are_the_whole(
        ops in ops(),
        cuts in prop::collection::vec(any::<Index>(), 0..5),
        wanted in prop::collection::vec(any::<Index>(), 1..4),
    ) {
        let whole = build(&ops);
        let all = all_values(&whole);
        let pick = |picks: &[Index]| {
            let mut picked: Vec<Value> = picks.iter().map(|i| all[i.index(all.len())]).collect();
            picked.sort_unstable();
            picked.dedup();
            picked
        };
        let x = whole.graph.inputs()[0];
        let mut cut = pick(&cuts);
        cut.retain(|&v| v != x);
        let wanted = pick(&wanted);
        let mut first = whole.extract(&[x], &cut).unwrap();
        let inputs: Vec<Value> = cut.iter().copied().chain([x]).collect();
        let second = whole.extract(&inputs, &wanted).unwrap();
        prop_assert!(Model::from_proto(first.to_proto()).is_ok());
        prop_assert_eq!(Model::from_proto(second.to_proto()).unwrap().to_proto(), second.to_proto());

        let bindings: Vec<(Value, Value)> = second
            .graph
            .inputs()
            .into_iter()
            .map(|input| {
                let name = second.graph.value_name(input);
                (input, first.graph.value_named(name).unwrap())
            })
            .collect();
        let joined = first.splice(&second, &bindings).unwrap();
        let outputs: Vec<(Value, String)> = joined
            .iter()
            .enumerate()
            .map(|(i, &value)| (value, format!("out{i}")))
            .collect();
        first.graph.set_outputs(&outputs);
        first.graph.remove_dead();
        prop_assert_eq!(Model::from_proto(first.to_proto()).unwrap().to_proto(), first.to_proto());

        let mut numbers = Numbers::default();
        let expected = numbers.of(&whole.extract(&[x], &wanted).unwrap());
        let found = numbers.of(&first);
        for (i, &value) in wanted.iter().enumerate() {
            let expected = expected[whole.graph.value_name(value)];
            prop_assert_eq!(found[&format!("out{i}")], expected);
        }
    }
}

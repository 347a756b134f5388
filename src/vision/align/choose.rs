//! The method for a kind of network.
//!
//! Errors of segments that learn one after the other add up along a deep network, and features that later layers read again carry
//! them on. Depthwise convolutions see few numbers, whose cosine with a weight varies most. Such networks do better from B = 1 on
//! (docs/alignment.md has the measurements).

use bcosc_ir::{Graph, NodeId, Value};
use bcosc_passes::analysis::layers::data_consumers;
use bcosc_passes::{Biases, InputContract};

use super::options::{AlignOptions, Method};
use crate::Error;

/// A network with more convolutions is deep.
const DEEP: usize = 32;
/// A network that concatenates features at more places is dense.
const DENSE: usize = 3;

/// Options with a method that names its phases, and why B grows, where that was not asked for.
pub(super) fn chosen(
    mut options: AlignOptions,
    original: &Graph,
    is_converted: bool,
) -> Result<(AlignOptions, Option<&'static str>), Error> {
    let settings = &options.conversion.settings;
    if options.method == Method::Grow {
        let fail = |problem: &str| Err(Error::Options(problem.to_owned()));
        if is_converted {
            return fail(
                "a converted model does not start as its original: --method grow takes the original; \
                 or use --method joint --b-from",
            );
        } else if settings.biases == Some(Biases::Remove) {
            return fail(
                "a model without biases does not start as its original: --method grow keeps or carries them; \
                 or use --method joint --b-from 1",
            );
        }
    }
    let has_biases = match settings.biases {
        Some(Biases::Remove) => false,
        Some(Biases::Keep) => true,
        // Only x and 1-x carry them.
        Some(Biases::Carry) | None => settings.input != InputContract::Same,
    };
    let why = match options.method {
        Method::Auto if !is_converted && has_biases => why_grow(original),
        _ => None,
    };
    if why.is_some() || options.method == Method::Grow {
        options.grow();
    } else if options.method == Method::Auto {
        options.method = Method::Blocks;
    }
    if options.bias_decay.is_some() {
        let biases = &mut options.conversion.settings.biases;
        biases.get_or_insert(Biases::Keep);
    }
    let rate = match has_attention(original) {
        true => AlignOptions::ATTENTION_RATE,
        false => AlignOptions::BLOCK_RATE,
    };
    options.block_rate.get_or_insert(rate);
    Ok((options, why))
}

/// Whether shares of a sum are computed inside.
fn has_attention(graph: &Graph) -> bool {
    graph.ops().into_iter().any(|node| {
        let is = |name| graph.op(node).is_some_and(|op| op.is(name));
        let inside = || !data_consumers(graph, graph.output(node, 0)).is_empty();
        is("Attention") || is("Softmax") && inside()
    })
}

/// What speaks for a growing B.
fn why_grow(graph: &Graph) -> Option<&'static str> {
    let named = |name: &'static str| {
        let nodes = graph.ops().into_iter();
        nodes.filter(move |&node| graph.op(node).is_some_and(|op| op.is(name)))
    };
    if named("Conv").any(|node| is_depthwise(graph, node)) {
        Some("the network has depthwise convolutions")
    } else if named("Concat").filter(|&node| meets(graph, node)).count() > DENSE {
        Some("the network concatenates features")
    } else if named("Conv").count() > DEEP {
        Some("the network is deep")
    } else {
        None
    }
}

/// Whether each channel has a filter of its own.
fn is_depthwise(graph: &Graph, node: NodeId) -> bool {
    let groups = graph.op(node).and_then(|op| op.get::<i64>("group"));
    let weight = graph.input(node, 1).and_then(|value| graph.constant(value));
    let dims = weight.map(|weight| weight.dims()).unwrap_or_default();
    groups.is_some_and(|groups| groups > 1) && dims.get(1) == Some(&1)
}

/// Whether features come together along the channels. Parts that were sliced off, as in windows that are shifted, are none.
fn meets(graph: &Graph, node: NodeId) -> bool {
    let axis = graph.op(node).and_then(|op| op.get::<i64>("axis"));
    let is_part = |value: &Value| {
        let op = graph.op(value.node);
        op.is_some_and(|op| op.is("Slice") || op.is("Split"))
    };
    let inputs = graph.inputs_of(node).into_iter().flatten();
    let computed = inputs.filter(|value| graph.constant(*value).is_none() && !is_part(value));
    matches!(axis, Some(1 | -3)) && computed.count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcosc_ir::{Attribute, DataType, ModelBuilder};
    use bcosc_testing::Layers;

    fn image() -> ModelBuilder {
        ModelBuilder::new(17).input("x", DataType::Float, "batch,8,9,9")
    }

    fn why(built: ModelBuilder, last: &str) -> Option<&'static str> {
        let model = built.output(last).finish().unwrap();
        why_grow(&model.graph)
    }

    fn stacked(count: usize) -> ModelBuilder {
        (0..count).fold(image(), |built, n| {
            let from = if n == 0 {
                "x".to_owned()
            } else {
                format!("y{n}")
            };
            built.biased_conv(&from, &format!("y{}", n + 1), &[8, 8, 1, 1], [])
        })
    }

    #[test]
    fn deep_networks_and_those_with_depthwise_layers_grow() {
        let group = |groups| [Attribute::int("group", groups)];
        let depthwise = image().biased_conv("x", "y", &[8, 1, 3, 3], group(8));
        assert!(why(depthwise, "y").is_some_and(|why| why.contains("depthwise")));
        let grouped = image().biased_conv("x", "y", &[8, 4, 3, 3], group(2));
        assert_eq!(why(grouped, "y"), None);
        assert!(why(stacked(33), "y33").is_some_and(|why| why.contains("deep")));
        assert_eq!(why(stacked(32), "y32"), None);
    }

    #[test]
    fn attention_learns_more_slowly() {
        let attends = |built: ModelBuilder, last: &str| {
            let model = built.output(last).finish().unwrap();
            has_attention(&model.graph)
        };
        let softmax = || image().op("Softmax", &["x"], "shares", []);
        assert!(attends(softmax().op("Relu", &["shares"], "y", []), "y"));
        // Probabilities at the end are no attention.
        assert!(!attends(softmax(), "shares"));
    }

    #[test]
    fn dense_networks_grow() {
        let dense = |count: usize| {
            (0..count).fold(image().op("Relu", &["x"], "y0", []), |built, n| {
                let [from, to] = [n, n + 1].map(|n| format!("y{n}"));
                built.op("Concat", &["x", &from], &to, [Attribute::int("axis", 1)])
            })
        };
        assert!(why(dense(4), "y4").is_some_and(|why| why.contains("concatenates")));
        assert_eq!(why(dense(3), "y3"), None);
        // Windows that are shifted four times.
        let halves = |built: ModelBuilder, n: usize| {
            let [from, a, b] = ["y", "a", "b"].map(|name| format!("{name}{n}"));
            let to = format!("y{}", n + 1);
            let built = built.op("Slice", &[&from], &a, []);
            let built = built.op("Slice", &[&from], &b, []);
            built.op("Concat", &[&b, &a], &to, [Attribute::int("axis", 1)])
        };
        let shifted = (0..4).fold(image().op("Relu", &["x"], "y0", []), halves);
        assert_eq!(why(shifted, "y4"), None);
    }
}

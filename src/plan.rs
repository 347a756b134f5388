//! Which passes run, and in which order.

use bcosc_ir::{Graph, Model, NodeId};
use bcosc_passes::{InputContract, Pass, pipeline, recipe};

use crate::{Error, Recipe, Selection};

/// An ordered list of passes.
pub(crate) type Passes = Vec<&'static dyn Pass>;

/// The pass that raises the opset.
const RAISE: &str = "raise-opset";

/// The pass that makes the input contract true.
const DOUBLE: &str = "double-input";

/// Every pass of every recipe, in order of first use.
pub fn all_passes() -> Vec<&'static dyn Pass> {
    let mut all: Passes = Vec::new();
    for pass in recipe::CANONICAL.iter().chain(recipe::CNN) {
        if all.iter().all(|known| known.name() != pass.name()) {
            all.push(*pass);
        }
    }
    all
}

/// The recipe that fits the model, where the caller leaves it open.
pub(crate) fn choose(model: &Model, label: &str, wanted: Recipe) -> Result<Recipe, Error> {
    let unavailable = |recipe: Recipe, because| Error::RecipeUnavailable {
        model: label.to_owned(),
        recipe: recipe.name(),
        because,
    };
    match wanted {
        Recipe::Auto => match attention(&model.graph) {
            Some(node) => {
                let because = format!("node \"{}\" is attention", model.graph.label(node));
                Err(unavailable(Recipe::Vit, Some(because)))
            }
            None => Ok(Recipe::Cnn),
        },
        Recipe::Vit | Recipe::Clip => Err(unavailable(wanted, None)),
        Recipe::Cnn | Recipe::None => Ok(wanted),
    }
}

/// The passes that run. `raises` tells whether the opset is to be raised, which is all that recipe
/// `none` does, if anything.
pub(crate) fn list(recipe: Recipe, selection: &Selection, raises: bool) -> Result<Passes, Error> {
    let of_recipe: Passes = match recipe {
        Recipe::Cnn => recipe::CANONICAL
            .iter()
            .chain(recipe::CNN)
            .copied()
            .collect(),
        _ if raises => recipe::CANONICAL
            .iter()
            .copied()
            .filter(|pass| pass.name() == RAISE)
            .collect(),
        _ => Vec::new(),
    };
    let place = format!("recipe `{}`", recipe.name());
    let mut passes = match &selection.only {
        None => of_recipe,
        Some(names) => {
            let all = all_passes();
            let chosen = names
                .iter()
                .map(|name| find(&all, name, "any recipe").map(|i| all[i]));
            chosen.collect::<Result<_, _>>()?
        }
    };
    let place = if selection.only.is_some() {
        "the chosen passes"
    } else {
        &place
    };
    if let Some(name) = &selection.stop_after {
        let last = find(&passes, name, place)?;
        passes.truncate(last + 1);
    }
    for name in &selection.skip {
        let index = find(&passes, name, place)?;
        passes.remove(index);
    }
    match pipeline::missing_requirement(&passes) {
        Some((pass, requires)) => Err(Error::MissingPass { pass, requires }),
        None => Ok(passes),
    }
}

/// What a model takes after these passes.
pub(crate) fn contract(passes: &[&'static dyn Pass], wanted: InputContract) -> InputContract {
    match passes.iter().any(|pass| pass.name() == DOUBLE) {
        true => wanted,
        false => InputContract::Same,
    }
}

fn find(passes: &[&'static dyn Pass], name: &str, place: &str) -> Result<usize, Error> {
    let found = passes.iter().rposition(|pass| pass.name() == name);
    found.ok_or_else(|| Error::UnknownPass {
        name: name.to_owned(),
        place: place.to_owned(),
        similar: similar(passes, name),
    })
}

/// The pass whose name shares most letter pairs with a misspelt one.
fn similar(passes: &[&'static dyn Pass], name: &str) -> Option<&'static str> {
    let pairs = |text: &str| -> Vec<(u8, u8)> { text.bytes().zip(text.bytes().skip(1)).collect() };
    let wanted = pairs(name);
    let score = |known: &str| {
        pairs(known)
            .iter()
            .filter(|pair| wanted.contains(pair))
            .count()
    };
    let best = passes
        .iter()
        .map(|pass| pass.name())
        .max_by_key(|known| score(known))?;
    (2 * score(best) >= wanted.len().max(1)).then_some(best)
}

/// Operators that leave attention weights what they are.
const PASSING: [&str; 8] = [
    "Dropout",
    "Identity",
    "Reshape",
    "Transpose",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Expand",
];

/// A node that applies attention: an attention operator, or a product with a softmax.
fn attention(graph: &Graph) -> Option<NodeId> {
    graph.ops().into_iter().find(|&id| {
        let Some(op) = graph.op(id) else { return false };
        match op.op_type() {
            "Attention" | "MultiHeadAttention" => true,
            "MatMul" => (0..2).any(|slot| comes_from_softmax(graph, id, slot)),
            _ => false,
        }
    })
}

fn comes_from_softmax(graph: &Graph, node: NodeId, slot: u32) -> bool {
    let mut value = graph.input(node, slot);
    while let Some((id, op)) = value.and_then(|v| graph.producer(v)) {
        match op.op_type() {
            "Softmax" => return true,
            passing if PASSING.contains(&passing) => value = graph.input(id, 0),
            _ => return false,
        }
    }
    false
}

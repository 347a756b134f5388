//! The list of passes of a conversion.

use bcosc_ir::Graph;
use bcosc_passes::analysis::raise::{Composite, Kind, Raised, attention_pool};
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::canonical::opset::RAISE_OPSET;
use bcosc_passes::{InputContract, Pass, pipeline, recipe};

use crate::{Error, Recipe, Selection};

/// An ordered list of passes.
pub(crate) type Passes = Vec<&'static Pass>;

/// Every pass of every recipe, in order of first use.
pub fn all_passes() -> Vec<&'static Pass> {
    let mut all: Passes = Vec::new();
    let recipes = [recipe::CNN, recipe::VIT, recipe::CLIP];
    for pass in recipes.into_iter().flatten().copied().flatten() {
        if !pass.is_in(&all) {
            all.push(*pass);
        }
    }
    all
}

/// Chooses the recipe for a model in canonical form.
///
/// The choice depends on the structure: `clip` if there is an attention pool or an output named as an
/// embedding, `vit` if there is attention or a norm over whole vectors, else `cnn`.
pub(crate) fn choose(canonical: &Graph) -> Recipe {
    let raised = Raised::of(canonical);
    let tokens =
        |c: &Composite| matches!(c.kind, Kind::Attention | Kind::LayerNorm | Kind::RmsNorm);
    if !attention_pool::all(canonical).is_empty() || is_embedding(canonical) {
        Recipe::Clip
    } else if raised.composites.iter().any(tokens) {
        Recipe::Vit
    } else {
        Recipe::Cnn
    }
}

/// Whether the first output is named as an embedding.
pub(crate) fn is_embedding(graph: &Graph) -> bool {
    let first = graph.outputs().first();
    let name = first.map(|output| graph.value_name(output.value).to_lowercase());
    name.is_some_and(|name| name.contains("embed"))
}

/// The passes to run. `raises` is whether to upgrade the opset, which is all that recipe `none` does.
pub(crate) fn list(recipe: Recipe, selection: &Selection, raises: bool) -> Result<Passes, Error> {
    let of_recipe: Passes = match recipe {
        Recipe::Cnn => recipe::CNN.concat(),
        Recipe::Vit => recipe::VIT.concat(),
        Recipe::Clip => recipe::CLIP.concat(),
        Recipe::Auto | Recipe::None if raises => vec![&RAISE_OPSET],
        Recipe::Auto | Recipe::None => Vec::new(),
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
        Some((pass, required)) => Err(Error::MissingPass {
            pass: pass.name,
            requires: required.name,
        }),
        None => Ok(passes),
    }
}

/// Whether one of the possible lists changes the input format, see [`contract`].
pub(crate) fn may_double_input(recipe: Recipe, selection: &Selection) -> bool {
    let recipes = match recipe {
        Recipe::Auto => &[Recipe::Cnn, Recipe::Vit, Recipe::Clip][..],
        ref known => std::slice::from_ref(known),
    };
    let doubles = |passes: Passes| DOUBLE_INPUT.is_in(&passes);
    recipes
        .iter()
        .any(|recipe| list(*recipe, selection, false).is_ok_and(doubles))
}

/// The input format of a model after these passes.
pub(crate) fn contract(passes: &[&'static Pass], wanted: InputContract) -> InputContract {
    match DOUBLE_INPUT.is_in(passes) {
        true => wanted,
        false => InputContract::Same,
    }
}

fn find(passes: &[&'static Pass], name: &str, place: &str) -> Result<usize, Error> {
    let found = passes.iter().rposition(|pass| pass.name == name);
    found.ok_or_else(|| Error::UnknownPass {
        name: name.to_owned(),
        place: place.to_owned(),
        similar: similar(passes, name),
    })
}

/// The pass with the most similar name, by letter pairs.
fn similar(passes: &[&'static Pass], name: &str) -> Option<&'static str> {
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
        .map(|pass| pass.name)
        .max_by_key(|known| score(known))?;
    (2 * score(best) >= wanted.len().max(1)).then_some(best)
}

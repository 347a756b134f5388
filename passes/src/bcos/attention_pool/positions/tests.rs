use super::*;
use crate::Settings;
use crate::bcos::attention_pool::testing::tower;
use crate::testing::{model, outputs, passed, reasons};

#[test]
fn the_positions_of_a_pool_go() {
    let before = model(tower(true));
    let (after, outcome) =
        match passed(&[&DROP_POOL_POSITIONS], &before, &Settings::default(), None) {
            Ok(done) => done,
            Err(error) => panic!("{error}"),
        };
    assert_eq!(outcome.changes.len(), 1);
    // The result equals an image encoder without position embedding.
    let inputs = crate::testing::batch(&before);
    let never = outputs(&model(tower(false)), &inputs);
    outputs(&after, &inputs)[0].assert_close(&never[0], 1e-6);
}

#[test]
fn they_stay_with_the_biases() {
    let keep = Settings {
        biases: Some(Biases::Keep),
        ..Settings::default()
    };
    let outcome = match passed(&[&DROP_POOL_POSITIONS], &model(tower(true)), &keep, None) {
        Ok((_, outcome)) => outcome,
        Err(error) => panic!("{error}"),
    };
    assert!(outcome.changes.is_empty());
    assert_eq!(reasons(outcome), [Reason::Kept("--biases")]);
}

#[test]
fn a_tower_without_positions_has_nothing_to_lose() {
    let outcome = match passed(
        &[&DROP_POOL_POSITIONS],
        &model(tower(false)),
        &Settings::default(),
        None,
    ) {
        Ok((_, outcome)) => outcome,
        Err(error) => panic!("{error}"),
    };
    assert!(outcome.changes.is_empty() && outcome.skips.is_empty());
}

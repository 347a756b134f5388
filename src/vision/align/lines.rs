//! Lines of the metrics of an alignment.

use serde::Serialize;

use super::events::Phased;
use super::measure::Agreement;

/// One line of the metrics of a step.
#[derive(Serialize)]
pub(super) struct StepLine<'a> {
    pub step: u64,
    pub phase: usize,
    pub loss: f64,
    pub learning_rate: f64,
    pub images_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<f64>,
    #[serde(skip_serializing_if = "<[f64]>::is_empty")]
    pub errors: &'a [f64],
}

/// One line of the metrics of a phase.
#[derive(Serialize)]
pub(super) struct PhaseLine<'a> {
    pub step: u64,
    pub phase: &'a Phased,
}

/// One line of the metrics of a comparison with the original.
#[derive(Serialize)]
pub(super) struct MeasureLine {
    pub step: u64,
    pub agreement: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement_top5: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_top1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gridpg: Option<f64>,
}

impl MeasureLine {
    pub fn of(step: u64, found: &Agreement) -> Self {
        let figures = found.figures.as_ref();
        MeasureLine {
            step,
            agreement: found.top1,
            agreement_top5: found.top5,
            val_top1: figures.map(|figures| figures.top1),
            gridpg: figures.and_then(|figures| figures.pointing.first()?.score),
        }
    }
}

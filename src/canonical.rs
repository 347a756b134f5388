//! The canonical form of a model, the starting point of all conversions of it.

use bcosc_engine::default_interpreter;
use bcosc_ir::Model;
use bcosc_passes::pipeline::{PipelineError, Step};
use bcosc_passes::recipe::CANONICAL;
use bcosc_passes::{Context, Pass, Settings, pipeline};

use crate::Error;

/// A model after the leading canonical passes of a list.
#[derive(Clone, Debug)]
pub(crate) struct Canonical {
    pub(crate) model: Model,
    /// The outcome of each pass.
    pub(crate) steps: Vec<Step>,
}

impl Canonical {
    /// Runs the leading canonical passes of `passes`; `after` is called with the model after each of them.
    ///
    /// # Errors
    /// [`Error::Pass`] if one of them fails; `label` names the model in the error.
    pub(crate) fn of(
        original: &Model,
        passes: &[&'static Pass],
        settings: &Settings,
        label: &str,
        after: impl FnMut(&Step, &Model),
    ) -> Result<Self, Error> {
        let first = passes.iter().take_while(|pass| pass.is_in(CANONICAL));
        let first: Vec<&'static Pass> = first.copied().collect();
        let mut model = original.clone();
        let steps = pipeline::run(&mut model, &first, &context(settings), after)
            .map_err(|source| failed(label, source))?;
        Ok(Canonical { model, steps })
    }

    /// Whether all canonical passes have run.
    pub(crate) fn is_whole(&self) -> bool {
        let names = self.steps.iter().map(|step| step.pass);
        names.eq(CANONICAL.iter().map(|pass| pass.name))
    }

    /// The model with the types of all values, for analyses. Passes go on without them.
    pub(crate) fn typed(&self, label: &str) -> Result<Model, Error> {
        typed(&self.model, label)
    }
}

/// A copy of a model with the types of all values.
pub(crate) fn typed(model: &Model, label: &str) -> Result<Model, Error> {
    let mut typed = model.clone();
    let inferred = context(&Settings::default()).infer(&mut typed);
    inferred.map_err(|error| {
        let source = Box::new(error);
        let pass = "type inference";
        failed(label, PipelineError { pass, source })
    })?;
    Ok(typed)
}

fn context(settings: &Settings) -> Context<'_> {
    Context {
        settings,
        interpreter: default_interpreter(),
        calibration: None,
    }
}

fn failed(label: &str, source: PipelineError) -> Error {
    Error::Pass {
        model: label.to_owned(),
        source: Box::new(source),
    }
}

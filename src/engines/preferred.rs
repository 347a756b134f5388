//! Two engines: the first, and the second for models that the first cannot compute.

use std::sync::Arc;

use bcosc_autodiff::lower::lower;
use bcosc_engine::{
    Engine, EngineError, InputShapes, Network, Port, Precision, Session, SessionOptions, Value,
};
use bcosc_ir::{Model, Tensor};

use super::Opened;

/// An engine, and another one for models with operators that it does not have.
#[derive(Debug)]
pub(super) struct Preferred {
    pub first: Arc<dyn Engine>,
    pub second: Opened,
}

impl Engine for Preferred {
    fn name(&self) -> &'static str {
        self.first.name()
    }

    fn has_markers(&self) -> bool {
        self.first.has_markers()
    }

    fn require(&self, precision: Precision) -> Result<(), EngineError> {
        self.first.require(precision)
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        match self.first.load(model) {
            Ok(first) => Ok(Box::new(PreferredNetwork {
                first,
                second: self.second.clone(),
                model: model.clone(),
            })),
            Err(error) => instead(&self.second, model, error),
        }
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        self.first.upload(tensor)
    }
}

/// Some operators turn out to be unsupported when shapes are known.
#[derive(Debug)]
struct PreferredNetwork {
    first: Box<dyn Network>,
    second: Opened,
    model: Model,
}

impl Network for PreferredNetwork {
    fn inputs(&self) -> &[Port] {
        self.first.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.first.outputs()
    }

    fn session(
        &self,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        match self.first.session(shapes, options) {
            Ok(session) => Ok(session),
            Err(error) => instead(&self.second, &self.model, error)?.into_session(shapes, options),
        }
    }
}

/// The model in the second engine, if the error is about operators.
fn instead(
    second: &Opened,
    model: &Model,
    error: EngineError,
) -> Result<Box<dyn Network>, EngineError> {
    if !matches!(error, EngineError::Unsupported(_)) {
        return Err(error);
    }
    tracing::warn!("running on the CPU, since not every operator has a CUDA kernel: {error}");
    let mut standard = model.clone();
    lower(&mut standard).map_err(|error| EngineError::Load {
        place: "gradients of convolutions".to_owned(),
        reason: error.to_string(),
    })?;
    second.load(&standard)
}

#[cfg(test)]
mod tests {
    use bcosc_engine::{Unsupported, default_engine};
    use bcosc_ir::{DataType, ModelBuilder};

    use super::*;

    /// An engine that has no operator, or finds out when shapes are known.
    #[derive(Debug)]
    struct Picky {
        late: bool,
    }

    #[derive(Debug)]
    struct PickyNetwork(Box<dyn Network>);

    fn refused() -> EngineError {
        EngineError::Unsupported(vec![Unsupported {
            name: "y".to_owned(),
            op: Some("Relu".to_owned()),
            reason: "there is no kernel".to_owned(),
        }])
    }

    impl Engine for Picky {
        fn name(&self) -> &'static str {
            "picky"
        }

        fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
            match self.late {
                true => Ok(Box::new(PickyNetwork(default_engine().load(model)?))),
                false => Err(refused()),
            }
        }

        fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
            Ok(tensor.clone().into())
        }
    }

    impl Network for PickyNetwork {
        fn inputs(&self) -> &[Port] {
            self.0.inputs()
        }

        fn outputs(&self) -> &[Port] {
            self.0.outputs()
        }

        fn session(
            &self,
            shapes: &InputShapes,
            _: &SessionOptions,
        ) -> Result<Box<dyn Session>, EngineError> {
            match shapes.is_empty() {
                true => Err(EngineError::MissingInput("x".to_owned())),
                false => Err(refused()),
            }
        }
    }

    #[test]
    fn what_the_first_engine_does_not_have_runs_on_the_second() {
        let model = ModelBuilder::new(17)
            .input("x", DataType::Float, "N")
            .op("Relu", &["x"], "y", [])
            .output_as("y", DataType::Float, "N")
            .finish()
            .unwrap();
        let x = Tensor::f32s(&[2], vec![-1.0, 2.0]);
        let shapes = [("x".to_owned(), vec![2])].into();
        for late in [false, true] {
            let engine = Preferred {
                first: Arc::new(Picky { late }),
                second: Opened::BuiltIn(default_engine()),
            };
            let network = engine.load(&model).unwrap();
            let options = SessionOptions::default();
            let session = network.session(&shapes, &options).unwrap();
            let found = session.run(vec![x.clone().into()]).unwrap();
            assert_eq!(
                found[0].to_tensor().unwrap(),
                Tensor::f32s(&[2], vec![0.0, 2.0])
            );
            if late {
                let other = network.session(&InputShapes::new(), &options);
                assert!(matches!(other, Err(EngineError::MissingInput(_))));
            }
        }
    }
}

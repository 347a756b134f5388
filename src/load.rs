//! Reading a model from a file or from bytes.

mod shapes;

use std::path::PathBuf;

use bcosc_ir::Model;
use bcosc_onnx::proto::ModelProto;
use bcosc_onnx::{ModelFile, UnknownField};

use crate::{Error, InputShape, Source};

/// A model as it was read.
pub(crate) struct Read {
    pub model: Model,
    /// Its name in messages.
    pub label: String,
    pub path: Option<PathBuf>,
    pub bytes: u64,
    pub warnings: Vec<String>,
}

/// A model file that is read, and of which no graph is built yet.
#[derive(Clone)]
pub(crate) struct File {
    proto: ModelProto,
    label: String,
    path: Option<PathBuf>,
    bytes: u64,
    unknown_fields: Vec<UnknownField>,
}

impl File {
    /// Reads a model. Its weights stay where they are: clones share them.
    pub fn open(source: Source) -> Result<Self, Error> {
        let ModelFile {
            model: proto,
            path,
            bytes,
            unknown_fields,
        } = match source {
            Source::Path(path) => bcosc_onnx::read(&path)?,
            Source::Bytes(bytes) => bcosc_onnx::decode(bytes)?,
        };
        let label = path
            .as_ref()
            .map_or_else(|| "model in memory".to_owned(), |p| p.display().to_string());
        Ok(File {
            proto,
            label,
            path,
            bytes,
            unknown_fields,
        })
    }

    /// A model in memory as if it were read.
    #[cfg(feature = "vision")]
    pub fn of(model: &Model, label: &str) -> Self {
        File {
            proto: model.to_proto(),
            label: label.to_owned(),
            path: None,
            bytes: 0,
            unknown_fields: Vec::new(),
        }
    }

    /// Builds the graph, with other shapes of inputs where they are given.
    pub fn build(self, input_shapes: &[InputShape]) -> Result<Read, Error> {
        let File {
            mut proto,
            label,
            path,
            bytes,
            unknown_fields,
        } = self;
        let mut ranks = Vec::new();
        if let Some(graph) = proto.graph.as_deref_mut()
            && !input_shapes.is_empty()
        {
            ranks = shapes::output_ranks(graph);
            shapes::apply(graph, input_shapes, &label)?;
        }
        let warnings = describe_unknown(&unknown_fields).into_iter().collect();
        let mut model = Model::from_proto(proto).map_err(|source| Error::Import {
            model: label.clone(),
            source: Box::new(source),
        })?;
        shapes::declare_outputs(&mut model, &ranks);
        Ok(Read {
            model,
            label,
            path,
            bytes,
            warnings,
        })
    }
}

/// Reads a model and builds its graph.
pub(crate) fn read(source: Source, input_shapes: &[InputShape]) -> Result<Read, Error> {
    File::open(source)?.build(input_shapes)
}

/// A warning about unknown fields of a model.
fn describe_unknown(fields: &[UnknownField]) -> Option<String> {
    let first = fields.first()?;
    let more = match fields.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more kinds"),
    };
    Some(format!(
        "the model has unknown fields, which were dropped: {first}{more}"
    ))
}

//! Reading a model: from a file or bytes to a graph.

use std::path::PathBuf;

use bcosc_ir::Model;
use bcosc_onnx::ModelFile;

use crate::report::describe_unknown;
use crate::{Error, Source, reshape};

/// A model as it was read.
pub(crate) struct Read {
    pub model: Model,
    /// What messages call it.
    pub label: String,
    pub path: Option<PathBuf>,
    pub bytes: u64,
    pub warnings: Vec<String>,
}

/// Reads a model and builds its graph.
pub(crate) fn read(source: Source, shapes: &[crate::InputShape]) -> Result<Read, Error> {
    let ModelFile {
        model: mut proto,
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
    let mut ranks = Vec::new();
    if let Some(graph) = proto.graph.as_deref_mut()
        && !shapes.is_empty()
    {
        ranks = reshape::output_ranks(graph);
        reshape::apply(graph, shapes, &label)?;
    }
    let warnings = describe_unknown(&unknown_fields).into_iter().collect();
    let mut model = Model::from_proto(proto).map_err(|source| Error::Import {
        model: label.clone(),
        source: Box::new(source),
    })?;
    reshape::declare_outputs(&mut model, &ranks);
    Ok(Read {
        model,
        label,
        path,
        bytes,
        warnings,
    })
}

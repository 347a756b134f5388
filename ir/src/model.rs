//! A model: one graph and what surrounds it.

use bcosc_onnx::proto::{FunctionProto, ModelProto, OperatorSetIdProto};

use crate::Graph;

/// An ONNX model in memory.
#[derive(Clone, Debug)]
pub struct Model {
    /// The main graph.
    pub graph: Graph,
    /// Everything else of the ONNX message; its `graph` is empty.
    pub(crate) header: ModelProto,
}

impl Model {
    /// Version of an operator set that the model imports; `""` is standard ONNX.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let matches = |o: &&OperatorSetIdProto| canonical_domain(o.domain.as_deref()) == domain;
        self.header.opset_import.iter().find(matches)?.version
    }

    /// Imports an operator set at a version, replacing an earlier import.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let imports = &mut self.header.opset_import;
        match imports
            .iter_mut()
            .find(|o| canonical_domain(o.domain.as_deref()) == domain)
        {
            Some(import) => import.version = Some(version),
            None => imports.push(OperatorSetIdProto {
                domain: Some(domain.to_owned()),
                version: Some(version),
            }),
        }
    }

    /// Every imported operator set as (domain, version).
    pub fn opsets(&self) -> impl Iterator<Item = (&str, i64)> {
        let imports = self.header.opset_import.iter();
        imports.map(|o| {
            (
                canonical_domain(o.domain.as_deref()),
                o.version.unwrap_or(0),
            )
        })
    }

    /// Drops the import of an operator set.
    pub fn remove_opset(&mut self, domain: &str) {
        self.header
            .opset_import
            .retain(|o| canonical_domain(o.domain.as_deref()) != domain);
    }

    /// Version of the file format.
    pub fn ir_version(&self) -> i64 {
        self.header.ir_version.unwrap_or(0)
    }

    /// Sets the version of the file format.
    pub fn set_ir_version(&mut self, version: i64) {
        self.header.ir_version = Some(version);
    }

    /// A metadata property of the model.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        crate::metadata::get(&self.header.metadata_props, key)
    }

    /// Sets a metadata property of the model.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        crate::metadata::set(&mut self.header.metadata_props, key, value);
    }

    /// Local functions, unchanged.
    pub fn functions(&self) -> &[FunctionProto] {
        &self.header.functions
    }

    /// Replaces the local functions.
    pub fn set_functions(&mut self, functions: Vec<FunctionProto>) {
        self.header.functions = functions;
    }

    /// The tool that made the model, and its version.
    pub fn producer(&self) -> (&str, &str) {
        let name = self.header.producer_name.as_deref().unwrap_or_default();
        (
            name,
            self.header.producer_version.as_deref().unwrap_or_default(),
        )
    }

    /// Names the tool that made the model.
    pub fn set_producer(&mut self, name: &str, version: &str) {
        self.header.producer_name = Some(name.to_owned());
        self.header.producer_version = Some(version.to_owned());
    }
}

pub(crate) fn canonical_domain(domain: Option<&str>) -> &str {
    match domain {
        None | Some("ai.onnx") => "",
        Some(domain) => domain,
    }
}

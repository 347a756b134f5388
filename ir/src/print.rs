//! Models as text, in ONNX's own textual syntax.
//!
//! The full form is what `onnx.parser.parse_model` reads. Names that are not identifiers are quoted.
//! What the syntax has no place for stands in comments (node metadata and documentation) or is left
//! out: names of types' dimensions (denotations), device placement, training information, sparse
//! initializers, names of tensors in attributes that are not identifiers, and lists of tensors,
//! graphs or types as attributes, which the parser reads as empty.
//!
//! By default tensors of more than eight elements are cut short: `{0.5, 1.0, 1.5, 2.0, ... 8f3a0c11}`,
//! where the last number is a digest of all elements, so that two dumps differ where weights do.
//! Numbers in half precision are then decimal, while the parser wants their bits.

mod text;
mod types;
mod values;

use std::fmt;

use bcosc_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto,
};

use crate::patch::ORIGIN;
use crate::{Attribute, Model};
use text::{Lines, Name, Names, Quoted, notes, opsets, string_map};

/// How a model is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Every element of every tensor, and metadata and documentation of nodes as comments.
    pub full: bool,
}

/// A model that prints itself piece by piece; made by [`Model::text`].
#[derive(Clone, Debug)]
pub struct ModelText {
    model: ModelProto,
    options: TextOptions,
}

impl Model {
    /// The model in ONNX's textual syntax, to be written to a file or a terminal.
    pub fn text(&self, options: TextOptions) -> ModelText {
        let model = self.to_proto();
        ModelText { model, options }
    }

    /// The model in ONNX's textual syntax, as one string.
    pub fn to_text(&self, options: TextOptions) -> String {
        self.text(options).to_string()
    }
}

impl fmt::Display for ModelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer {
            out: Lines::new(f),
            full: self.options.full,
        };
        printer.model(&self.model)
    }
}

impl fmt::Display for Model {
    /// The model in ONNX's textual syntax, large tensors cut short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(TextOptions::default()).fmt(f)
    }
}

struct Printer<'a, 'f> {
    out: Lines<'a, 'f>,
    full: bool,
}

/// Lists of inputs or outputs with more entries than this get a line for each.
const ENTRIES_PER_LINE: usize = 4;

impl Printer<'_, '_> {
    fn model(&mut self, model: &ModelProto) -> fmt::Result {
        let mut header = Vec::new();
        let text = |key: &str, value: &Option<String>| {
            value.as_ref().map(|v| format!("{key}: {}", Quoted(v)))
        };
        let number = |key: &str, value: Option<i64>| value.map(|v| format!("{key}: {v}"));
        header.extend(number("ir_version", model.ir_version));
        header.push(opsets(
            model
                .opset_import
                .iter()
                .map(|o| (o.domain.as_deref(), o.version)),
        ));
        header.extend(text("producer_name", &model.producer_name));
        header.extend(text("producer_version", &model.producer_version));
        header.extend(text("domain", &model.domain));
        header.extend(number("model_version", model.model_version));
        header.extend(text("doc_string", &model.doc_string));
        if !model.metadata_props.is_empty() {
            header.push(format!(
                "metadata_props: [{}]",
                string_map(&model.metadata_props)
            ));
        }
        self.header(&header)?;
        if let Some(graph) = &model.graph {
            self.graph(graph, graph.name.as_deref().unwrap_or_default())?;
            self.out.end_line()?;
        }
        for function in &model.functions {
            self.out.end_line()?;
            self.function(function)?;
        }
        if !model.training_info.is_empty() {
            write!(
                self.out,
                "# {} training_info entries",
                model.training_info.len()
            )?;
            self.out.end_line()?;
        }
        Ok(())
    }

    fn header(&mut self, entries: &[String]) -> fmt::Result {
        self.out.open("<")?;
        for (i, entry) in entries.iter().enumerate() {
            let comma = if i + 1 < entries.len() { "," } else { "" };
            write!(self.out, "{entry}{comma}")?;
            self.out.end_line()?;
        }
        self.out.close(">")?;
        self.out.end_line()
    }

    /// Leaves the line open after the closing brace.
    fn graph(&mut self, graph: &GraphProto, name: &str) -> fmt::Result {
        write!(self.out, "{} ", Name(name))?;
        self.value_infos(&graph.input)?;
        write!(self.out, " => ")?;
        self.value_infos(&graph.output)?;
        self.graph_comments(graph)?;
        let entries = graph.initializer.len() + graph.value_info.len();
        if entries > 0 {
            self.out.end_line()?;
            self.out.open("<")?;
            let mut left = entries;
            for tensor in &graph.initializer {
                let name = tensor.name.as_deref().unwrap_or_default();
                types::tensor_head(&mut self.out, tensor)?;
                write!(self.out, " {} = ", Name(name))?;
                values::elements(&mut self.out, tensor, self.full)?;
                left -= 1;
                self.list_end(left)?;
            }
            for info in &graph.value_info {
                types::value_info(&mut self.out, info)?;
                left -= 1;
                self.list_end(left)?;
            }
            self.out.close(">")?;
            self.out.end_line()?;
        } else {
            write!(self.out, " ")?;
        }
        self.nodes(&graph.node)
    }

    fn graph_comments(&mut self, graph: &GraphProto) -> fmt::Result {
        let mut comments = Vec::new();
        comments.extend(graph.sparse_initializer.iter().map(|sparse| {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref());
            format!(
                "sparse initializer {} {:?}",
                Name(name.unwrap_or_default()),
                sparse.dims
            )
        }));
        if self.full {
            comments.extend(notes(&graph.doc_string, &graph.metadata_props));
        }
        for comment in comments {
            self.out.end_line()?;
            write!(self.out, "# {comment}")?;
        }
        Ok(())
    }

    fn list_end(&mut self, left: usize) -> fmt::Result {
        if left > 0 {
            write!(self.out, ",")?;
        }
        self.out.end_line()
    }

    fn value_infos(&mut self, infos: &[ValueInfoProto]) -> fmt::Result {
        if infos.len() <= ENTRIES_PER_LINE {
            write!(self.out, "(")?;
            for (i, info) in infos.iter().enumerate() {
                write!(self.out, "{}", if i > 0 { ", " } else { "" })?;
                types::value_info(&mut self.out, info)?;
            }
            return write!(self.out, ")");
        }
        self.out.open("(")?;
        for (i, info) in infos.iter().enumerate() {
            types::value_info(&mut self.out, info)?;
            self.list_end(infos.len() - 1 - i)?;
        }
        self.out.close(")")
    }

    fn nodes(&mut self, nodes: &[NodeProto]) -> fmt::Result {
        self.out.open("{")?;
        for node in nodes {
            self.node(node)?;
        }
        self.out.close("}")
    }

    fn node(&mut self, node: &NodeProto) -> fmt::Result {
        if self.full {
            for note in notes(&node.doc_string, &node.metadata_props) {
                write!(self.out, "# {note}")?;
                self.out.end_line()?;
            }
        }
        if let Some(name) = &node.name {
            write!(self.out, "[{}] ", Name(name))?;
        }
        write!(self.out, "{}", Names(&node.output))?;
        let space = if node.output.is_empty() { "" } else { " " };
        write!(self.out, "{space}= ")?;
        if let Some(domain) = node.domain.as_deref().filter(|d| !d.is_empty()) {
            write!(self.out, "{domain}.")?;
        }
        write!(self.out, "{}", node.op_type.as_deref().unwrap_or_default())?;
        if let Some(overload) = node.overload.as_deref().filter(|o| !o.is_empty()) {
            write!(self.out, ":{overload}")?;
        }
        // After the operands where graphs would tear the two apart.
        let holds_graph = node
            .attribute
            .iter()
            .any(|a| a.g.is_some() || !a.graphs.is_empty());
        if !holds_graph {
            self.attributes(&node.attribute)?;
        }
        write!(self.out, " ({})", Names(&node.input))?;
        if holds_graph {
            self.attributes(&node.attribute)?;
        }
        let origin = crate::metadata::get(&node.metadata_props, ORIGIN);
        if let Some(origin) = origin.filter(|_| !self.full) {
            write!(self.out, "  # from {}", Name(origin))?;
        }
        self.out.end_line()
    }

    fn attributes(&mut self, attributes: &[AttributeProto]) -> fmt::Result {
        if attributes.is_empty() {
            return Ok(());
        }
        write!(self.out, " <")?;
        for (i, attribute) in attributes.iter().enumerate() {
            write!(self.out, "{}", if i > 0 { ", " } else { "" })?;
            self.attribute(attribute)?;
        }
        write!(self.out, ">")
    }

    fn attribute(&mut self, attribute: &AttributeProto) -> fmt::Result {
        let kind = values::attribute_kind(attribute);
        write!(
            self.out,
            "{}",
            attribute.name.as_deref().unwrap_or_default()
        )?;
        if let Some(target) = &attribute.ref_attr_name {
            return write!(self.out, " : {kind} = @{}", Name(target));
        }
        if values::is_empty_list(attribute) {
            return write!(self.out, " : {kind} = []");
        }
        write!(self.out, " = ")?;
        if let Some(graph) = &attribute.g {
            return self.subgraph(graph);
        }
        if !attribute.graphs.is_empty() {
            write!(self.out, "[")?;
            for (i, graph) in attribute.graphs.iter().enumerate() {
                write!(self.out, "{}", if i > 0 { ", " } else { "" })?;
                self.subgraph(graph)?;
            }
            return write!(self.out, "]");
        }
        values::attribute_value(&mut self.out, attribute, self.full)
    }

    fn subgraph(&mut self, graph: &GraphProto) -> fmt::Result {
        self.graph(
            graph,
            &text::identifier(graph.name.as_deref().unwrap_or_default()),
        )
    }

    fn function(&mut self, function: &FunctionProto) -> fmt::Result {
        let text = |key: &str, value: &Option<String>| {
            value.as_ref().map(|v| format!("{key}: {}", Quoted(v)))
        };
        let mut header = Vec::new();
        header.extend(text("domain", &function.domain));
        header.extend(text("overload", &function.overload));
        header.push(opsets(
            function
                .opset_import
                .iter()
                .map(|o| (o.domain.as_deref(), o.version)),
        ));
        header.extend(text("doc_string", &function.doc_string));
        self.header(&header)?;
        write!(
            self.out,
            "{} ",
            Name(function.name.as_deref().unwrap_or_default())
        )?;
        self.function_attributes(function)?;
        write!(
            self.out,
            "({}) => ({})",
            Names(&function.input),
            Names(&function.output)
        )?;
        if self.full {
            for note in notes(&None, &function.metadata_props) {
                self.out.end_line()?;
                write!(self.out, "# {note}")?;
            }
        }
        if function.value_info.is_empty() {
            write!(self.out, " ")?;
        } else {
            self.out.end_line()?;
            self.out.open("<")?;
            for (i, info) in function.value_info.iter().enumerate() {
                types::value_info(&mut self.out, info)?;
                self.list_end(function.value_info.len() - 1 - i)?;
            }
            self.out.close(">")?;
            self.out.end_line()?;
        }
        self.nodes(&function.node)?;
        self.out.end_line()
    }

    /// Attributes without a default value come first, then those with one.
    fn function_attributes(&mut self, function: &FunctionProto) -> fmt::Result {
        if function.attribute.is_empty() && function.attribute_proto.is_empty() {
            return Ok(());
        }
        write!(self.out, "<{}", Names(&function.attribute))?;
        for (i, attribute) in function.attribute_proto.iter().enumerate() {
            let first = i == 0 && function.attribute.is_empty();
            write!(self.out, "{}", if first { "" } else { ", " })?;
            self.attribute(attribute)?;
        }
        write!(self.out, "> ")
    }
}

impl fmt::Display for Attribute {
    /// The attribute as in a node's attribute list, large tensors cut short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = crate::export::export_attribute(self, &Default::default());
        let mut printer = Printer {
            out: Lines::new(f),
            full: false,
        };
        printer.attribute(&proto)
    }
}

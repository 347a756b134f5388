//! Visits every tensor of a model: initializers, sparse values, attributes, and the same in
//! subgraphs, local functions and training graphs.

use std::fmt;

use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto,
    TensorProto,
};

/// What a tensor is to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A dense initializer of a graph.
    Initializer,
    /// An attribute's value, or a part of a sparse tensor.
    Other,
}

/// The way to a message, kept on the stack: it costs nothing until it is printed.
#[derive(Clone, Copy)]
pub(crate) struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    field: &'static str,
    index: Option<usize>,
}

impl<'a> Trail<'a> {
    fn new(above: Option<&'a Trail<'a>>, field: &'static str, index: Option<usize>) -> Self {
        Self {
            above,
            field,
            index,
        }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            write!(f, "{above}.")?;
        }
        f.write_str(self.field)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// Writes one walker; shared and exclusive access differ in nothing but the borrows.
macro_rules! walker {
    ($walk:ident, $iter:ident, $deref:ident $(, $mutable:tt)?) => {
        pub(crate) mod $walk {
            use super::*;

            /// Calls `visit` with each tensor, its role and the way to it, in the order of the
            /// schema's declarations; stops at the first error.
            pub(crate) fn model<E>(
                model: &$($mutable)? ModelProto,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                if let Some(g) = model.graph.$deref() {
                    graph(g, Trail::new(None, "graph", None), visit)?;
                }
                for (i, training) in model.training_info.$iter().enumerate() {
                    let at = Trail::new(None, "training_info", Some(i));
                    if let Some(g) = training.initialization.$deref() {
                        graph(g, Trail::new(Some(&at), "initialization", None), visit)?;
                    }
                    if let Some(g) = training.algorithm.$deref() {
                        graph(g, Trail::new(Some(&at), "algorithm", None), visit)?;
                    }
                }
                for (i, f) in model.functions.$iter().enumerate() {
                    function(f, Trail::new(None, "functions", Some(i)), visit)?;
                }
                Ok(())
            }

            fn graph<E>(
                graph: &$($mutable)? GraphProto,
                at: Trail<'_>,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                for (i, n) in graph.node.$iter().enumerate() {
                    node(n, Trail::new(Some(&at), "node", Some(i)), visit)?;
                }
                for (i, tensor) in graph.initializer.$iter().enumerate() {
                    let at = Trail::new(Some(&at), "initializer", Some(i));
                    visit(Role::Initializer, at, tensor)?;
                }
                for (i, s) in graph.sparse_initializer.$iter().enumerate() {
                    sparse(s, Trail::new(Some(&at), "sparse_initializer", Some(i)), visit)?;
                }
                Ok(())
            }

            fn function<E>(
                function: &$($mutable)? FunctionProto,
                at: Trail<'_>,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                for (i, a) in function.attribute_proto.$iter().enumerate() {
                    attribute(a, Trail::new(Some(&at), "attribute_proto", Some(i)), visit)?;
                }
                for (i, n) in function.node.$iter().enumerate() {
                    node(n, Trail::new(Some(&at), "node", Some(i)), visit)?;
                }
                Ok(())
            }

            fn node<E>(
                node: &$($mutable)? NodeProto,
                at: Trail<'_>,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                for (i, a) in node.attribute.$iter().enumerate() {
                    attribute(a, Trail::new(Some(&at), "attribute", Some(i)), visit)?;
                }
                Ok(())
            }

            fn attribute<E>(
                attribute: &$($mutable)? AttributeProto,
                at: Trail<'_>,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                if let Some(tensor) = attribute.t.$deref() {
                    visit(Role::Other, Trail::new(Some(&at), "t", None), tensor)?;
                }
                if let Some(g) = attribute.g.$deref() {
                    graph(g, Trail::new(Some(&at), "g", None), visit)?;
                }
                if let Some(s) = attribute.sparse_tensor.$deref() {
                    sparse(s, Trail::new(Some(&at), "sparse_tensor", None), visit)?;
                }
                for (i, tensor) in attribute.tensors.$iter().enumerate() {
                    visit(Role::Other, Trail::new(Some(&at), "tensors", Some(i)), tensor)?;
                }
                for (i, g) in attribute.graphs.$iter().enumerate() {
                    graph(g, Trail::new(Some(&at), "graphs", Some(i)), visit)?;
                }
                for (i, s) in attribute.sparse_tensors.$iter().enumerate() {
                    sparse(s, Trail::new(Some(&at), "sparse_tensors", Some(i)), visit)?;
                }
                Ok(())
            }

            fn sparse<E>(
                sparse: &$($mutable)? SparseTensorProto,
                at: Trail<'_>,
                visit: &mut impl FnMut(Role, Trail<'_>, &$($mutable)? TensorProto) -> Result<(), E>,
            ) -> Result<(), E> {
                if let Some(tensor) = sparse.values.$deref() {
                    visit(Role::Other, Trail::new(Some(&at), "values", None), tensor)?;
                }
                if let Some(tensor) = sparse.indices.$deref() {
                    visit(Role::Other, Trail::new(Some(&at), "indices", None), tensor)?;
                }
                Ok(())
            }
        }
    };
}

walker!(shared, iter, as_deref);
walker!(exclusive, iter_mut, as_deref_mut, mut);

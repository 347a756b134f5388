//! Symbolic sizes between ONNX and tract.

use std::collections::BTreeMap;

use bcosc_ir::{Dim, TensorType};
use tract_onnx::dim_expr::parse_onnx_dim;
use tract_onnx::prelude::{DatumType, InferenceFact, SymbolScope, TDim};
use tract_onnx::tract_hir::internal::{DimFact, ShapeFactoid, ToDim};

/// The symbols of one graph.
#[derive(Default)]
pub(crate) struct Symbols {
    scope: SymbolScope,
    /// Names that tract cannot read as an expression, and what stands for them.
    renamed: BTreeMap<String, TDim>,
}

impl Symbols {
    pub fn new(scope: SymbolScope) -> Self {
        let renamed = BTreeMap::new();
        Symbols { scope, renamed }
    }

    /// Takes up the names of declared types before any name is generated, so that none is made twice.
    pub fn reserve<'a>(&mut self, types: impl IntoIterator<Item = &'a TensorType>) {
        let mut unreadable = Vec::new();
        for dim in types.into_iter().flat_map(|t| t.shape.iter().flatten()) {
            match dim {
                Dim::Symbol(text) if parse_onnx_dim(&self.scope, text).is_err() => {
                    unreadable.push(text);
                }
                _ => {}
            }
        }
        for text in unreadable {
            self.symbol(text);
        }
    }

    /// What is declared of a graph input; where a size is not named, it gets a name.
    pub fn input_fact(
        &mut self,
        datum_type: Option<DatumType>,
        declared: &TensorType,
    ) -> InferenceFact {
        self.fact(datum_type, declared, |scope| {
            DimFact::from(scope.new_with_prefix("dim").to_dim())
        })
    }

    /// What is declared of a value in between; a size that is not named stays dynamic.
    pub fn value_fact(
        &mut self,
        datum_type: Option<DatumType>,
        declared: &TensorType,
    ) -> InferenceFact {
        self.fact(datum_type, declared, |_| DimFact::default())
    }

    fn fact(
        &mut self,
        datum_type: Option<DatumType>,
        declared: &TensorType,
        unknown: impl Fn(&SymbolScope) -> DimFact,
    ) -> InferenceFact {
        let mut fact = InferenceFact::default();
        if let Some(datum_type) = datum_type {
            fact = fact.with_datum_type(datum_type);
        }
        let Some(shape) = &declared.shape else {
            return fact;
        };
        let dims = shape.iter().map(|dim| match dim {
            // Sizes beyond tract's integers cannot be computed with anyway.
            Dim::Known(size) => i64::try_from(*size)
                .map_or_else(|_| DimFact::default(), |s| DimFact::from(s.to_dim())),
            Dim::Symbol(text) => DimFact::from(self.symbol(text)),
            Dim::Unknown => unknown(&self.scope),
        });
        fact.with_shape(ShapeFactoid::closed(dims.collect()))
    }

    fn symbol(&mut self, text: &str) -> TDim {
        if let Ok(dim) = parse_onnx_dim(&self.scope, text) {
            return dim;
        }
        let scope = &self.scope;
        let made_up = || scope.new_with_prefix(&identifier(text)).to_dim();
        self.renamed
            .entry(text.to_owned())
            .or_insert_with(made_up)
            .clone()
    }
}

/// A name that reads as one symbol.
fn identifier(text: &str) -> String {
    let kept = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let name: String = kept.collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name
    } else {
        format!("_{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcosc_ir::DataType;

    fn text_of(symbols: &mut Symbols, dims: &[Dim]) -> String {
        let declared = TensorType {
            dtype: DataType::Float,
            shape: Some(dims.to_vec()),
        };
        let fact = symbols.input_fact(Some(DatumType::F32), &declared);
        format!("{fact:?}")
    }

    #[test]
    fn sizes_without_a_name_get_one_that_is_free() {
        let mut symbols = Symbols::default();
        let named = TensorType {
            dtype: DataType::Float,
            shape: Some(vec![Dim::Symbol("dim".into())]),
        };
        symbols.reserve([&named]);
        let text = text_of(&mut symbols, &[Dim::Unknown, Dim::Unknown, Dim::Known(3)]);
        assert_eq!(text, "dim_0,dim_1,3,F32");
    }

    #[test]
    fn names_that_are_no_expression_stay_apart() {
        let mut symbols = Symbols::default();
        let dims = [
            "batch size",
            "batch size",
            "batch_size",
            "batch-size!",
            "2*N",
        ];
        let dims = dims.map(|s| Dim::Symbol(s.into()));
        let declared = TensorType {
            dtype: DataType::Float,
            shape: Some(dims.to_vec()),
        };
        symbols.reserve([&declared]);
        assert_eq!(
            text_of(&mut symbols, &dims),
            "batch_size_0,batch_size_0,batch_size,batch_size_,2*N,F32"
        );
    }
}

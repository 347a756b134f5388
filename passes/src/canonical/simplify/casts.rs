//! Casts to the same type.
//!
//! ```text
//! Cast <to = float> (float[..] x) = x
//! ```

use bcosc_ir::Patch;

use crate::Reason;
use crate::canonical::worklist::Site;

pub(super) fn same_type(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    let to = site
        .op
        .attribute("to")
        .and_then(|a| a.proto().i)
        .ok_or(Reason::Malformed)?;
    let from = site.graph.value_type(x).map(|t| t.dtype);
    let from = from.ok_or_else(|| Reason::UnknownShape(site.graph.value_name(x).to_owned()))?;
    if i64::from(from.to_i32()) != to {
        return Err(Reason::Needed("it changes the type"));
    }
    site.bypass(x)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::testing::{model, refusal, rewritten, text};

    fn cast(to: DataType) -> bcosc_ir::Model {
        let to = bcosc_ir::Attribute::int("to", to.to_i32().into());
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,4")
            .op("Cast", &["x"], "c", [to]);
        model(builder.op("Neg", &["c"], "y", []).output("y"))
    }

    #[test]
    fn a_cast_to_the_same_type_goes() {
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &cast(DataType::Float))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (y) {
           y = Neg (x)
        }
        "#);
    }

    #[test]
    fn a_cast_to_another_type_stays() {
        let reason = refusal(RULES, &cast(DataType::Double), "Cast");
        assert_eq!(reason, Reason::Needed("it changes the type"));
    }
}

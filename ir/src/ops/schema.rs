//! The schema of an operator, and the constructors used by `table.rs`.

/// A standard operator.
#[derive(Debug)]
pub struct Operator {
    /// Its name, such as `Conv`.
    pub name: &'static str,
    /// The opsets that changed it, the first of which introduced it; some only widened types.
    pub since_versions: &'static [i64],
    /// Its forms, oldest first; at least one.
    schemas: &'static [Schema],
}

/// The form of an operator as of an opset.
#[derive(Debug)]
pub struct Schema {
    /// The first opset of this form.
    pub since: i64,
    /// Whether it is deprecated.
    pub deprecated: bool,
    inputs: &'static str,
    outputs: &'static str,
    /// Attributes, by name.
    pub attributes: &'static [AttributeSchema],
}

/// An input or an output as the specification declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formal {
    /// Its name in the specification.
    pub name: &'static str,
    /// Its arity.
    pub arity: Arity,
}

/// The arity of a declared input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// One.
    Single,
    /// One or none.
    Optional,
    /// Any number; only the last input or output.
    Variadic,
}

/// An attribute as the specification declares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttributeSchema {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: AttributeKind,
    /// Whether it is required.
    pub required: bool,
    /// Its default, unless that depends on shapes or types.
    pub default: Option<Literal>,
}

/// Types of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as ONNX names them
pub enum AttributeKind {
    Float,
    Int,
    String,
    Tensor,
    Graph,
    SparseTensor,
    TypeProto,
    Floats,
    Ints,
    Strings,
}

/// The default of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // as ONNX names them
pub enum Literal {
    Float(f32),
    Int(i64),
    String(&'static str),
    Ints(&'static [i64]),
    Strings(&'static [&'static str]),
}

impl Operator {
    /// The form that the operator has in an opset: the oldest one that is known for opsets before that.
    pub fn schema(&self, opset: i64) -> &'static Schema {
        let index = self.schemas.iter().rposition(|form| form.since <= opset);
        &self.schemas[index.unwrap_or(0)]
    }

    /// Its forms, oldest first: all that are in use from [`OLDEST`](super::OLDEST) on.
    pub fn schemas(&self) -> &'static [Schema] {
        self.schemas
    }

    /// The newest form.
    pub fn newest(&self) -> &'static Schema {
        &self.schemas[self.schemas.len() - 1]
    }

    /// The opset that introduced the operator.
    pub fn since(&self) -> i64 {
        self.since_versions[0]
    }

    /// What an attribute is where a node does not have it. `None` if that depends on the opset: see
    /// [`Operator::schema`].
    pub fn default(&self, attribute: &str) -> Option<Literal> {
        let forms = self.schemas.iter();
        let mut found = forms.filter_map(|form| form.attribute(attribute));
        let default = found.next()?.default;
        default.filter(|_| found.all(|attribute| attribute.default == default))
    }
}

impl Schema {
    /// The declared inputs.
    pub fn inputs(&self) -> impl Iterator<Item = Formal> {
        self.inputs.split_whitespace().map(Formal::read)
    }

    /// The declared outputs.
    pub fn outputs(&self) -> impl Iterator<Item = Formal> {
        self.outputs.split_whitespace().map(Formal::read)
    }

    /// The slot of the input of a name.
    pub fn input(&self, name: &str) -> Option<u32> {
        let slot = self.inputs().position(|input| input.name == name)?;
        u32::try_from(slot).ok()
    }

    /// Whether an input is optional.
    pub fn is_optional(&self, slot: usize) -> bool {
        let input = self.inputs().nth(slot);
        input.is_some_and(|input| input.arity == Arity::Optional)
    }

    /// The attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&'static AttributeSchema> {
        self.attributes.iter().find(|a| a.name == name)
    }
}

impl Formal {
    fn read(text: &'static str) -> Self {
        let (name, arity) = match (text.strip_suffix('?'), text.strip_suffix('*')) {
            (Some(name), _) => (name, Arity::Optional),
            (None, Some(name)) => (name, Arity::Variadic),
            (None, None) => (text, Arity::Single),
        };
        Formal { name, arity }
    }
}

pub(super) const fn operator(
    name: &'static str,
    since_versions: &'static [i64],
    schemas: &'static [Schema],
) -> Operator {
    // The table is built by the compiler, which refuses one that does not hold this.
    assert!(!since_versions.is_empty() && !schemas.is_empty());
    Operator {
        name,
        since_versions,
        schemas,
    }
}

pub(super) const fn schema(
    since: i64,
    inputs: &'static str,
    outputs: &'static str,
    attributes: &'static [AttributeSchema],
) -> Schema {
    Schema {
        since,
        deprecated: false,
        inputs,
        outputs,
        attributes,
    }
}

pub(super) const fn deprecated(
    since: i64,
    inputs: &'static str,
    outputs: &'static str,
    attributes: &'static [AttributeSchema],
) -> Schema {
    Schema {
        deprecated: true,
        ..schema(since, inputs, outputs, attributes)
    }
}

pub(super) const fn optional(name: &'static str, kind: AttributeKind) -> AttributeSchema {
    AttributeSchema {
        name,
        kind,
        required: false,
        default: None,
    }
}

pub(super) const fn required(name: &'static str, kind: AttributeKind) -> AttributeSchema {
    AttributeSchema {
        required: true,
        ..optional(name, kind)
    }
}

const fn with(name: &'static str, kind: AttributeKind, default: Literal) -> AttributeSchema {
    AttributeSchema {
        default: Some(default),
        ..optional(name, kind)
    }
}

pub(super) const fn float(name: &'static str, default: f32) -> AttributeSchema {
    with(name, AttributeKind::Float, Literal::Float(default))
}

pub(super) const fn int(name: &'static str, default: i64) -> AttributeSchema {
    with(name, AttributeKind::Int, Literal::Int(default))
}

pub(super) const fn string(name: &'static str, default: &'static str) -> AttributeSchema {
    with(name, AttributeKind::String, Literal::String(default))
}

pub(super) const fn ints(name: &'static str, default: &'static [i64]) -> AttributeSchema {
    with(name, AttributeKind::Ints, Literal::Ints(default))
}

pub(super) const fn strings(
    name: &'static str,
    default: &'static [&'static str],
) -> AttributeSchema {
    with(name, AttributeKind::Strings, Literal::Strings(default))
}

//! Lines, indentation, names and strings.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use bcosc_onnx::proto::StringStringEntryProto;

const INDENT: usize = 3;

/// A text in the making: indents what comes first on a line.
pub(super) struct Lines<'a, 'f> {
    out: &'a mut fmt::Formatter<'f>,
    depth: usize,
    fresh: bool,
}

impl<'a, 'f> Lines<'a, 'f> {
    pub fn new(out: &'a mut fmt::Formatter<'f>) -> Self {
        Lines {
            out,
            depth: 0,
            fresh: true,
        }
    }

    /// `write!` comes here. A line break inside a string is part of the string and indents nothing.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        if std::mem::take(&mut self.fresh) {
            write!(self.out, "{:width$}", "", width = self.depth * INDENT)?;
        }
        self.out.write_fmt(text)
    }

    pub fn end_line(&mut self) -> fmt::Result {
        self.fresh = true;
        self.out.write_char('\n')
    }

    /// Opens a bracket and indents the lines inside it.
    pub fn open(&mut self, bracket: &str) -> fmt::Result {
        write!(self, "{bracket}")?;
        self.depth += 1;
        self.end_line()
    }

    /// Closes a bracket at the start of a line.
    pub fn close(&mut self, bracket: &str) -> fmt::Result {
        self.depth -= 1;
        write!(self, "{bracket}")
    }
}

/// Words that begin a type where a name may stand too; the last three are numbers.
const KEYWORDS: [&str; 8] = [
    "seq",
    "map",
    "optional",
    "sparse_tensor",
    "opaque",
    "nan",
    "inf",
    "infinity",
];

/// A name, quoted unless it is an identifier that cannot be taken for anything else.
pub(super) struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        Quoted(self.0).fmt(f)
    }
}

/// Names separated by commas; empty ones are left-out operands.
pub(super) struct Names<'a>(pub &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            let separator = if i > 0 { ", " } else { "" };
            write!(f, "{separator}{}", Name(name))?;
        }
        Ok(())
    }
}

/// A string in quotes. The syntax escapes quotes and backslashes only.
pub(super) struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// A name as an identifier, for the one place where the syntax takes no other: graphs in attributes.
pub(super) fn identifier(name: &str) -> Cow<'_, str> {
    if is_plain(name) {
        return Cow::Borrowed(name);
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    Cow::Owned(format!("_{}", name.chars().map(plain).collect::<String>()))
}

pub(super) fn is_plain(name: &str) -> bool {
    let is_keyword = |name: &str| {
        KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(name))
            || bcosc_onnx::DataType::ALL.iter().any(|t| t.name() == name)
    };
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !is_keyword(name)
}

/// The `opset_import` entry of a header.
pub(super) fn opsets<'a>(imports: impl Iterator<Item = (Option<&'a str>, Option<i64>)>) -> String {
    let entries: Vec<String> = imports
        .map(|(domain, version)| {
            format!(
                "{} : {}",
                Quoted(domain.unwrap_or_default()),
                version.unwrap_or(0)
            )
        })
        .collect();
    format!("opset_import: [{}]", entries.join(", "))
}

/// A string map without its brackets.
pub(super) fn string_map(entries: &[StringStringEntryProto]) -> String {
    let quoted = |text: &Option<String>| Quoted(text.as_deref().unwrap_or_default()).to_string();
    let entries: Vec<String> = entries
        .iter()
        .map(|e| format!("{}: {}", quoted(&e.key), quoted(&e.value)))
        .collect();
    entries.join(", ")
}

/// Documentation and metadata, each on a line of its own whatever it contains.
pub(super) fn notes(doc: &Option<String>, metadata: &[StringStringEntryProto]) -> Vec<String> {
    let doc = doc.iter().map(|doc| format!("doc_string: {doc:?}"));
    let metadata = metadata.iter().map(|entry| {
        let (key, value) = (entry.key.as_deref(), entry.value.as_deref());
        format!(
            "{:?}: {:?}",
            key.unwrap_or_default(),
            value.unwrap_or_default()
        )
    });
    doc.chain(metadata).collect()
}

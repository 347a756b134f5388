//! Parser for formulas: one definition per line; alternatives may continue on the next line.

use std::collections::BTreeMap;

use super::pattern::Pattern;

/// A formula that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("formula `{name}`: {problem} at \"{rest}\"")]
pub struct FormulaError {
    /// The definition.
    pub name: String,
    /// What is wrong.
    pub problem: &'static str,
    /// The text at the error.
    pub rest: String,
}

/// A definition: its parameters and its body.
struct Definition {
    parameters: Vec<String>,
    body: Pattern,
}

/// Parses definitions, in order. Those with parameters can be used in later ones; the others are returned.
pub fn read(text: &str) -> Result<Vec<(String, Pattern)>, FormulaError> {
    let mut known: BTreeMap<String, Definition> = BTreeMap::new();
    let mut found = Vec::new();
    for (head, body) in statements(text) {
        let mut reader = Reader {
            name: head.to_owned(),
            rest: head,
            known: &known,
        };
        let name = reader.word()?.to_owned();
        let parameters = reader.parameters()?;
        reader.rest = body;
        let body = reader.alternatives()?;
        if !reader.rest.trim().is_empty() {
            return Err(reader.error("unexpected text"));
        }
        if parameters.is_empty() {
            found.push((name, body));
        } else {
            known.insert(name, Definition { parameters, body });
        }
    }
    Ok(found)
}

/// Heads and bodies of `head = body`; a line without `=` goes on with the body before.
fn statements(text: &str) -> Vec<(&str, &str)> {
    let mut starts: Vec<usize> = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.contains('=') {
            starts.push(offset);
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parts = starts
        .iter()
        .zip(ends)
        .map(|(start, end)| &text[*start..end]);
    parts
        .filter_map(|part| part.split_once('='))
        .map(|(head, body)| (head.trim(), body))
        .collect()
}

struct Reader<'a> {
    name: String,
    rest: &'a str,
    known: &'a BTreeMap<String, Definition>,
}

impl<'a> Reader<'a> {
    fn error(&self, problem: &'static str) -> FormulaError {
        FormulaError {
            name: self.name.clone(),
            problem,
            rest: self.rest.trim().chars().take(20).collect(),
        }
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> Result<&'a str, FormulaError> {
        self.rest = self.rest.trim_start();
        let belongs = |c: char| c.is_alphanumeric() || "_-.$".contains(c);
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.error("expected a name or a number"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word)
    }

    fn parameters(&mut self) -> Result<Vec<String>, FormulaError> {
        let mut parameters = Vec::new();
        if self.eat('(') {
            loop {
                parameters.push(self.word()?.to_owned());
                if self.eat(')') {
                    break;
                }
                if !self.eat(',') {
                    return Err(self.error("expected a comma or a parenthesis"));
                }
            }
        }
        Ok(parameters)
    }

    fn alternatives(&mut self) -> Result<Pattern, FormulaError> {
        let mut patterns = vec![self.term()?];
        while self.eat('|') {
            patterns.push(self.term()?);
        }
        Ok(match patterns.len() {
            1 => patterns.remove(0),
            _ => Pattern::OneOf(patterns),
        })
    }

    fn term(&mut self) -> Result<Pattern, FormulaError> {
        if self.eat('(') {
            let inner = self.alternatives()?;
            return match self.eat(')') {
                true => Ok(inner),
                false => Err(self.error("expected a parenthesis")),
            };
        }
        let word = self.word()?;
        if !self.eat('(') {
            return Ok(leaf(word));
        }
        let mut operands = vec![self.alternatives()?];
        while self.eat(',') {
            operands.push(self.alternatives()?);
        }
        if !self.eat(')') {
            return Err(self.error("expected a parenthesis"));
        }
        if word.starts_with(char::is_uppercase) {
            return Ok(Pattern::Op(word.to_owned(), operands));
        }
        let definition = self.known.get(word);
        let definition = definition.ok_or_else(|| self.error("undefined formula"))?;
        if definition.parameters.len() != operands.len() {
            return Err(self.error("wrong number of operands"));
        }
        let named = definition
            .parameters
            .iter()
            .map(String::as_str)
            .zip(&operands)
            .collect();
        Ok(substitute(&definition.body, &named))
    }
}

fn leaf(word: &str) -> Pattern {
    match word.parse::<f64>() {
        Ok(number) => Pattern::Number(number),
        Err(_) if word == "_" => Pattern::Any,
        Err(_) if word.starts_with('$') => Pattern::Constant(word.to_owned()),
        Err(_) => Pattern::Bind(word.to_owned()),
    }
}

fn substitute(body: &Pattern, operands: &BTreeMap<&str, &Pattern>) -> Pattern {
    let all = |patterns: &[Pattern]| patterns.iter().map(|p| substitute(p, operands)).collect();
    match body {
        Pattern::Bind(name) => match operands.get(name.as_str()) {
            Some(operand) => (*operand).clone(),
            None => body.clone(),
        },
        Pattern::Op(op_type, patterns) => Pattern::Op(op_type.clone(), all(patterns)),
        Pattern::OneOf(patterns) => Pattern::OneOf(all(patterns)),
        Pattern::Constant(_) | Pattern::Number(_) | Pattern::Any => body.clone(),
    }
}

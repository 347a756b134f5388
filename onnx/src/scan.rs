//! A scan of the wire format before it is decoded.
//!
//! The scan walks tags and lengths by the schema and steps over payloads, so on a memory map it
//! touches only the pages that hold structure. It finds what the decoder would drop (unknown
//! fields), says where damage is in terms of the model (`graph.node[12]`), and bounds depth and
//! memory before anything is allocated.

use std::fmt::{self, Write as _};

use crate::error::{MalformedProblem, ReadErrorKind};
use crate::fields::{Field, Kind, MAX_FIELDS, MESSAGES, MODEL};

/// How deeply messages may be nested: the decoder's own limit.
const MAX_DEPTH: u32 = 100;

/// How many kinds of unknown fields are distinguished. Far beyond what new schema versions add; a
/// file that has more is something else.
const MAX_UNKNOWN: usize = 64;

/// Memory that decoded structure may take however small the file is, and for each of its bytes.
/// Two bytes on the wire can stand for a message of some hundred bytes; models that are all
/// structure and no weights take up to 19 bytes a byte.
const FREE_MEMORY: u64 = 256 << 20;
const MEMORY_A_BYTE: u64 = 32;

/// A field that this version of the schema does not have. Decoding drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// The message type, such as `NodeProto`.
    pub message: &'static str,
    /// First occurrence, such as `graph.node[12]`; empty for the model itself.
    pub place: String,
    /// The field number.
    pub field: u32,
    /// How often this message type has it in the whole model.
    pub count: u64,
}

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown field {} of {}", self.field, self.message)?;
        if !self.place.is_empty() {
            write!(f, " at {}", self.place)?;
        }
        if self.count > 1 {
            write!(f, " and {} more", self.count - 1)?;
        }
        Ok(())
    }
}

/// Scans an encoded `ModelProto`.
pub(crate) fn scan(bytes: &[u8]) -> Result<Vec<UnknownField>, ReadErrorKind> {
    let mut scanner = Scanner {
        bytes,
        trail: Vec::new(),
        unknown: Vec::new(),
        memory: 0,
    };
    scanner.message(MODEL, 0, bytes.len())?;
    Ok(scanner.unknown)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    /// The fields that lead to the message at hand, with their indices.
    trail: Vec<(&'static Field, u64)>,
    unknown: Vec<UnknownField>,
    /// Bytes of memory that what has been seen so far will take.
    memory: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Delimited,
    StartGroup,
    EndGroup,
    Fixed32,
}

impl Wire {
    fn name(self) -> &'static str {
        match self {
            Wire::Varint => "a number",
            Wire::Fixed64 => "64 bits",
            Wire::Delimited => "bytes with a length",
            Wire::StartGroup | Wire::EndGroup => "a group",
            Wire::Fixed32 => "32 bits",
        }
    }
}

impl Kind {
    fn wire(self) -> Wire {
        match self {
            Kind::Varint => Wire::Varint,
            Kind::Fixed32 => Wire::Fixed32,
            Kind::Fixed64 => Wire::Fixed64,
            Kind::Bytes | Kind::Text | Kind::Message(_) => Wire::Delimited,
        }
    }
}

/// A field's key and value on the wire: `start..end` is the value, without its length.
struct Entry {
    number: u32,
    wire: Wire,
    start: usize,
    end: usize,
}

impl Scanner<'_> {
    fn message(&mut self, message: usize, start: usize, end: usize) -> Result<(), ReadErrorKind> {
        let schema = &MESSAGES[message];
        let mut counts = [0u64; MAX_FIELDS];
        let mut at = start;
        while at < end {
            let key_at = at;
            let entry = self.entry(message, at, end)?;
            at = entry.end;
            let Some(index) = schema.fields.iter().position(|f| f.number == entry.number) else {
                if matches!(entry.wire, Wire::StartGroup | Wire::EndGroup) {
                    return Err(self.malformed(message, None, key_at, MalformedProblem::Key));
                }
                self.unknown(message, key_at, entry.number)?;
                continue;
            };
            let field = &schema.fields[index];
            self.known(message, field, counts[index], key_at, &entry)?;
            counts[index] += 1;
        }
        Ok(())
    }

    /// Checks one field that the schema has, and what is below it.
    fn known(
        &mut self,
        message: usize,
        field: &'static Field,
        index: u64,
        key_at: usize,
        entry: &Entry,
    ) -> Result<(), ReadErrorKind> {
        let expected = field.kind.wire();
        let len = entry.end - entry.start;
        let scalar = matches!(field.kind, Kind::Varint | Kind::Fixed32 | Kind::Fixed64);
        if entry.wire != expected {
            // Repeated numbers come packed or one by one, whatever the schema prefers.
            if !(scalar && field.repeated && entry.wire == Wire::Delimited) {
                let problem = MalformedProblem::WireType {
                    expected: expected.name(),
                    found: entry.wire.name(),
                };
                return Err(self.malformed(message, Some(field), key_at, problem));
            }
            let width = match field.kind {
                Kind::Fixed32 => 4,
                Kind::Fixed64 => 8,
                _ => 1,
            };
            if !len.is_multiple_of(width) {
                let problem = MalformedProblem::Packed { len: len as u64 };
                return Err(self.malformed(message, Some(field), key_at, problem));
            }
            return Ok(());
        }
        match field.kind {
            Kind::Message(inner) => {
                if self.trail.len() as u32 >= MAX_DEPTH {
                    let problem = MalformedProblem::TooDeep(MAX_DEPTH);
                    return Err(self.malformed(message, Some(field), key_at, problem));
                }
                self.take_memory(MESSAGES[inner].size)?;
                self.trail.push((field, index));
                self.message(inner, entry.start, entry.end)?;
                self.trail.pop();
            }
            Kind::Text => {
                if std::str::from_utf8(&self.bytes[entry.start..entry.end]).is_err() {
                    let problem = MalformedProblem::Utf8;
                    return Err(self.malformed(message, Some(field), entry.start, problem));
                }
                self.take_memory(size_of::<String>() + len)?;
            }
            Kind::Bytes if field.repeated => self.take_memory(size_of::<bytes::Bytes>())?,
            Kind::Varint if field.repeated => self.take_memory(8)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads the key at `at` and finds where its value lies.
    fn entry(&self, message: usize, at: usize, end: usize) -> Result<Entry, ReadErrorKind> {
        let fail = |at, problem| self.malformed(message, None, at, problem);
        let (key, start) = self
            .varint(at, end)
            .ok_or_else(|| fail(at, MalformedProblem::Varint))?;
        let (Ok(number), wire) = (u32::try_from(key >> 3), key & 7) else {
            return Err(fail(at, MalformedProblem::Key));
        };
        let wire = match wire {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Delimited,
            3 => Wire::StartGroup,
            4 => Wire::EndGroup,
            5 => Wire::Fixed32,
            _ => return Err(fail(at, MalformedProblem::Key)),
        };
        if number == 0 || key > u64::from(u32::MAX) {
            return Err(fail(at, MalformedProblem::Key));
        }
        let (start, len) = match wire {
            Wire::Varint => match self.varint(start, end) {
                Some((_, after)) => (start, (after - start) as u64),
                None => return Err(fail(start, MalformedProblem::Varint)),
            },
            Wire::Fixed64 => (start, 8),
            Wire::Fixed32 => (start, 4),
            Wire::StartGroup | Wire::EndGroup => (start, 0),
            Wire::Delimited => match self.varint(start, end) {
                Some((len, after)) => (after, len),
                None => return Err(fail(start, MalformedProblem::Varint)),
            },
        };
        let left = (end - start) as u64;
        if len > left {
            let problem = MalformedProblem::Truncated { needed: len, left };
            let field = MESSAGES[message].fields.iter().find(|f| f.number == number);
            return Err(self.malformed(message, field, start, problem));
        }
        Ok(Entry {
            number,
            wire,
            start,
            end: start + len as usize,
        })
    }

    /// The number at `at` and where it ends; `None` if it is cut off or does not fit 64 bits.
    fn varint(&self, at: usize, end: usize) -> Option<(u64, usize)> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[at..end].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return (i < 9 || byte <= 1).then_some((value, at + i + 1));
            }
        }
        None
    }

    fn take_memory(&mut self, bytes: usize) -> Result<(), ReadErrorKind> {
        self.memory += bytes as u64;
        let len = self.bytes.len() as u64;
        if self.memory > FREE_MEMORY.saturating_add(len.saturating_mul(MEMORY_A_BYTE)) {
            return Err(ReadErrorKind::TooDense {
                needed: self.memory,
                len,
            });
        }
        Ok(())
    }

    fn unknown(&mut self, message: usize, at: usize, field: u32) -> Result<(), ReadErrorKind> {
        let name = MESSAGES[message].name;
        let seen = |u: &&mut UnknownField| u.field == field && u.message == name;
        if let Some(known) = self.unknown.iter_mut().find(seen) {
            known.count += 1;
            return Ok(());
        }
        if self.unknown.len() == MAX_UNKNOWN {
            let problem = MalformedProblem::TooManyUnknown(MAX_UNKNOWN);
            return Err(self.malformed(message, None, at, problem));
        }
        self.unknown.push(UnknownField {
            message: name,
            place: self.place(),
            field,
            count: 1,
        });
        Ok(())
    }

    /// The way to the message at hand: `graph.node[12]`, empty for the model.
    fn place(&self) -> String {
        let mut place = String::new();
        for (field, index) in &self.trail {
            if !place.is_empty() {
                place.push('.');
            }
            place.push_str(field.name);
            if field.repeated {
                // Writing to a string does not fail.
                let _ = write!(place, "[{index}]");
            }
        }
        place
    }

    fn malformed(
        &self,
        message: usize,
        field: Option<&Field>,
        at: usize,
        problem: MalformedProblem,
    ) -> ReadErrorKind {
        let mut place = self.place();
        if let Some(field) = field {
            if !place.is_empty() {
                place.push('.');
            }
            place.push_str(field.name);
        }
        let name = MESSAGES[message].name;
        let place = if place.is_empty() {
            name.to_string()
        } else {
            format!("{place} ({name})")
        };
        ReadErrorKind::Malformed {
            offset: at as u64,
            place,
            problem,
        }
    }
}

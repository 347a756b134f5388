//! Metrics of a training run: JSON lines, and event files for TensorBoard.
//!
//! An event file is a sequence of records: the length of the data in 8 bytes, its checksum, the data, its checksum.
//! The data is a protobuf message `Event`; a checksum is a masked CRC-32C, as TensorFlow's record format has it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;
use serde::Serialize;
use serde_json::Value as Json;

use crate::replace::replace;

/// The name of the file with JSON lines.
pub const METRICS: &str = "metrics.jsonl";

/// Writes metrics into a folder.
#[derive(Debug)]
pub struct Metrics {
    lines: File,
    events: File,
}

impl Metrics {
    /// Opens the files in a folder. Lines of steps after `step` are dropped: a run that was interrupted there goes on.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> io::Result<Self> {
        let path = folder.join(METRICS);
        let kept = kept(&path, step)?;
        replace(&path, kept.as_bytes())?;
        let lines = OpenOptions::new().append(true).open(&path)?;
        let name = format!("events.out.tfevents.{}.{step}", now() as u64);
        let mut events = File::create(folder.join(name))?;
        write_event(
            &mut events,
            &Event {
                wall_time: now(),
                file_version: Some("brain.Event:2".to_owned()),
                ..Event::default()
            },
        )?;
        Ok(Metrics { lines, events })
    }

    /// Records the metrics of a step, an object whose numbers become scalars in TensorBoard.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn record(&mut self, step: u64, metrics: &impl Serialize) -> io::Result<()> {
        let object = serde_json::to_value(metrics)?;
        writeln!(self.lines, "{object}")?;
        let mut values = Vec::new();
        for (name, value) in object.as_object().into_iter().flatten() {
            if let Some(number) = value.as_f64().filter(|_| name != "step") {
                values.push(Scalar {
                    tag: name.clone(),
                    simple_value: number as f32,
                });
            }
        }
        write_event(
            &mut self.events,
            &Event {
                wall_time: now(),
                step: step as i64,
                summary: Some(Summary { values }),
                ..Event::default()
            },
        )
    }
}

/// The lines of a file up to a step.
fn kept(path: &Path, step: u64) -> io::Result<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut kept = String::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        let found: Option<Json> = serde_json::from_str(&line).ok();
        let at = found.as_ref().and_then(|found| found.get("step")?.as_u64());
        if at.is_some_and(|at| at <= step && step > 0) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The messages of TensorBoard's `event.proto` and `summary.proto`, as far as they are used.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

fn write_event(file: &mut impl Write, event: &Event) -> io::Result<()> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked(&length).to_le_bytes());
    record.extend_from_slice(&data);
    record.extend_from_slice(&masked(&data).to_le_bytes());
    file.write_all(&record)
}

/// A CRC-32C, rotated and moved, so that a checksum of data with checksums stays useful.
fn masked(data: &[u8]) -> u32 {
    const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    let crc = CASTAGNOLI.checksum(data);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[derive(Serialize)]
    struct Row {
        step: u64,
        loss: f64,
        note: &'static str,
    }

    /// Bytes written by `tensorboard.summary.writer.record_writer.RecordWriter`.
    #[test]
    fn records_are_those_of_tensorboard() {
        let event = Event {
            wall_time: 1.0,
            step: 3,
            summary: Some(Summary {
                values: vec![Scalar {
                    tag: "loss".to_owned(),
                    simple_value: 0.5,
                }],
            }),
            ..Event::default()
        };
        let mut record = Vec::new();
        write_event(&mut record, &event).unwrap();
        let hex: String = record.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, RECORD);
    }

    const RECORD: &str =
        "1a00000000000000129bd82d09000000000000f03f10032a0d0a0b0a046c6f7373150000003f7fb84377";

    #[test]
    fn a_run_that_goes_on_drops_later_lines() {
        let folder = tempfile::tempdir().unwrap();
        let row = |step| Row {
            step,
            loss: 0.5,
            note: "text is no scalar",
        };
        let mut metrics = Metrics::open(folder.path(), 0).unwrap();
        for step in 1..=3 {
            metrics.record(step, &row(step)).unwrap();
        }
        let mut metrics = Metrics::open(folder.path(), 2).unwrap();
        metrics.record(3, &row(3)).unwrap();
        let lines = fs::read_to_string(folder.path().join(METRICS)).unwrap();
        let steps: Vec<u64> = lines
            .lines()
            .map(|line| {
                serde_json::from_str::<Json>(line).unwrap()["step"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(steps, [1, 2, 3]);
        Metrics::open(folder.path(), 0).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(METRICS)).unwrap(), "");
    }
}

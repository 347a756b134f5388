//! Value parsers shared by several commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bcosc::passes::LogitBias;
use bcosc_onnx::STDOUT;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// A file for a result; `-` is standard output.
pub fn result_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| match path == Path::new("-") {
        true => STDOUT.into(),
        false => path,
    })
}

/// The value of `--logit-bias`.
#[derive(Clone, Copy, Debug)]
pub struct Bias(pub LogitBias);

pub fn at_least_two(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= 2 => Ok(count),
        _ => Err("expected a whole number of at least 2".to_owned()),
    }
}

pub fn logit_bias(text: &str) -> Result<Bias, String> {
    match text {
        "auto" => Ok(Bias(LogitBias::Prior)),
        "none" => Ok(Bias(LogitBias::None)),
        number => match number.parse::<f64>() {
            Ok(bias) if bias.is_finite() => Ok(Bias(LogitBias::Value(bias))),
            _ => Err("expected `auto`, `none` or a number".to_owned()),
        },
    }
}

pub fn finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

pub fn positive(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

pub fn decay(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if number >= 0.0 => Ok(number),
        _ => Err("expected a number of at least 0".to_owned()),
    }
}

pub fn fraction(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

pub fn above_zero(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("expected a time such as 90s, 10min or 1h".to_owned()),
    }
}

/// A number of bytes, in the decimal units that sizes are printed in.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(unit));
    let bytes = bytes.filter(|_| unit > 0);
    bytes.ok_or_else(|| "expected a size such as 500MB or 4GB".to_owned())
}

pub fn size(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once(',').unwrap_or((text, text));
    let side = |text: &str| text.trim().parse().ok().filter(|side| *side > 0);
    match (side(height), side(width)) {
        (Some(height), Some(width)) => Ok([height, width]),
        _ => Err("expected a size such as 224, or a height and width such as 224,160".to_owned()),
    }
}

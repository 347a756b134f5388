//! Explanations as arrays, for other programs.
//!
//! For K explained classes of one picture:
//!
//! | array | shape | what |
//! |---|---|---|
//! | `class` | `[K]` | which classes |
//! | `logit`, `residual` | `[K]` | logit, and logit minus logit bias and contributions |
//! | `logit_bias` | `[1]` | the constant added to every logit |
//! | `logits` | `[classes]` | logits of all classes |
//! | `weights` | `[K, 2C, H, W]` | W(x); `C` channels where the model is not B-cos |
//! | `contributions` | `[K, H, W]` | contribution of each pixel |
//! | `preprocessing` | bytes | preprocessing as JSON; in safetensors, a metadata entry |

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Cursor;

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzWriter, WritableElement};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::Explanation;
use crate::{Error, Intake};

const PREPROCESSING: &str = "preprocessing";

/// An array of one of the types that occur.
enum Elements {
    I64(Vec<i64>),
    F64(Vec<f64>),
    F32(Vec<f32>),
}

struct Array {
    name: &'static str,
    shape: Vec<usize>,
    elements: Elements,
}

fn arrays(explanations: &[Explanation]) -> Vec<Array> {
    let count = explanations.len();
    let Some(first) = explanations.first() else {
        return Vec::new();
    };
    let [height, width] = first.size;
    let of =
        |get: &dyn Fn(&Explanation) -> f64| Elements::F64(explanations.iter().map(get).collect());
    let maps = |get: &dyn Fn(&Explanation) -> &[f32]| {
        Elements::F32(explanations.iter().flat_map(|e| get(e).to_vec()).collect())
    };
    let array = |name, shape: &[usize], elements| Array {
        name,
        shape: shape.to_vec(),
        elements,
    };
    let classes = explanations.iter().map(|e| e.class as i64).collect();
    vec![
        array("class", &[count], Elements::I64(classes)),
        array("logit", &[count], of(&|e| e.logit)),
        array("residual", &[count], of(&|e| e.residual)),
        array("logit_bias", &[1], Elements::F64(vec![first.logit_bias])),
        array(
            "logits",
            &[first.logits.len()],
            Elements::F32(first.logits.clone()),
        ),
        array(
            "weights",
            &[count, first.channels, height, width],
            maps(&|e| &e.weights),
        ),
        array(
            "contributions",
            &[count, height, width],
            maps(&|e| &e.contributions),
        ),
    ]
}

/// The arrays of one picture as a `.npz` file.
///
/// # Errors
/// [`Error::Encode`] if an array cannot be written.
pub fn npz(explanations: &[Explanation], intake: &Intake) -> Result<Vec<u8>, Error> {
    let mut writer = NpzWriter::new(Cursor::new(Vec::new()));
    for Array {
        name,
        shape,
        elements,
    } in arrays(explanations)
    {
        match elements {
            Elements::I64(elements) => add(&mut writer, name, shape, elements)?,
            Elements::F64(elements) => add(&mut writer, name, shape, elements)?,
            Elements::F32(elements) => add(&mut writer, name, shape, elements)?,
        }
    }
    let preprocessing = intake.to_json()?.into_bytes();
    add(
        &mut writer,
        PREPROCESSING,
        vec![preprocessing.len()],
        preprocessing,
    )?;
    let file = writer.finish().map_err(|e| Error::encode("npz", e))?;
    Ok(file.into_inner())
}

fn add<T: WritableElement>(
    writer: &mut NpzWriter<Cursor<Vec<u8>>>,
    name: &str,
    shape: Vec<usize>,
    elements: Vec<T>,
) -> Result<(), Error> {
    let array = ArrayD::from_shape_vec(IxDyn(&shape), elements);
    let fail = |problem: &dyn Display| Error::encode("npz", problem);
    let array = array.map_err(|e| fail(&e))?;
    writer.add_array(name, &array).map_err(|e| fail(&e))
}

/// The arrays of one picture as a `.safetensors` file.
///
/// # Errors
/// [`Error::Encode`] if an array cannot be written.
pub fn safetensors(explanations: &[Explanation], intake: &Intake) -> Result<Vec<u8>, Error> {
    let fail = |problem: &dyn Display| Error::encode("safetensors", problem);
    let arrays: Vec<_> = arrays(explanations)
        .into_iter()
        .map(|array| {
            let (dtype, bytes) = match array.elements {
                Elements::I64(x) => (Dtype::I64, little_endian(&x, |x| x.to_le_bytes())),
                Elements::F64(x) => (Dtype::F64, little_endian(&x, |x| x.to_le_bytes())),
                Elements::F32(x) => (Dtype::F32, little_endian(&x, |x| x.to_le_bytes())),
            };
            (array.name, dtype, array.shape, bytes)
        })
        .collect();
    let mut views = Vec::with_capacity(arrays.len());
    for (name, dtype, shape, bytes) in &arrays {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        views.push((*name, view.map_err(|e| fail(&e))?));
    }
    let metadata = HashMap::from([(PREPROCESSING.to_owned(), intake.to_json()?)]);
    // Only one entry: the order of several would not be deterministic.
    serialize(views, Some(metadata)).map_err(|e| fail(&e))
}

fn little_endian<T: Copy, const N: usize>(elements: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    elements.iter().flat_map(|x| bytes(*x)).collect()
}

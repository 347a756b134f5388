//! What a file that is not an ONNX model looks like.

/// A description of well-known formats by their first bytes; `None` for an ONNX model and for
/// what is not recognised.
pub(crate) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: &[(usize, &[u8], &str)] = &[
        (
            0,
            b"PK\x03\x04",
            "it looks like a ZIP archive (PyTorch checkpoints and .npz files are ZIP archives)",
        ),
        (0, b"\xff\xd8\xff", "it looks like a JPEG image"),
        (0, b"\x89PNG", "it looks like a PNG image"),
        (0, b"GIF8", "it looks like a GIF image"),
        (0, b"RIFF", "it looks like a RIFF file (WebP, WAV or AVI)"),
        (0, b"%PDF", "it looks like a PDF document"),
        (0, b"\x1f\x8b", "it looks like a gzip archive"),
        (0, b"\x28\xb5\x2f\xfd", "it looks like a Zstandard archive"),
        (0, b"\x89HDF", "it looks like an HDF5 file (Keras .h5)"),
        (0, b"\x93NUMPY", "it looks like a NumPy array"),
        (0, b"GGUF", "it looks like a GGUF model"),
        (0, b"\x7fELF", "it looks like a program"),
        (4, b"TFL3", "it looks like a TensorFlow Lite model"),
        (4, b"ORTM", "it looks like an ONNX Runtime (.ort) model"),
        (
            0,
            b"version https://git-lfs",
            "it is a Git LFS pointer; fetch the file itself with `git lfs pull`",
        ),
    ];
    if bytes.is_empty() {
        return Some("the file is empty");
    }
    for (at, magic, what) in MAGIC {
        if bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)) {
            return Some(what);
        }
    }
    if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Some("it looks like a Python pickle (PyTorch checkpoint)");
    }
    if bytes.get(8) == Some(&b'{') && bytes.get(6..8) == Some(&[0, 0]) {
        return Some("it looks like a safetensors file");
    }
    text(bytes)
}

/// Kinds of text, distinguished by how they begin.
fn text(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(512)];
    // The cut may fall inside a character.
    let head = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if head.is_empty() || head.chars().any(control) {
        return None;
    }
    let start = head.trim_start().to_ascii_lowercase();
    Some(
        if start.starts_with("<!doctype html") || start.starts_with("<html") {
            "it looks like an HTML page, perhaps the error page of a download"
        } else if start.starts_with("<?xml") {
            "it looks like an XML file"
        } else if start.starts_with('{') || start.starts_with('[') {
            "it looks like a JSON file"
        } else {
            "it looks like a text file"
        },
    )
}

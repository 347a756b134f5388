//! The reader accepts any bytes: it returns an error, or a model that is the same after writing and
//! reading.

#![no_main]

use bcosc_ir::onnx::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = decode(data.to_vec().into()) else {
        return;
    };
    let bytes = encode(&file.model).expect("what was read can be written");
    let back = decode(bytes.clone()).expect("what was written can be read");
    assert!(back.unknown_fields.is_empty());
    // As bytes, since a NaN among the values is not equal to itself.
    assert!(encode(&back.model).is_ok_and(|again| again == bytes));
    for tensor in file.model.graph.iter().flat_map(|graph| &graph.initializer) {
        if let Ok(payload) = tensor.payload() {
            assert_eq!(tensor.byte_len(), Ok(payload.len() as u64));
        }
    }
});

//! Import accepts any message: it returns an error, or a graph whose export is imported as the same
//! graph.

#![no_main]

use bcosc_ir::Model;
use bcosc_ir::onnx::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = decode(data.to_vec().into()) else {
        return;
    };
    let Ok(model) = Model::from_proto(file.model) else {
        return;
    };
    let exported = model.to_proto();
    let bytes = encode(&exported).expect("what was exported can be written");
    let again = Model::from_proto(exported).expect("what was exported can be imported");
    // As bytes, since a NaN among the values is not equal to itself.
    assert!(encode(&again.to_proto()).is_ok_and(|again| again == bytes));
});

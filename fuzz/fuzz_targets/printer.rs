//! Every model that import accepts is printed, short and in full.

#![no_main]

use bcosc_ir::onnx::decode;
use bcosc_ir::{Model, TextOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = decode(data.to_vec().into()) else {
        return;
    };
    let Ok(model) = Model::from_proto(file.model) else {
        return;
    };
    for full in [false, true] {
        let text = model.to_text(TextOptions { full });
        for name in model
            .graph
            .inputs()
            .iter()
            .map(|&input| model.graph.value_name(input))
        {
            // The text quotes names with other characters, and escapes some of these.
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            assert!(
                !plain || text.contains(name),
                "no input `{name}` in:\n{text}"
            );
        }
    }
});

//! String maps of models, graphs and nodes (`metadata_props`).

use bcosc_onnx::proto::StringStringEntryProto;

pub(crate) fn get<'a>(entries: &'a [StringStringEntryProto], key: &str) -> Option<&'a str> {
    let entry = entries.iter().find(|e| e.key.as_deref() == Some(key))?;
    entry.value.as_deref()
}

pub(crate) fn set(entries: &mut Vec<StringStringEntryProto>, key: &str, value: &str) {
    let value = Some(value.to_owned());
    match entries.iter_mut().find(|e| e.key.as_deref() == Some(key)) {
        Some(entry) => entry.value = value,
        None => entries.push(StringStringEntryProto {
            key: Some(key.to_owned()),
            value,
        }),
    }
}

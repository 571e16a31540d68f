//! Makes what handlers answer storable: content must be able to block neither a claim nor an ending.

use std::fmt::Write;

use serde_json::{Value, json};

/// The largest result or error that is stored, in bytes.
const MAX_STORED: usize = 1024 * 1024;
/// The largest input that is copied into the log, in bytes.
const MAX_LOGGED_INPUT: usize = 8 * 1024;
const MAX_ERROR: usize = 8 * 1024;
/// Lists and objects in each other. What reads a value again, `serde_json`, gives up at 128 levels, and mostly reads it
/// inside others: a webhook adds two. What writes one, or looks at it, calls itself for each.
pub(super) const MAX_DEPTH: usize = 120;

/// The size of an input that is too large to be copied into the log.
pub(super) fn oversize(context: &str) -> Option<i64> {
    (context.len() > MAX_LOGGED_INPUT).then(|| i64::try_from(context.len()).unwrap_or(i64::MAX))
}

/// A value as JSON text that `jsonb` takes. Postgres cannot store the character U+0000.
pub(super) fn storable_json(mut value: Value) -> String {
    if is_deeper_than(&value, MAX_DEPTH) {
        return json!({ "truncated": true, "levels": format!("more than {MAX_DEPTH}") }).to_string();
    }
    let mut text = json_text(&value);
    if holds_nul(&value) {
        replace_nul(&mut value);
        text = json_text(&value);
    }
    if text.len() > MAX_STORED {
        return json!({ "truncated": true, "sizeBytes": text.len() }).to_string();
    }
    text
}

/// Unlike `to_string` it does not write piece by piece through a formatter.
pub(super) fn json_text(value: &Value) -> String {
    serde_json::to_string(value).expect("the keys of a value are strings")
}

/// An error message that a text column takes.
pub(super) fn storable_text(text: &str) -> String {
    let mut text = text.replace('\0', "\u{FFFD}");
    if text.len() > MAX_ERROR {
        let size = text.len();
        text.truncate(text.floor_char_boundary(MAX_ERROR));
        let _ = write!(text, " … (truncated, {size} bytes)");
    }
    text
}

/// Whether a string of the value, or a key, holds the character U+0000.
pub(super) fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether lists and objects stand in each other on more levels than that.
pub(super) fn is_deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper_than(item, levels - 1)),
        Value::Object(fields) => {
            levels == 0 || fields.values().any(|field| is_deeper_than(field, levels - 1))
        }
        _ => false,
    }
}

fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('\0', "\u{FFFD}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    replace_nul(&mut value);
                    (name.replace('\0', "\u{FFFD}"), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_character_becomes_the_replacement_character_in_keys_and_values() {
        let text = storable_json(json!({ "a\0b": ["c\0"] }));
        assert_eq!(text, "{\"a\u{FFFD}b\":[\"c\u{FFFD}\"]}");
        assert_eq!(storable_text("x\0y"), "x\u{FFFD}y");
    }

    #[test]
    fn a_result_of_a_megabyte_is_replaced_by_a_note_of_its_size() {
        let note: Value = serde_json::from_str(&storable_json(json!("x".repeat(MAX_STORED)))).unwrap();
        assert_eq!(note, json!({ "truncated": true, "sizeBytes": MAX_STORED + 2 }));
    }

    #[test]
    fn a_long_error_is_cut_at_a_character() {
        let text = storable_text(&"ä".repeat(MAX_ERROR));
        assert!(text.ends_with("(truncated, 16384 bytes)"), "{text}");
    }

    #[test]
    fn an_input_over_eight_kilobytes_is_not_copied() {
        assert_eq!(oversize(&"x".repeat(8192)), None);
        assert_eq!(oversize(&"x".repeat(8193)), Some(8193));
    }
}

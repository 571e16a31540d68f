//! Log lines as Google Cloud reads them: those of `tracing-stackdriver`, with what it has no words for. That is the
//! trace, labels to search by, and errors that Error Reporting takes up.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

use super::trace::Trace;
use crate::config::LogConfig;

const TRACE: &str = "logging.googleapis.com/trace";
const SPAN: &str = "logging.googleapis.com/spanId";
const SAMPLED: &str = "logging.googleapis.com/trace_sampled";
const LABELS: &str = "logging.googleapis.com/labels";
const LOCATION: &str = "logging.googleapis.com/sourceLocation";
const REPORTED_ERROR: &str =
    "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent";

/// What can be searched for without knowing where in a line it stands: as a label, as a field of a span, and as a
/// field of an event, which `tracing-stackdriver` writes in camel case.
const SEARCHABLE: &[(&str, &str)] =
    &[("task_id", "taskId"), ("task_type", "taskType"), ("attempt", "attempt"), ("request_id", "requestId")];

/// Bytes of one text. An entry of more than 256 KiB is refused, and what is longer than this nobody reads.
const LONGEST: usize = 16 * 1024;

/// Writes lines to standard error.
pub(super) struct CloudLines {
    project: Option<String>,
    service: Value,
}

/// A line that needs something added to its end and nothing else: that of an attempt that ended well, mostly, of which
/// there may be thousands a second. What does not fit, an escaped text say, is no such line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plain<'a> {
    severity: &'a str,
    task_id: &'a str,
    task_type: &'a str,
    attempt: u32,
    request_id: Option<IgnoredAny>,
    traceparent: Option<IgnoredAny>,
    span: Option<IgnoredAny>,
    #[serde(rename = "logging.googleapis.com/labels")]
    labels: Option<IgnoredAny>,
}

/// One line on its way.
pub(super) struct CloudLine<'a>(&'a CloudLines);

impl CloudLines {
    pub(super) fn new(config: &LogConfig) -> Self {
        Self {
            project: config.project.clone(),
            service: json!({ "service": config.service, "version": config.version }),
        }
    }

    /// The line with all that Google has a place for in its place. What is no JSON object stays as it is.
    fn complete<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        self.add_to_plain(line).map_or_else(|| self.rewrite(line), Cow::Owned)
    }

    /// What [`CloudLines::rewrite`] would make of a plain line, at a fraction of the cost.
    fn add_to_plain(&self, line: &[u8]) -> Option<Vec<u8>> {
        let plain: Plain<'_> = serde_json::from_slice(line).ok()?;
        let Plain { severity, task_id, task_type, attempt, request_id, traceparent, span, labels } = plain;
        let simple = [request_id, traceparent, span, labels].iter().all(Option::is_none);
        if !simple || is_error(severity) || line.len() > LONGEST {
            return None;
        }
        let trace = self.trace_name(Uuid::parse_str(task_id).ok()?.simple());
        let mut longer = line.strip_suffix(b"}\n")?.to_vec();
        // These texts had no escapes, so they need none.
        writeln!(
            longer,
            r#","{TRACE}":"{trace}","{LABELS}":{{"task_id":"{task_id}","task_type":"{task_type}","attempt":"{attempt}"}}}}"#,
        )
        .ok()?;
        Some(longer)
    }

    fn rewrite<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(line) else { return line.into() };
        let spans = match fields.remove("spans") {
            Some(Value::Array(spans)) => spans,
            _ => Vec::new(),
        };
        self.add_labels_and_trace(&mut fields, &spans);
        // The innermost span stands in the line already.
        if spans.len() > 1 {
            fields.insert("spans".to_owned(), spans.into());
        }
        if fields.get("severity").and_then(Value::as_str).is_some_and(is_error) {
            self.add_report(&mut fields);
        }
        fields.values_mut().for_each(shorten);
        match serde_json::to_vec(&fields) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                bytes.into()
            }
            Err(_) => line.into(),
        }
    }

    fn add_labels_and_trace(&self, fields: &mut Map<String, Value>, spans: &[Value]) {
        let find = |in_span: &str, in_event: &str| {
            let of_span = || spans.iter().rev().find_map(|span| span.get(in_span));
            fields.get(in_event).or_else(of_span).map(text)
        };
        let labels: Vec<(&str, String)> = SEARCHABLE
            .iter()
            .filter_map(|(label, in_event)| Some((*label, find(label, in_event)?)))
            .collect();
        let trace = find("traceparent", "traceparent").and_then(|text| text.parse::<Trace>().ok());
        let task = find("task_id", "taskId").and_then(|id| Uuid::parse_str(&id).ok());
        // A task that came with no trace is one: the lines of all its attempts stand together.
        let id = trace.as_ref().map(Trace::id).or_else(|| Some(task?.simple().to_string()));
        if let Some(id) = id {
            fields.insert(TRACE.to_owned(), self.trace_name(id).into());
        }
        if let Some(trace) = trace {
            fields.insert(SAMPLED.to_owned(), trace.sampled().into());
            fields.extend(trace.span().map(|span| (SPAN.to_owned(), span.into())));
        }
        if !labels.is_empty()
            && let Value::Object(all) = fields.entry(LABELS).or_insert_with(|| json!({}))
        {
            all.extend(labels.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        }
    }

    fn trace_name(&self, id: impl fmt::Display) -> String {
        match &self.project {
            Some(project) => format!("projects/{project}/traces/{id}"),
            None => id.to_string(),
        }
    }

    /// Error Reporting reads no Rust backtraces, but it takes a line that says what it is.
    fn add_report(&self, fields: &mut Map<String, Value>) {
        let from_line = |key: &str| fields.get(LOCATION).and_then(|location| location.get(key)).map(text);
        let field = |key: &str| fields.get(key).map(text);
        let file = field("panicFile").or_else(|| from_line("file"));
        let line = field("panicLine").or_else(|| from_line("line"));
        let location = json!({
            "filePath": file,
            "lineNumber": line.and_then(|line| line.parse::<u32>().ok()),
            "functionName": field("target"),
        });
        fields.insert("@type".to_owned(), REPORTED_ERROR.into());
        fields.insert("serviceContext".to_owned(), self.service.clone());
        fields.insert("context".to_owned(), json!({ "reportLocation": location }));
    }
}

impl<'a> MakeWriter<'a> for CloudLines {
    type Writer = CloudLine<'a>;

    fn make_writer(&'a self) -> CloudLine<'a> {
        CloudLine(self)
    }
}

impl Write for CloudLine<'_> {
    /// `line` is a whole one: the layer hands over what it has formatted at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&self.0.complete(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

fn is_error(severity: &str) -> bool {
    matches!(severity, "ERROR" | "CRITICAL" | "ALERT" | "EMERGENCY")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn shorten(value: &mut Value) {
    if let Value::String(text) = value
        && text.len() > LONGEST
    {
        let kept = &text[..text.floor_char_boundary(LONGEST)];
        *text = format!("{kept}\u{2026} ({} bytes)", text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &Value) -> Value {
        let lines = CloudLines {
            project: Some("a-project".to_owned()),
            service: json!({ "service": "task-processor", "version": "r-1" }),
        };
        let bytes = lines.complete(line.to_string().as_bytes()).into_owned();
        assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1), "one line");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn the_lines_of_a_task_have_its_trace_or_are_one() {
        let id = "0192f3a0-1111-7222-8333-444455556666";
        let line = complete(&json!({ "severity": "INFO", "taskId": id, "taskType": "echo", "attempt": 2 }));
        assert_eq!(line[TRACE], "projects/a-project/traces/0192f3a0111172228333444455556666");
        assert_eq!(line[LABELS], json!({ "task_id": id, "task_type": "echo", "attempt": "2" }));
        assert!(line.get(SPAN).is_none() && line.get("@type").is_none(), "{line}");
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = json!({ "name": "attempt", "task_id": id, "traceparent": traceparent });
        let line = complete(&json!({ "severity": "INFO", "span": span, "spans": [span] }));
        assert_eq!(line[TRACE], "projects/a-project/traces/4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&line[SPAN], &line[SAMPLED]), (&json!("00f067aa0ba902b7"), &json!(true)));
        assert_eq!(line[LABELS], json!({ "task_id": id }));
        assert!(line.get("spans").is_none(), "it would say the same twice: {line}");
    }

    #[test]
    fn a_plain_line_becomes_what_any_other_way_would_make_of_it() {
        let lines = CloudLines { project: None, service: Value::Null };
        let id = "0192f3a0-1111-7222-8333-444455556666";
        let (mut plain, mut other) = (0, 0);
        for task_type in ["echo", "with \"quotes\"", "\u{e4}\n"] {
            for (field, value) in
                [("ms", json!(1)), ("requestId", json!("r")), ("span", json!({ "name": "a" }))]
            {
                let line = json!({
                    "severity": "INFO", field: value, "taskId": id, "taskType": task_type, "attempt": 1
                });
                let line = format!("{line}\n").into_bytes();
                let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
                match lines.add_to_plain(&line) {
                    Some(longer) => {
                        assert_eq!(parse(&longer), parse(&lines.rewrite(&line)));
                        assert_eq!(longer.last(), Some(&b'\n'));
                        plain += 1;
                    }
                    None => other += 1,
                }
            }
        }
        assert_eq!((plain, other), (1, 8));
    }

    #[test]
    fn errors_and_nothing_less_are_reported_with_their_place() {
        let location = json!({ "file": "src/a.rs", "line": "7" });
        for (severity, reported) in [("WARNING", false), ("ERROR", true), ("CRITICAL", true)] {
            let line = complete(&json!({ "severity": severity, "target": "a::b", LOCATION: location }));
            assert_eq!(line.get("@type").is_some(), reported, "{severity}");
            if reported {
                let place = json!({ "filePath": "src/a.rs", "lineNumber": 7, "functionName": "a::b" });
                assert_eq!(line["context"]["reportLocation"], place);
                assert_eq!(line["serviceContext"], json!({ "service": "task-processor", "version": "r-1" }));
            }
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_no_object_stays() {
        let line = complete(&json!({ "severity": "INFO", "message": "\u{e4}".repeat(LONGEST) }));
        let message = line["message"].as_str().expect("text");
        assert!(message.len() < LONGEST + 40 && message.ends_with("(32768 bytes)"));
        let lines = CloudLines { project: None, service: Value::Null };
        assert_eq!(lines.complete(b"no JSON\n").as_ref(), b"no JSON\n");
    }
}

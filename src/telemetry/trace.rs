//! The trace that a request or a task belongs to, as W3C's `traceparent` names it.

use std::fmt;
use std::str::FromStr;

/// One span of one trace. Written as `00-<trace>-<span>-<flags>`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    sampled: bool,
}

/// A text that names no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a trace")]
pub struct NoTrace;

impl Trace {
    /// Reads Google's older header `X-Cloud-Trace-Context`: `<trace, hex>/<span, decimal>;o=<sampled>`.
    pub fn from_cloud_trace_context(text: &str) -> Result<Self, NoTrace> {
        let (trace, rest) = text.split_once('/').unwrap_or((text, ""));
        let (span, options) = rest.split_once(';').unwrap_or((rest, ""));
        let span = if span.is_empty() { 0 } else { span.parse().map_err(|_| NoTrace)? };
        Self::new(hex(trace, 32)?, span, options == "o=1")
    }

    /// The trace's id: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The span's id, 16 hexadecimal digits, if it is known.
    #[must_use]
    pub fn span(&self) -> Option<String> {
        (self.span != 0).then(|| format!("{:016x}", self.span))
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    fn new(id: u128, span: u128, sampled: bool) -> Result<Self, NoTrace> {
        let span = u64::try_from(span).map_err(|_| NoTrace)?;
        if id == 0 { Err(NoTrace) } else { Ok(Self { id, span, sampled }) }
    }
}

impl FromStr for Trace {
    type Err = NoTrace;

    /// Reads a `traceparent`. Versions to come may add parts at its end.
    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut parts = text.split('-');
        let mut next = |digits| hex(parts.next().ok_or(NoTrace)?, digits);
        let (version, id, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        if version == 0xff || span == 0 || (version == 0 && parts.next().is_some()) {
            return Err(NoTrace);
        }
        Self::new(id, span, flags & 1 == 1)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, u8::from(self.sampled))
    }
}

/// Exactly so many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Result<u128, NoTrace> {
    let valid = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid { u128::from_str_radix(text, 16).map_err(|_| NoTrace) } else { Err(NoTrace) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_and_written() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let trace: Trace = text.parse().expect("valid");
            assert_eq!((trace.id().as_str(), trace.span().as_deref()), (TRACE, Some("00f067aa0ba902b7")));
            assert_eq!(trace.sampled(), flags == "01");
            assert_eq!(trace.to_string(), text);
        }
    }

    #[test]
    fn googles_older_header_means_the_same() {
        let trace = Trace::from_cloud_trace_context(&format!("{TRACE}/255;o=1")).expect("valid");
        assert_eq!(trace.to_string(), format!("00-{TRACE}-00000000000000ff-01"));
        let bare = Trace::from_cloud_trace_context(TRACE).expect("valid");
        assert_eq!((bare.span(), bare.sampled()), (None, false));
    }

    #[test]
    fn what_names_no_trace_is_refused() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            TRACE.to_owned(),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{}g-00f067aa0ba902b7-01", &TRACE[1..]),
        ] {
            assert_eq!(text.parse::<Trace>(), Err(NoTrace), "{text}");
        }
        for text in ["", "x/1;o=1", &format!("{TRACE}/x;o=1"), &zeros] {
            assert_eq!(Trace::from_cloud_trace_context(text), Err(NoTrace), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[0-9a-f/;=o -]{0,80}|.*") {
            let _ = text.parse::<Trace>();
            let _ = Trace::from_cloud_trace_context(&text);
        }
    }
}

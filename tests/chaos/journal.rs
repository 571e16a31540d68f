//! What is written down outside the database under test: acknowledgements, effects of handlers, faults.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// A file that is only appended to, a line a fact. Each line is one `write`, so that a killed process loses none.
pub(crate) struct Journal(File);

/// Where a handler is: it comes, it is there, and it leaves in one of the other ways.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Start,
    Beat,
    Finish,
    Fail,
    Snooze,
    Cancel,
    /// It was stopped, or it panicked.
    Dropped,
}

/// A handler came by.
pub(crate) struct Effect {
    pub(crate) task: Uuid,
    pub(crate) attempt: i32,
    pub(crate) phase: String,
    /// Microseconds since 1970. One machine, one clock: the database's is the same.
    pub(crate) at: i64,
}

/// What an attempt's process said of its ending, once the database had taken it.
pub(crate) struct Told {
    pub(crate) task: Uuid,
    pub(crate) attempt: i32,
    pub(crate) ending: String,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self(file.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub(crate) fn effect(&self, task: Uuid, attempt: i32, phase: Phase) {
        let phase = format!("{phase:?}").to_lowercase();
        self.append(&format!("{task} {attempt} {phase} {}\n", now()));
    }

    pub(crate) fn append(&self, lines: &str) {
        (&self.0).write_all(lines.as_bytes()).expect("a journal that can be written");
    }

    /// Appended, and on the disk when this returns.
    pub(crate) fn append_durably(&self, lines: &str) {
        self.append(lines);
        self.0.sync_data().expect("a journal that can be written");
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 294000")
}

/// The words of each whole line.
pub(crate) fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

pub(crate) fn effects(path: &Path) -> Vec<Effect> {
    let of = |words: Vec<String>| {
        let [task, attempt, phase, at] = <[String; 4]>::try_from(words).expect("four words");
        Effect {
            task: task.parse().expect("an id"),
            attempt: attempt.parse().expect("a number"),
            phase,
            at: at.parse().expect("a time"),
        }
    };
    lines(path).into_iter().map(of).collect()
}

/// The endings that a process reports in its log. Its last line may be half a line.
pub(crate) fn told(log: &Path) -> Vec<Told> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let of = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let said = line["message"].as_str()?;
        let ending = line["ending"].as_str()?;
        said.starts_with("task ").then_some(())?;
        Some(Told {
            task: line["taskId"].as_str()?.parse().ok()?,
            attempt: i32::try_from(line["attempt"].as_i64()?).ok()?,
            ending: ending.to_owned(),
        })
    };
    text.lines().filter(|line| line.contains("\"ending\"")).filter_map(of).collect()
}

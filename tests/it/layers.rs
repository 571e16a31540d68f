//! The house rules that no compiler checks: who imports whom, who owns which table, how long a file may be.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom up; an import points to a lower line only.
const LEVELS: &[&[&str]] = &[
    &["config"],
    &["telemetry", "shutdown"],
    &["db", "clients", "sandbox"],
    &["events"],
    &["queue", "ledger"],
    &["market", "fleet"],
    &["services"],
    &["handler"],
    &["worker", "handlers"],
    &["http"],
    &["app"],
    &["commands"],
    &["testing"],
];

/// A table's statements stand in one place; a migration makes it and `dev` fills it with examples.
const OWNERS: &[(&str, &[&str])] = &[
    ("queue", &["agent_tasks", "agent_actions_log", "task_types", "agent_tasks_wake"]),
    (
        "handlers/store",
        &[
            "users",
            "conversations",
            "messages",
            "message_queue",
            "events",
            "user_priorities",
            "intro_opportunities",
            "solution_workflows",
            "community_requests",
            "community_responses",
            "credit_events",
        ],
    ),
    ("db", &["task_processor_migrations"]),
];

/// What `http` may know of the worker.
const WORKERS_FACE: &[&str] = &["WorkerHandle", "Condition", "Counts", "Drained", "Worked"];

fn sources(extension: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|end| end == extension) {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), extension, &mut found);
    assert!(!found.is_empty());
    found
}

fn inside(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    path.strip_prefix(root).expect("inside src").with_extension("").to_string_lossy().into_owned()
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// The code of a file without its comments and unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_point_to_lower_levels_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("rs") {
        let inside = inside(&path);
        let module = inside.split('/').next().unwrap_or_default().to_owned();
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let own = level(&module).unwrap_or_else(|| panic!("{inside}: no level for {module}"));
        for rest in code(&text).split("crate::").skip(1) {
            let used: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            match level(&used) {
                Some(level) if used == module || level < own => {}
                Some(_) => wrong.push(format!("{inside} imports {used}")),
                None => wrong.push(format!("{inside} imports crate::{used}, which has no level")),
            }
            if module == "http" && used == "worker" {
                let names = rest.split(';').next().unwrap_or_default();
                let stranger = names
                    .split(|c: char| !c.is_alphanumeric())
                    .find(|name| name.starts_with(char::is_uppercase) && !WORKERS_FACE.contains(name));
                wrong.extend(stranger.map(|name| format!("{inside} knows the worker's {name}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn sql_on_a_table_stands_only_in_the_module_that_owns_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources("rs").into_iter().chain(sources("sql")) {
        let inside = inside(&path);
        let text = code(&text).replace(['(', ')', ',', ';', '"'], " ");
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            if !matches!(pair[0], "from" | "join" | "update" | "into" | "table") {
                continue;
            }
            for (owner, tables) in OWNERS {
                if tables.contains(&pair[1]) {
                    seen += 1;
                    if !inside.starts_with(owner) && !inside.starts_with("commands/dev/") {
                        wrong.push(format!("{inside}: {} {}", pair[0], pair[1]));
                    }
                }
            }
        }
    }
    assert!(seen > 20, "the test no longer finds any SQL");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_and_is_short_enough_to_hold_in_the_head() {
    let mut wrong = Vec::new();
    for (path, text) in sources("rs") {
        let inside = inside(&path);
        if !text.starts_with("//!") && !text.starts_with("#![doc") {
            wrong.push(format!("{inside} does not begin with a sentence"));
        }
        let lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        if lines > 300 {
            wrong.push(format!("{inside} has {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

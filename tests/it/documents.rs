//! The documents: what they point to is there, and every promise names a test that exists.

use std::fs;
use std::path::{Path, PathBuf};

/// A link `[text](target)` of a document.
struct Link {
    document: PathBuf,
    text: String,
    target: PathBuf,
}

/// README and the like, and all of `docs/`.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
    };
    let mut all = of(root);
    all.extend(of(&root.join("docs")));
    all
}

/// The links of a document to files of ours.
fn links(document: &Path) -> Vec<Link> {
    let text = fs::read_to_string(document).expect("text");
    // What stands between fences is no link.
    let prose: String = text.split("```").step_by(2).collect();
    let links = prose.match_indices("](").filter_map(|(middle, _)| {
        let start = prose[..middle].rfind('[')? + 1;
        let target = prose[middle + 2..].split([')', '#']).next().filter(|target| !target.is_empty())?;
        let outside = target.contains("://") || target.starts_with("mailto:");
        let folder = document.parent().expect("a document lies in a folder");
        (!outside).then(|| Link {
            document: document.to_owned(),
            text: prose[start..middle].to_owned(),
            target: folder.join(target),
        })
    });
    links.collect()
}

/// Whether the code has a test of this name: the function, and before it attributes of which one says so.
fn has_test(code: &str, name: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let is_test = |function: usize| {
        let mut attributes = lines[..function].iter().rev().take_while(|line| line.starts_with("#["));
        attributes.any(|attribute| attribute.contains("test"))
    };
    (0..lines.len()).any(|at| lines[at].trim_start_matches("async ").starts_with(&head) && is_test(at))
}

#[test]
fn every_link_points_to_a_file_that_exists() {
    let all: Vec<Link> = documents().iter().flat_map(|document| links(document)).collect();
    assert!(all.len() > 50, "the test no longer finds the links: {}", all.len());
    let broken: Vec<String> = all
        .iter()
        .filter(|link| !link.target.exists())
        .map(|link| format!("{}: {}", link.document.display(), link.target.display()))
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_test_that_holds_a_promise_exists_in_the_file_it_links_to() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut named = 0;
    let mut missing = Vec::new();
    for link in ["LIFECYCLE.md", "RELIABILITY.md"].iter().flat_map(|name| links(&docs.join(name))) {
        let Some((module, test)) = link.text.trim_matches('`').rsplit_once("::") else { continue };
        named += 1;
        let code = fs::read_to_string(&link.target).unwrap_or_default();
        if link.target.file_stem().is_none_or(|stem| stem != module) || !has_test(&code, test) {
            missing.push(link.text);
        }
    }
    assert!(named > 40, "the test no longer finds the promises: {named}");
    assert!(missing.is_empty(), "{missing:#?}");
}

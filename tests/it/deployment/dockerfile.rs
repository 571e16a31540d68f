//! The Dockerfile, and what is sent to its builder. `.ci/run` has hadolint read it too, which knows shells and a
//! hundred rules of taste; here stand the rules that need this repository. Not covered by either: whether the registries
//! have these images, and whether the stages build (deploy/rootfs.sh runs what the last one would hold).

use std::path::Path;
use std::process::Command as Process;

use parse_dockerfile::{
    Command, CopyInstruction, Dockerfile, HealthcheckArguments, Instruction, Source, Stage,
};
use task_processor::config::Config;
use uuid::Uuid;

use super::{read, root};

/// Names of variables that say their values are nobody's business.
const SECRET: &[&str] = &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "DATABASE_URL"];

fn with_dockerfile<T>(check: impl FnOnce(&Dockerfile<'_>) -> T) -> T {
    let text = read("Dockerfile");
    check(&parse_dockerfile::parse(&text).unwrap_or_else(|error| panic!("{error}")))
}

fn stages<'a, 'b>(dockerfile: &'b Dockerfile<'a>) -> Vec<Stage<'a, 'b>> {
    dockerfile.stages().collect()
}

/// The images that come from outside, in order.
fn bases(dockerfile: &Dockerfile<'_>) -> Vec<String> {
    let stages = stages(dockerfile);
    let names: Vec<&str> =
        stages.iter().filter_map(|stage| Some(stage.from.as_.as_ref()?.1.value.as_ref())).collect();
    let images = stages.iter().map(|stage| stage.from.image.value.to_string());
    images.filter(|image| !names.contains(&image.as_str())).collect()
}

fn copies<'a, 'b>(dockerfile: &'b Dockerfile<'a>) -> impl Iterator<Item = &'b CopyInstruction<'a>> {
    dockerfile.instructions.iter().filter_map(|instruction| match instruction {
        Instruction::Copy(copy) => Some(copy),
        _ => None,
    })
}

fn flag<'b>(copy: &'b CopyInstruction<'_>, name: &str) -> Option<&'b str> {
    copy.options.iter().find(|flag| flag.name.value == name)?.value.as_ref().map(|value| value.value.as_ref())
}

/// What is copied from the repository.
fn sources(dockerfile: &Dockerfile<'_>) -> Vec<String> {
    let from_outside = copies(dockerfile).filter(|copy| flag(copy, "from").is_none());
    let sources = from_outside.flat_map(|copy| copy.src.iter()).map(|source| match source {
        Source::Path(path) => path.value.to_string(),
        other => panic!("this test does not know {other:?}"),
    });
    sources.collect()
}

/// A `.dockerignore` or `.gcloudignore` that excludes all and lets some paths through. Whether it lets this one.
fn lets_through(ignore: &str, path: &str) -> bool {
    let mut through = true;
    for line in ignore.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (re_included, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, line),
        };
        let pattern = pattern.trim_matches('/');
        assert!(pattern == "*" || !pattern.contains(['*', '?', '[']), "this test does not know {line:?}");
        if pattern == "*" || path == pattern || path.starts_with(&format!("{pattern}/")) {
            through = re_included;
        }
    }
    through
}

#[test]
fn every_base_is_pinned_to_a_version_and_all_are_of_one_distribution() {
    with_dockerfile(|dockerfile| {
        let bases = bases(dockerfile);
        assert_eq!(bases.len(), 2, "a compiler and a base: {bases:?}");
        for base in &bases {
            let (name, tag) = base.rsplit_once(':').unwrap_or_else(|| panic!("{base} has no tag"));
            assert!(tag != "latest" && !tag.contains('$'), "{base}");
            let last = name.rsplit('/').next().unwrap_or_default();
            assert!(format!("{last}{tag}").contains(|c: char| c.is_ascii_digit()), "{base} has no version");
        }
        // Debian 12 is bookworm: glibc has to be the one that the binary was linked with.
        assert!(bases[0].ends_with("-bookworm") && bases[1].contains("-debian12:"), "{bases:?}");
    });
}

#[test]
fn the_compiler_is_the_one_that_cargo_toml_asks_for() {
    let cargo = read("Cargo.toml");
    let asked = cargo.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a rust-version");
    let asked = asked.trim_matches('"');
    with_dockerfile(|dockerfile| {
        let base = bases(dockerfile).remove(0);
        let version =
            base.strip_prefix("rust:").and_then(|tag| tag.split('-').next()).expect("rust:<version>-…");
        assert!(version == asked || version.starts_with(&format!("{asked}.")), "{version} is not {asked}");
    });
}

#[test]
fn the_service_runs_as_a_numbered_user_without_a_shell_and_stops_by_sigterm() {
    with_dockerfile(|dockerfile| {
        let stages = stages(dockerfile);
        let last = stages.last().expect("a stage").instructions;
        let user = last.iter().find_map(|instruction| match instruction {
            Instruction::User(user) => Some(user.arguments.value.to_string()),
            _ => None,
        });
        let ids: Vec<u32> =
            user.expect("a USER").split(':').map(|id| id.parse().expect("a number")).collect();
        assert!(ids.iter().all(|id| *id > 0), "root: {ids:?}");
        let (mut entrypoint, mut signal) = (None, None);
        for instruction in last {
            match instruction {
                Instruction::Entrypoint(entry) => entrypoint = Some(&entry.arguments),
                Instruction::Cmd(cmd) => assert!(is_exec(&cmd.arguments), "{cmd:?}"),
                Instruction::Healthcheck(check) => match &check.arguments {
                    HealthcheckArguments::Cmd { arguments, .. } => assert!(is_exec(arguments), "{check:?}"),
                    other => panic!("{other:?}"),
                },
                Instruction::Stopsignal(stop) => signal = Some(stop.arguments.value.to_string()),
                Instruction::Expose(expose) => {
                    let url = [("DATABASE_URL", "postgres://user:password@localhost/db")];
                    let port = Config::from_vars(url).expect("valid").http.port.to_string();
                    assert_eq!(expose.arguments[0].value, port, "the default of PORT");
                }
                Instruction::Run(run) => panic!("the last stage has no shell: {run:?}"),
                _ => {}
            }
        }
        assert!(entrypoint.is_some_and(is_exec), "{entrypoint:?}");
        assert_eq!(signal.as_deref(), Some("SIGTERM"));
    });
}

fn is_exec(command: &Command<'_>) -> bool {
    matches!(command, Command::Exec(_))
}

#[test]
fn nothing_is_fetched_by_add_and_no_secret_is_built_in() {
    with_dockerfile(|dockerfile| {
        for instruction in &dockerfile.instructions {
            let named = match instruction {
                Instruction::Add(add) => panic!("COPY says what it does, ADD does not: {add:?}"),
                Instruction::Env(env) => env.arguments.value.to_uppercase(),
                Instruction::Arg(arg) => arg.arguments.value.to_uppercase(),
                _ => continue,
            };
            assert!(!SECRET.iter().any(|word| named.contains(word)), "{named}");
        }
    });
}

#[test]
fn everything_that_is_copied_exists_and_reaches_the_builder_and_nothing_private_does() {
    let (docker, gcloud) = (read(".dockerignore"), read(".gcloudignore"));
    let sources = with_dockerfile(sources);
    assert!(sources.len() >= 5, "{sources:?}");
    for source in &sources {
        assert!(root().join(source).exists(), "{source} is not there");
        assert!(lets_through(&docker, source), ".dockerignore keeps {source} back");
        assert!(lets_through(&gcloud, source), ".gcloudignore keeps {source} back");
    }
    for needed in ["Dockerfile", ".dockerignore"] {
        assert!(lets_through(&gcloud, needed), ".gcloudignore keeps {needed} back");
    }
    for private in [".env", ".git", ".git/config", ".dev", "target", "target/release", "tests"] {
        assert!(!lets_through(&docker, private) && !lets_through(&gcloud, private), "{private} is sent");
    }
}

#[test]
fn stages_copy_only_from_stages_that_exist() {
    with_dockerfile(|dockerfile| {
        let stages = stages(dockerfile);
        let names: Vec<&str> =
            stages.iter().filter_map(|stage| Some(stage.from.as_.as_ref()?.1.value.as_ref())).collect();
        let from: Vec<&str> = copies(dockerfile).filter_map(|copy| flag(copy, "from")).collect();
        assert_eq!(from, ["build"], "the binary");
        assert!(
            names.contains(&"build") && names.contains(&"dependencies"),
            "cloudbuild.yaml keeps that layer"
        );
    });
}

#[test]
fn the_layer_of_crates_has_every_target_that_cargo_toml_names() {
    let dockerfile = read("Dockerfile").replace("\\\n", " ");
    let layer = dockerfile.lines().find_map(|line| line.strip_prefix("RUN ")).expect("a layer");
    let (stubs, build) = layer.split_once("&& cargo build").expect("sources, and a build");
    assert!(build.contains("--locked"), "{build}");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::new_v4().simple().to_string());
    std::fs::create_dir(&folder).expect("a folder");
    for copied in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(root().join(copied), folder.join(copied)).expect("a copy");
    }
    // A program that does not exist is looked for after all of Cargo.toml has been understood, and nothing is built.
    let command = format!("{stubs} && {} build --offline --locked --bin none", env!("CARGO"));
    let output = Process::new("sh").args(["-c", &command]).current_dir(&folder).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no bin target named `none`"), "{said}");
    std::fs::remove_dir_all(&folder).expect("ours");
}

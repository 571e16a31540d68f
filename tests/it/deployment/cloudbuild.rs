//! `cloudbuild.yaml`: only keys that are documented, no substitution that is not, and steps in their order.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use task_processor::config::VARIABLES;
use task_processor::http::auth::{Need, ROUTES};

use super::read;

/// As a stored copy of <https://cloud.google.com/build/docs/build-config-file-schema> has them; so have the next two.
const TOP_LEVEL: &[&str] = &[
    "steps",
    "timeout",
    "queueTtl",
    "logsBucket",
    "options",
    "substitutions",
    "tags",
    "serviceAccount",
    "secrets",
    "availableSecrets",
    "artifacts",
    "images",
];
const STEP: &[&str] = &[
    "name",
    "args",
    "env",
    "allowFailure",
    "allowExitCodes",
    "dir",
    "id",
    "waitFor",
    "entrypoint",
    "secretEnv",
    "volumes",
    "timeout",
    "script",
    "automapSubstitutions",
];
const OPTIONS: &[&str] = &[
    "env",
    "secretEnv",
    "volumes",
    "sourceProvenanceHash",
    "machineType",
    "diskSizeGb",
    "substitutionOption",
    "dynamicSubstitutions",
    "automapSubstitutions",
    "logStreamingOption",
    "logging",
    "defaultLogsBucketBehavior",
    "pool",
    "pubsubTopic",
    "requestedVerifyOption",
];
/// Substitutions that every build has, however it was started. Those of a commit, `SHORT_SHA` say, are empty in a build
/// that somebody submits by hand.
const ALWAYS_SET: &[&str] = &["PROJECT_ID", "PROJECT_NUMBER", "LOCATION", "BUILD_ID"];

fn build() -> Value {
    serde_saphyr::from_str(&read("cloudbuild.yaml")).unwrap_or_else(|error| panic!("{error}"))
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no mapping: {value}"))
}

fn texts(value: &Value) -> Vec<&str> {
    let all = value.as_array().unwrap_or_else(|| panic!("no list: {value}"));
    all.iter().map(|one| one.as_str().unwrap_or_else(|| panic!("no text: {one}"))).collect()
}

fn unknown_keys(value: &Value, known: &[&str]) -> Vec<String> {
    object(value).keys().filter(|key| !known.contains(&key.as_str())).cloned().collect()
}

/// The step of this id: its place and its arguments.
fn step<'a>(build: &'a Value, id: &str) -> (usize, Vec<&'a str>) {
    let steps = build["steps"].as_array().expect("steps");
    let place = steps.iter().position(|step| step["id"] == id).unwrap_or_else(|| panic!("no step {id}"));
    (place, texts(&steps[place]["args"]))
}

/// The names of `$NAME` and `${NAME}`.
fn substitutions(text: &str) -> BTreeSet<String> {
    let used = text.split('$').skip(1).map(|rest| {
        let name = rest.strip_prefix('{').unwrap_or(rest);
        name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    });
    used.collect()
}

/// The value of `--flag=value`.
fn flag<'a>(args: &[&'a str], name: &str) -> Option<&'a str> {
    args.iter().find_map(|arg| arg.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn every_key_is_documented_and_every_step_is_whole() {
    let build = build();
    assert_eq!(unknown_keys(&build, TOP_LEVEL), Vec::<String>::new());
    assert_eq!(unknown_keys(&build["options"], OPTIONS), Vec::<String>::new());
    let mut ids = BTreeSet::new();
    for step in build["steps"].as_array().expect("steps") {
        assert_eq!(unknown_keys(step, STEP), Vec::<String>::new(), "{step}");
        assert!(step["name"].is_string() && !texts(&step["args"]).is_empty(), "{step}");
        assert!(ids.insert(step["id"].as_str().expect("an id")), "{step}: the id is taken");
        assert!(step.get("waitFor").is_none(), "steps run in order, one after the other");
    }
    let seconds = |value: &Value| value.as_str().and_then(|text| text.strip_suffix('s')?.parse::<u32>().ok());
    let (_, migrate) = step(&build, "migrate");
    let whole = seconds(&build["timeout"]).expect("a duration");
    let job = flag(&migrate, "task-timeout").and_then(|text| text.strip_suffix('s')?.parse().ok());
    assert!(job.is_some_and(|job: u32| job < whole), "the build outlives its longest step");
}

#[test]
fn every_substitution_has_a_default_and_every_default_is_used() {
    let build = build();
    let declared: BTreeSet<String> = object(&build["substitutions"]).keys().cloned().collect();
    for (name, value) in object(&build["substitutions"]) {
        let valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(name.starts_with('_') && name.chars().all(valid), "{name} is not ours to name");
        assert!(value.is_string(), "{name} is no text, and the API refuses it");
    }
    let used = substitutions(&build.to_string());
    let (ours, theirs): (BTreeSet<String>, BTreeSet<String>) =
        used.into_iter().partition(|name| name.starts_with('_'));
    assert_eq!(ours, declared);
    let unknown: Vec<_> = theirs.iter().filter(|name| !ALWAYS_SET.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // A default that names another is taken literally otherwise.
    assert_eq!(build["options"]["dynamicSubstitutions"], true);
}

#[test]
fn the_database_is_migrated_by_the_image_that_is_deployed_and_before_it_is() {
    let build = build();
    let steps = ["build", "push", "migrate", "deploy"].map(|id| step(&build, id));
    assert!(steps.is_sorted_by_key(|(place, _)| *place), "{steps:?}");
    let [built, pushed, migrate, deploy] = steps.map(|(_, args)| args);
    let image = flag(&built, "tag").expect("a tag");
    assert!(pushed.contains(&image) && texts(&build["images"]).contains(&image), "{image}");
    assert_eq!((flag(&migrate, "image"), flag(&deploy, "image")), (Some(image), Some(image)));
    assert!(image.ends_with(":${BUILD_ID}"), "a tag of its own: {image}");
    assert!(migrate.starts_with(&["run", "jobs", "deploy"]) && flag(&migrate, "args") == Some("migrate"));
    assert!(migrate.contains(&"--execute-now") && migrate.contains(&"--wait"), "else it is only described");
    assert!(deploy.starts_with(&["run", "deploy"]));
}

#[test]
fn the_service_keeps_its_cpu_and_one_instance_and_is_probed_where_it_answers_without_a_key() {
    let build = build();
    let (_, deploy) = step(&build, "deploy");
    assert!(deploy.contains(&"--no-cpu-throttling"));
    assert_eq!(flag(&deploy, "min"), Some("${_MIN_INSTANCES}"));
    assert_eq!(build["substitutions"]["_MIN_INSTANCES"], "1");
    let port = flag(&deploy, "port").expect("a port");
    for (probe, path) in [("startup-probe", "/health"), ("liveness-probe", "/health/live")] {
        let settings = flag(&deploy, probe).expect("a probe");
        let settings: Vec<&str> = settings.split(',').collect();
        assert!(settings.contains(&format!("httpGet.path={path}").as_str()), "{settings:?}");
        assert!(settings.contains(&format!("httpGet.port={port}").as_str()), "{settings:?}");
        assert!(ROUTES.contains(&(path, Need::Nothing)), "{path} asks for a key");
    }
}

#[test]
fn secrets_come_from_secret_manager_under_names_that_are_read() {
    let build = build();
    let (_, deploy) = step(&build, "deploy");
    assert_eq!(flag(&deploy, "set-secrets"), Some("${_SECRETS}"));
    let listed = |name: &str| -> Vec<(String, String)> {
        let text = build["substitutions"][name].as_str().expect("text");
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.split(',').map(|one| pair(one).unwrap_or_else(|| panic!("{one}"))).collect()
    };
    for (name, secret) in listed("_SECRETS").into_iter().chain(listed("_MIGRATE_SECRETS")) {
        assert!(VARIABLES.contains(&name.as_str()), "nobody reads {name}");
        let (secret, version) = secret.split_once(':').expect("a secret and its version");
        assert!(secret.starts_with("task-processor-") && version == "latest", "{secret}:{version}");
    }
    for (name, value) in listed("_ENVIRONMENT") {
        assert!(VARIABLES.contains(&name.as_str()), "nobody reads {name}");
        assert!(
            !name.contains("URL") && !name.contains("KEY") && !name.contains("PASSWORD"),
            "{name}={value}"
        );
    }
}

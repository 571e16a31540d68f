//! The `gcloud` commands of the documents and of `cloudbuild.yaml`. There is no gcloud here to ask: a command or a flag
//! that is not in the list below fails. What values a flag takes is not checked.

use super::read;

/// Commands with those of their flags that we use, each seen in Google's documents or in public repositories that deploy
/// with it. The reference is at <https://cloud.google.com/sdk/gcloud/reference>.
const FLAGS: &[(&str, &[&str])] = &[
    ("artifacts repositories create", &["repository-format", "location"]),
    ("builds submit", &["config", "substitutions"]),
    ("iam service-accounts create", &[]),
    (
        "run deploy",
        &[
            "image",
            "region",
            "service-account",
            "allow-unauthenticated",
            "no-allow-unauthenticated",
            "no-cpu-throttling",
            "min",
            "max",
            "cpu",
            "memory",
            "concurrency",
            "timeout",
            "port",
            "set-secrets",
            "set-env-vars",
            "startup-probe",
            "liveness-probe",
            "quiet",
        ],
    ),
    (
        "run jobs deploy",
        &[
            "image",
            "region",
            "service-account",
            "args",
            "set-secrets",
            "tasks",
            "max-retries",
            "task-timeout",
            "execute-now",
            "wait",
            "quiet",
        ],
    ),
    ("run services add-iam-policy-binding", &["region", "member", "role"]),
    ("run services delete", &["region"]),
    ("run services logs read", &["region", "limit"]),
    ("run services update", &["region", "update-env-vars", "update-secrets"]),
    (
        "run worker-pools deploy",
        &["image", "region", "service-account", "instances", "args", "set-secrets", "set-env-vars"],
    ),
    (
        "scheduler jobs create http",
        &[
            "location",
            "schedule",
            "uri",
            "http-method",
            "attempt-deadline",
            "oauth-service-account-email",
            "oidc-service-account-email",
            "oidc-token-audience",
        ],
    ),
    ("secrets add-iam-policy-binding", &["member", "role"]),
    ("secrets create", &["data-file"]),
    ("services enable", &[]),
];

/// The commands in the `sh` blocks of a document, each as its words after `gcloud`.
fn commands(document: &str) -> Vec<String> {
    let text = read(document).replace("\\\n", " ");
    // What stands between fences is every second part; its first line is the language.
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(str::lines).filter_map(|line| Some(line.split_once("gcloud ")?.1.to_owned()));
    lines.collect()
}

/// The commands of the steps of `cloudbuild.yaml`.
fn steps() -> Vec<String> {
    let build: serde_json::Value = serde_saphyr::from_str(&read("cloudbuild.yaml")).expect("YAML");
    let steps =
        build["steps"].as_array().expect("steps").iter().filter(|step| step["entrypoint"] == "gcloud");
    let words = |step: &serde_json::Value| -> Vec<String> {
        step["args"]
            .as_array()
            .expect("args")
            .iter()
            .map(|arg| arg.as_str().expect("text").to_owned())
            .collect()
    };
    steps.map(|step| words(step).join(" ")).collect()
}

/// What is wrong with one command, if anything.
fn complaint(command: &str) -> Option<String> {
    let known = FLAGS.iter().find(|(name, _)| command.starts_with(&format!("{name} ")));
    let Some((name, flags)) = known else { return Some(format!("unknown: gcloud {command}")) };
    let used = command.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let mut names = used.map(|flag| flag.split('=').next().unwrap_or_default());
    names.find(|flag| !flags.contains(flag)).map(|flag| format!("gcloud {name} has no --{flag}"))
}

#[test]
fn every_flag_is_one_that_the_command_is_known_to_take() {
    let documented: Vec<String> =
        ["docs/DEPLOYMENT.md", "README.md"].into_iter().flat_map(commands).chain(steps()).collect();
    assert!(documented.len() > 12, "the test no longer finds the commands: {documented:#?}");
    let wrong: Vec<String> = documented.iter().filter_map(|command| complaint(command)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn images_and_secrets_are_named_in_the_document_as_in_the_build() {
    let build = read("cloudbuild.yaml");
    let document = read("docs/DEPLOYMENT.md");
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let secrets = ["url", "keys", "ca"];
        parts
            .filter(|part| part.starts_with("task-processor-"))
            .filter(|part| part.rsplit('-').next().is_some_and(|end| secrets.contains(&end)))
            .map(str::to_owned)
            .collect()
    };
    let created: String =
        document.lines().filter(|line| line.contains("gcloud secrets create")).collect::<Vec<_>>().join("\n");
    assert_eq!(names(&build), names(&created), "what the build asks for is what the document creates");
}

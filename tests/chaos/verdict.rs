//! Judges a run: loads the journal into the database, asks `invariants.sql`, and counts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use crate::journal;

const INVARIANTS: &str = include_str!("invariants.sql");
const FIGURES: &str = include_str!("figures.sql");
const TABLES: &str = "
    drop schema if exists chaos cascade;
    create schema chaos;
    create unlogged table chaos.acknowledged (task_id uuid, unique_key text);
    create unlogged table chaos.cancelled (task_id uuid, how text, at timestamptz);
    create unlogged table chaos.effects (task_id uuid, attempt int, phase text, at timestamptz, process text);
    create unlogged table chaos.told (task_id uuid, attempt int, ending text, process text);
    create unlogged table chaos.frozen (process text, begun timestamptz, thawed timestamptz);
    create unlogged table chaos.kills (process text, at timestamptz);
    create unlogged table chaos.told_to_stop (process text, at timestamptz);
    create unlogged table chaos.exits (process text, how text, at timestamptz);
    create unlogged table chaos.windows (fault text, whom text, begun timestamptz, over timestamptz);
    create unlogged table chaos.terms (retry_base interval, tick interval);
    create index on chaos.effects (task_id, attempt);
    create index on chaos.told (task_id, attempt)";
/// Files whose lines are rows: the words are the columns, and times are microseconds since 1970.
const PLAIN: [&str; 6] = ["cancelled", "frozen", "kills", "told_to_stop", "exits", "windows"];
/// Rows of one statement.
const CHUNK: usize = 20_000;

/// Loads what the files of a run's directory say.
pub(crate) async fn load_journal(client: &Client, dir: &Path, lease: Duration) {
    client.batch_execute(TABLES).await.expect("tables");
    let terms = format!("insert into chaos.terms values ('1 s', '{} ms')", (lease / 3).as_millis());
    client.batch_execute(&terms).await.expect("terms");
    load_acknowledgements(client, dir).await;
    for file in files(dir, "effects") {
        load_effects(client, &file).await;
    }
    for file in files(dir, "log") {
        load_told(client, &file).await;
    }
    for table in PLAIN {
        load_plain(client, dir, table).await;
    }
    client
        .batch_execute("analyze chaos.effects, chaos.told, chaos.acknowledged, agent_tasks")
        .await
        .expect("analyzed");
}

/// What is wrong, a line a violation.
pub(crate) async fn violations(client: &Client) -> Vec<String> {
    let answers = client.simple_query(INVARIANTS).await.expect("the invariants can be asked");
    let line = |answer| match answer {
        SimpleQueryMessage::Row(row) => {
            let column = |index| row.get(index).unwrap_or("-").to_owned();
            Some([column(0), column(1), column(2)].join(" "))
        }
        _ => None,
    };
    answers.into_iter().filter_map(line).collect()
}

/// The run in numbers, by name.
pub(crate) struct Figures(Vec<(String, String)>);

impl Figures {
    /// To be asked after [`violations`], on the same connection.
    pub(crate) async fn of(client: &Client) -> Self {
        let answers = client.simple_query(FIGURES).await.expect("the figures can be asked");
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let columns = rows.flat_map(|row| {
            let names = row.columns().iter().map(|column| column.name().to_owned());
            names.enumerate().map(|(index, name)| (name, row.get(index).unwrap_or("none").to_owned()))
        });
        Self(columns.collect())
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.get(name).parse().expect("a count")
    }

    /// None if nothing was measured.
    pub(crate) fn seconds(&self, name: &str) -> Option<f64> {
        self.get(name).parse().ok()
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no figure {name}"), |(_, value)| value)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| write!(out, "{name} {value}, "))
    }
}

type Params<'a> = &'a [(&'a (dyn tokio_postgres::types::ToSql + Sync), Type)];

async fn load_acknowledgements(client: &Client, dir: &Path) {
    let id = |words: &Vec<String>| -> Uuid { words[0].parse().expect("an id") };
    for chunk in journal::lines(&dir.join("acknowledged")).chunks(CHUNK) {
        let ids: Vec<Uuid> = chunk.iter().map(id).collect();
        let keys: Vec<Option<&str>> = chunk
            .iter()
            .map(|words| words.get(1).map(String::as_str).filter(|key| !key.is_empty()))
            .collect();
        let sql = "insert into chaos.acknowledged select * from unnest($1::uuid[], $2::text[])";
        let params: Params<'_> = &[(&ids, Type::UUID_ARRAY), (&keys, Type::TEXT_ARRAY)];
        client.query_typed(sql, params).await.expect("loaded");
    }
}

async fn load_plain(client: &Client, dir: &Path, table: &str) {
    let value = |word: &String| match word.parse::<i64>() {
        Ok(at) => format!("'epoch'::timestamptz + {at} * interval '1 us'"),
        Err(_) => format!("'{word}'"),
    };
    let row = |words: &Vec<String>| format!("({})", words.iter().map(value).collect::<Vec<_>>().join(", "));
    let rows: Vec<String> = journal::lines(&dir.join(table)).iter().map(row).collect();
    for chunk in rows.chunks(CHUNK) {
        let sql = format!("insert into chaos.{table} values {}", chunk.join(", "));
        client.batch_execute(&sql).await.expect("loaded");
    }
}

async fn load_effects(client: &Client, file: &Path) {
    let process = stem(file);
    for chunk in journal::effects(file).chunks(CHUNK) {
        let tasks: Vec<Uuid> = chunk.iter().map(|effect| effect.task).collect();
        let attempts: Vec<i32> = chunk.iter().map(|effect| effect.attempt).collect();
        let phases: Vec<&str> = chunk.iter().map(|effect| effect.phase.as_str()).collect();
        let times: Vec<i64> = chunk.iter().map(|effect| effect.at).collect();
        let sql = "insert into chaos.effects
            select task, attempt, phase, 'epoch'::timestamptz + at * interval '1 us', $5
            from unnest($1::uuid[], $2::int4[], $3::text[], $4::int8[]) as e (task, attempt, phase, at)";
        let params: Params<'_> = &[
            (&tasks, Type::UUID_ARRAY),
            (&attempts, Type::INT4_ARRAY),
            (&phases, Type::TEXT_ARRAY),
            (&times, Type::INT8_ARRAY),
            (&process, Type::TEXT),
        ];
        client.query_typed(sql, params).await.expect("loaded");
    }
}

async fn load_told(client: &Client, file: &Path) {
    let process = stem(file);
    for chunk in journal::told(file).chunks(CHUNK) {
        let tasks: Vec<Uuid> = chunk.iter().map(|told| told.task).collect();
        let attempts: Vec<i32> = chunk.iter().map(|told| told.attempt).collect();
        let endings: Vec<&str> = chunk.iter().map(|told| told.ending.as_str()).collect();
        let sql = "insert into chaos.told
            select task, attempt, ending, $4 from unnest($1::uuid[], $2::int4[], $3::text[]) as t (task, attempt, ending)";
        let params: Params<'_> = &[
            (&tasks, Type::UUID_ARRAY),
            (&attempts, Type::INT4_ARRAY),
            (&endings, Type::TEXT_ARRAY),
            (&process, Type::TEXT),
        ];
        client.query_typed(sql, params).await.expect("loaded");
    }
}

/// The files of processes: `w<slot>.<generation>.<extension>`.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let of_a_process =
        |path: &PathBuf| stem(path).starts_with('w') && path.extension().is_some_and(|end| end == extension);
    entries.filter(of_a_process).collect()
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

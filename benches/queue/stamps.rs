//! From the commit of a task to the first line of its handler: who adds the tasks, who notes their starts, and the sums.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use task_processor::app::{App, Doors};
use task_processor::config::Config;
use task_processor::{Handler, Outcome, Registry, Services, Task};
use tokio::time::{Instant, sleep_until};

use crate::db::Db;
use crate::drain::until_done;
use crate::files;
use crate::load::{self, DUE};
use crate::table::Sample;
use crate::worker::{Settings, Worker};

/// The argument that makes this program a worker that notes when its handler is entered.
pub(crate) const COMMAND: &str = "stamping-worker";

/// Connections that take turns, so that a slow commit does not hold up the stream.
const WRITERS: usize = 8;

/// `echo`, with a note of the moment.
struct Stamp(Arc<Mutex<BufWriter<File>>>);

#[derive(serde::Deserialize)]
struct Numbered {
    n: u64,
}

impl Handler for Stamp {
    const TASK_TYPE: &'static str = "echo";
    type Input = Numbered;

    async fn run(&self, input: Numbered, task: Task, _services: Services) -> Outcome {
        let line = format!("{} {}\n", input.n, now());
        let mut file = self.0.lock().expect("never poisoned");
        file.write_all(line.as_bytes()).expect("a file that can be written");
        drop(file);
        Outcome::complete(task.context)
    }
}

/// Is that worker, until it is told to stop.
pub(crate) async fn work(file: &Path) -> anyhow::Result<()> {
    let notes = Arc::new(Mutex::new(BufWriter::new(File::create(file)?)));
    let config = Config::from_env()?;
    task_processor::telemetry::init(&config.log);
    let app = App::build(config, Registry::new().with(Stamp(notes.clone())))?;
    app.shutdown().follow_signals()?;
    let code = app.bind(Doors::All).await?.run().await?;
    notes.lock().expect("never poisoned").flush()?;
    std::process::exit(code)
}

/// A worker whose starts are noted in a file.
pub(crate) struct Stamped {
    pub(crate) worker: Worker,
    file: PathBuf,
}

impl Stamped {
    /// Starts one and waits until it is idle.
    pub(crate) async fn start(db: &Db, settings: Settings) -> anyhow::Result<Self> {
        let file = files::scratch("stamps");
        let program = std::env::current_exe()?;
        let arguments = [COMMAND.as_ref(), file.as_os_str()];
        let mut worker = Worker::spawn_program(program.as_ref(), &arguments, db, settings)?;
        worker.ready().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(Self { worker, file })
    }

    /// Waits until all that was added has ended.
    pub(crate) async fn until_nothing_is_left(&mut self, db: &Db) -> anyhow::Result<()> {
        until_done(db, load::last(db).await?, std::slice::from_mut(&mut self.worker)).await?;
        Ok(())
    }

    /// Stops it: the starts by number.
    pub(crate) async fn stop(self) -> anyhow::Result<HashMap<u64, u64>> {
        self.worker.stop().await?;
        let mut starts = HashMap::new();
        for line in BufReader::new(File::open(&self.file)?).lines() {
            let line = line?;
            let (number, moment) = line.split_once(' ').context("half a line")?;
            starts.entry(number.parse()?).or_insert(moment.parse()?);
        }
        std::fs::remove_file(&self.file)?;
        Ok(starts)
    }
}

/// Rows that are to be added evenly over time.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// How often a statement is sent.
    pub(crate) every: Duration,
    /// What it adds, in one transaction.
    pub(crate) rows: u32,
    pub(crate) lasts: Duration,
}

impl Stream {
    /// So many rows a second, in a statement every 5 ms.
    pub(crate) fn of(rate: f64, lasts: Duration) -> Self {
        let every = Duration::from_millis(5);
        // A rate is positive and far from the end of the numbers.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let rows = (rate * every.as_secs_f64()).round().max(1.0) as u32;
        Self { every, rows, lasts }
    }

    /// Adds the rows: when the commit of each was acknowledged, in nanoseconds. A statement that is late makes none of
    /// the others later, as long as not all writers are late.
    pub(crate) async fn pour(self, db: &Db) -> anyhow::Result<Vec<u64>> {
        let statements = u32::try_from(self.lasts.as_nanos() / self.every.as_nanos())?;
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(db.another().await?);
        }
        let began = Instant::now();
        let written = (0..).zip(&writers).map(|(first, client)| async move {
            let mut commits = Vec::new();
            for statement in (first..statements).step_by(WRITERS) {
                sleep_until(began + self.every * statement).await;
                client.batch_execute(&DUE.insert(statement * self.rows + 1, self.rows)).await?;
                commits.push((statement, now()));
            }
            anyhow::Ok(commits)
        });
        let mut commits = try_join_all(written).await?.concat();
        commits.sort_unstable();
        db.count(statements);
        Ok(commits.into_iter().flat_map(|(_, moment)| (0..self.rows).map(move |_| moment)).collect())
    }
}

/// How long tasks waited, in milliseconds, shortest first.
pub(crate) struct Waits(Vec<f64>);

impl Waits {
    /// The commits and starts of all tasks. Number `n` is the `n`th that was added.
    pub(crate) fn pairs(commits: &[u64], starts: &HashMap<u64, u64>) -> anyhow::Result<Vec<(u64, u64)>> {
        let numbered = (1_u64..).zip(commits);
        let pairs: Vec<(u64, u64)> =
            numbered.filter_map(|(number, commit)| Some((*commit, *starts.get(&number)?))).collect();
        ensure!(pairs.len() == commits.len(), "{} of {} tasks were started", pairs.len(), commits.len());
        Ok(pairs)
    }

    /// Of these commits and starts.
    pub(crate) fn of(pairs: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut waits: Vec<f64> = pairs.map(|(commit, start)| milliseconds(commit, start)).collect();
        waits.sort_by(f64::total_cmp);
        Self(waits)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The wait that this share of the tasks did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = self.0.len() * percent / 100;
        self.0.get(index).or(self.0.last()).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn columns(&self) -> Sample {
        vec![
            ("p50 ms", self.percentile(50)),
            ("p95 ms", self.percentile(95)),
            ("p99 ms", self.percentile(99)),
            ("max ms", self.percentile(100)),
        ]
    }
}

/// Negative where the worker was told before the writer.
fn milliseconds(from: u64, to: u64) -> f64 {
    let distance = Duration::from_nanos(from.abs_diff(to)).as_secs_f64() * 1e3;
    if to < from { -distance } else { distance }
}

/// Nanoseconds since 1970: one machine, one clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

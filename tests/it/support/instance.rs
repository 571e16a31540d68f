//! The service as a process of its own, for what only a process can suffer.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use task_processor::app::{App, Doors};
use task_processor::config::Config;
use task_processor::handler::Registry;
use task_processor::telemetry;

use super::app::client;
use super::effects::{Act, Effects};
use super::{KEY, TestDb, eventually, test_variable};

/// A process, killed when the test ends.
pub(crate) struct Instance {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    port: u16,
    http: reqwest::Client,
}

impl Instance {
    /// Starts `task-processor serve` and waits until it listens.
    pub(crate) async fn start(db: &TestDb, extra: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_task-processor"), db, extra).await
    }

    /// The same with the program of another release.
    pub(crate) async fn start_program(program: &str, db: &TestDb, extra: &[(&str, &str)]) -> Self {
        Self::start_command(Command::new(program).arg("serve"), db.vars(extra)).await
    }

    /// The same, where no more than so many files may be open.
    pub(crate) async fn start_with_files(db: &TestDb, files: u32, extra: &[(&str, &str)]) -> Self {
        let mut command = Command::new("/bin/sh");
        let limited = format!("ulimit -n {files} && exec \"$0\" serve");
        Self::start_command(
            command.args(["-c", &limited, env!("CARGO_BIN_EXE_task-processor")]),
            db.vars(extra),
        )
        .await
    }

    /// The same, with the handler [`Act`] instead of the built-in ones: this program, once more.
    pub(crate) async fn start_acting(db: &TestDb, effects: &Effects, extra: &[(&str, &str)]) -> Self {
        let (name, value) = effects.variable();
        let vars = db.vars(extra).into_iter().chain([(name.to_owned(), value)]);
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let only = ["--exact", "support::instance::the_acting_process", "--ignored", "--nocapture"];
        Self::start_command(command.args(only), vars).await
    }

    async fn start_command(command: &mut Command, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut child = command
            .env_clear()
            .envs(vars)
            .env("LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let sink = log.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| sink.lock().unwrap().push(line));
        });
        let mut instance = Self { child, log, port: 0, http: client() };
        eventually("the process listens", async || {
            instance.port = instance.logged("listening").and_then(|line| port_of(&line)).unwrap_or(0);
            instance.port != 0
        })
        .await;
        instance
    }

    /// The first log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        let lines = self.log.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == message)
    }

    /// The whole log.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the end: the exit code, or none if a signal ended it.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", async || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Its memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.kilobytes("VmRSS:") * 1024
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.kilobytes("VmHWM:") * 1024
    }

    fn kilobytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits until this many handlers run. A row says `processing` before that: the reply to the claim is still on its way.
    pub(crate) async fn runs(&self, handlers: usize) {
        let line = format!("task_processor_running {handlers}\n");
        eventually("its handlers run", async || {
            // A connection that has idled may be closed at the moment when it is used again.
            match self.http.get(self.url("/metrics")).bearer_auth(KEY).send().await {
                Ok(answer) => answer.text().await.is_ok_and(|text| text.contains(&line)),
                Err(_) => false,
            }
        })
        .await;
    }

    /// The body of `/health`.
    pub(crate) async fn health(&self) -> Value {
        match self.http.get(self.url("/health")).send().await {
            Ok(response) => response.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn port_of(line: &Value) -> Option<u16> {
    line["address"].as_str()?.rsplit(':').next()?.parse().ok()
}

/// The threads on which handlers of [`the_acting_process`] run.
pub(crate) const ACTING_THREADS: usize = 2;

/// What [`Instance::start_acting`] starts: `serve`, with the handler [`Act`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test, but a process that tests start"]
async fn the_acting_process() {
    let Some(world) = test_variable("EFFECTS").and_then(|address| address.parse().ok()) else { return };
    let config = Config::from_env().expect("a configuration");
    telemetry::init(&config.log);
    let app = App::build(config, Registry::new().with(Act { world })).expect("an app");
    app.shutdown().follow_signals().expect("signals");
    let code = app.bind(Doors::All).await.expect("a port").run().await.expect("an orderly end");
    std::process::exit(code);
}

//! `dev`: the whole thing on a private Postgres, with demo tasks, for a first look and for development.

mod demo;
pub mod postgres;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::output::say;
use crate::app::{App, Bound, Doors};
use crate::config::{Config, env_vars};
use crate::db::{Database, Lane, migrate};
use crate::handler::Registry;
use crate::queue::Queue;
use crate::telemetry;
use postgres::{EmbeddedPostgres, Options};

/// Where the data is kept, beside the sources and ignored by git.
const DATA: &str = ".dev/postgres";
const DATABASE: &str = "dev";
/// Shortened, so that a demonstration of retries fits into a coffee break.
const RETRY_BASE_SECONDS: &str = "2";

/// Options of `dev`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The port on 127.0.0.1.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Without demo tasks.
    #[arg(long)]
    no_demo: bool,
    /// Forget the data of earlier runs.
    #[arg(long)]
    reset: bool,
}

pub(super) async fn run(args: Args, registry: Registry) -> anyhow::Result<i32> {
    let data = std::env::current_dir()?.join(DATA);
    let postgres = EmbeddedPostgres::start(Options { fresh: args.reset, ..Options::kept(&data) }).await?;
    let result = serve(&args, registry, &postgres, data).await;
    postgres.stop().await?;
    result
}

async fn serve(
    args: &Args,
    registry: Registry,
    postgres: &EmbeddedPostgres,
    wanted_data: PathBuf,
) -> anyhow::Result<i32> {
    let url = prepare_database(postgres).await?;
    let config = config(args, &url)?;
    telemetry::init(&config.log);
    let app = App::build(config, registry)?;
    app.shutdown().follow_signals()?;
    let bound = app.bind(Doors::All).await?;
    greet(&bound, &url);
    if postgres.data_dir() != wanted_data {
        say(format!(
            "  data       {} (the server cannot enter this folder)\n",
            postgres.data_dir().display()
        ));
    }
    let queue = bound.worker().queue().clone();
    let demo = if args.no_demo { None } else { Some(tokio::spawn(demonstrate(queue))) };
    let code = bound.run().await?;
    if let Some(demo) = demo {
        demo.abort();
    }
    say("stopped; the data is kept, start again with the same command");
    Ok(code)
}

/// The database, created and migrated: its URL.
async fn prepare_database(postgres: &EmbeddedPostgres) -> anyhow::Result<String> {
    let admin = connect(&postgres.url("postgres"))?;
    let mut session = admin.session(Lane::Shared, std::time::Duration::from_secs(30)).await?;
    let exists = format!("select from pg_database where datname = '{DATABASE}'");
    if session.query(&exists, &[]).await?.is_empty() {
        session.batch(&format!("create database {DATABASE}")).await?;
    }
    let url = postgres.url(DATABASE);
    migrate(&connect(&url)?).await?;
    Ok(url)
}

fn connect(url: &str) -> anyhow::Result<Database> {
    Ok(Database::new(&Config::from_vars([("DATABASE_URL", url)])?.database)?)
}

/// The environment's settings, but for what makes this a private place.
fn config(args: &Args, url: &str) -> anyhow::Result<Config> {
    let mut vars = env_vars();
    for (name, value) in
        [("RETRY_BASE_SECONDS", RETRY_BASE_SECONDS), ("LOG_FORMAT", "pretty"), ("RUST_LOG", "info")]
    {
        vars.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    vars.remove("LISTEN_DATABASE_URL");
    vars.insert("DATABASE_URL".to_owned(), url.to_owned());
    vars.insert("PORT".to_owned(), args.port.to_string());
    let mut config = Config::from_vars(vars)?;
    config.http.host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    config.http.open = true;
    Ok(config)
}

fn greet(bound: &Bound, url: &str) {
    let address = bound.address();
    let retry = bound.worker().config().retry_base.as_secs();
    say(format!(
        "\n  health     curl http://{address}/health\n  \
           metrics    curl http://{address}/metrics\n  \
           SQL        psql '{url}'\n  \
           add a task psql '{url}' -c \"insert into agent_tasks (task_type, agent_type, context_json) \
           values ('echo', 'me', '{{\\\"hello\\\": 1}}')\"\n  \
           retries    after {retry}, {} and {} s here; 1, 2 and 4 minutes in production\n  \
           access     no key is asked for, because this listens on the loopback address only\n  \
           stop       Ctrl-C\n",
        retry * 2,
        retry * 4,
    ));
}

/// Adds the demo tasks, says how each should end, and checks that it did.
async fn demonstrate(queue: Queue) {
    if let Err(error) = demo::run(&queue).await {
        say(format!("the demo could not run: {error:#}"));
    }
}

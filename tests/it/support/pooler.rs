//! `PgBouncer` in transaction mode before the test's Postgres: the hardest way a customer may connect.

use std::path::PathBuf;
use std::process::ChildStdout;

use task_processor::commands::dev::postgres::{EmbeddedPostgres, Guardian, Ward};
use task_processor::config::env_vars;
use tokio_postgres::NoTls;

use super::eventually;

/// `$1` is the program, `$2` its configuration.
const START: &str = r#"
printf '%s\n' "$2" "unix_socket_dir = $run" >"$run/pgbouncer.ini"
"$1" "$run/pgbouncer.ini" 3>&1 >"$run/log" 2>&1 </dev/null 9>&- &
server=$!
"#;

pub(crate) struct Pooler {
    run_dir: PathBuf,
    _guardian: Guardian,
    _words: ChildStdout,
}

impl Pooler {
    pub(crate) async fn start(postgres: &EmbeddedPostgres) -> Self {
        let sockets = postgres.socket_dir();
        let run_dir = sockets.with_extension("pooler");
        // `auth_type = any` lets everybody in as the user that the database line names.
        let config = format!(
            "[databases]
             * = host={} user=postgres
             [pgbouncer]
             listen_addr =
             listen_port = 6432
             auth_type = any
             pool_mode = transaction
             max_client_conn = 2000
             default_pool_size = 10
             server_idle_timeout = 2",
            sockets.display()
        );
        let (guardian, words) = Guardian::spawn(Ward {
            user: postgres.user(),
            run_dir: &run_dir,
            // It has nothing to finish, and its versions disagree about what the other signals mean.
            stop_signal: "KILL",
            start: START,
            arguments: &[program().into(), config.into()],
            lock: None,
        })
        .expect("a guardian");
        let pooler = Self { run_dir, _guardian: guardian, _words: words };
        let url = pooler.url("postgres").replace("&pgbouncer=true", "");
        eventually("pgbouncer answers", async || tokio_postgres::connect(&url, NoTls).await.is_ok()).await;
        pooler
    }

    /// A connection string for the given database.
    pub(crate) fn url(&self, database: &str) -> String {
        let host = self.run_dir.display();
        format!("postgres:///{database}?host={host}&port=6432&user=postgres&pgbouncer=true")
    }
}

fn program() -> PathBuf {
    let path = env_vars().remove("PATH").unwrap_or_default() + ":/usr/sbin";
    std::env::split_paths(&path)
        .map(|dir| dir.join("pgbouncer"))
        .find(|program| program.is_file())
        .expect("pgbouncer: apt-get install -y pgbouncer")
}

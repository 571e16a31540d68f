//! `growth`: the same backlog in a table that holds a lot of something else.

use crate::db::Db;
use crate::drain::drain;
use crate::load::{self, DUE, Rows};
use crate::server::Server;
use crate::table::{Sample, Table};
use crate::worker::TUNED;

/// Options of `growth`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The size of the backlog.
    #[arg(long, default_value_t = 400_000)]
    tasks: u32,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The rows of something else; a fifth as many of those that nobody can run.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// Only the base and the variants whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

/// What else is in the table.
struct Growth {
    variant: &'static str,
    template: &'static str,
    rows: Rows<'static>,
    count: u32,
}

/// Of another origin than those that are counted.
const OTHERS: Rows<'static> = Rows { created_by: "'others'", ..DUE };
const BASE: &str = "nothing else";

fn growths(rows: u32) -> [Growth; 6] {
    let future = Rows { scheduled_for: "now() + interval '1 day' + n * interval '1 ms'", ..OTHERS };
    let urgent = Rows { priority: "'urgent'", ..future };
    let finished = Rows {
        status: "'completed'",
        scheduled_for: "now() - interval '1 hour' + n * interval '1 ms'",
        ..OTHERS
    };
    let unroutable = Rows { task_type: "'unknown_here'", priority: "'urgent'", ..OTHERS };
    let behind = Rows { priority: "'low'", ..OTHERS };
    [
        Growth { variant: BASE, template: "growth_none", rows: OTHERS, count: 0 },
        Growth { variant: "future", template: "growth_future", rows: future, count: rows },
        Growth { variant: "future, urgent", template: "growth_urgent", rows: urgent, count: rows },
        Growth { variant: "finished", template: "growth_finished", rows: finished, count: rows },
        Growth { variant: "unroutable", template: "growth_unroutable", rows: unroutable, count: rows / 5 },
        Growth { variant: "waiting behind", template: "growth_behind", rows: behind, count: rows },
    ]
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new(format!("drain of {} tasks beside {} others, tuned", args.tasks, args.rows));
    for _ in 0..args.runs {
        for Growth { variant, template, rows, count } in growths(args.rows) {
            if variant != BASE && !variant.contains(&args.only) {
                continue;
            }
            let fill = async |db: &Db| {
                load::fill(db, &rows, count).await?;
                load::fill(db, &DUE, args.tasks).await
            };
            let db = server.copy_of(template, fill).await?;
            let mut sample = drain(server, &db, args.tasks, (1, TUNED)).await?;
            sample.extend(claims(server, &db).await?);
            table.add_beside(BASE, variant, sample);
            server.remove(db).await?;
        }
    }
    Ok(table)
}

/// What the claims have read. They are the statements that say who claims.
async fn claims(server: &Server, db: &Db) -> anyhow::Result<Sample> {
    let sql = format!(
        "select sum(calls)::float8, greatest(sum(rows), 1)::float8, sum(shared_blks_hit + shared_blks_read)::float8
         from pg_stat_statements
         where dbid = (select oid from pg_database where datname = '{}')
             and userid <> 'meter'::regrole
             and query ~ 'agent_tasks_take_v1'",
        db.name()
    );
    let rows = server.admin().query_typed(&sql, &[]).await?;
    let (calls, tasks, buffers): (Option<f64>, Option<f64>, Option<f64>) =
        (rows[0].try_get(0)?, rows[0].try_get(1)?, rows[0].try_get(2)?);
    let (Some(calls), Some(tasks), Some(buffers)) = (calls, tasks, buffers) else { return Ok(Sample::new()) };
    Ok(vec![("buffers/claim", buffers / calls), ("buffers/claimed task", buffers / tasks)])
}

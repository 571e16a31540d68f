//! `once`: work off what is due and exit. For a Cloud Run job, or cron.

use serde_json::json;

use super::output::Output;
use crate::app::App;
use crate::config::Config;
use crate::handler::Registry;
use crate::telemetry;

pub(super) async fn run(registry: Registry, output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app = App::build(config, registry)?;
    let shutdown = app.shutdown().clone();
    shutdown.follow_signals()?;
    let worked = app.run_once().await?;
    let value = json!({
        "processed": worked.processed,
        "succeeded": worked.succeeded,
        "failed": worked.failed,
        "released": worked.released,
    });
    let text = format!(
        "{} processed: {} succeeded, {} failed; {} given back",
        worked.processed, worked.succeeded, worked.failed, worked.released
    );
    output.answer(&value, text);
    Ok(shutdown.exit_code())
}

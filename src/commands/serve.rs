//! `serve` and `worker`: run until told to stop.

use crate::app::{App, Doors};
use crate::config::Config;
use crate::handler::Registry;
use crate::telemetry;

pub(super) async fn run(registry: Registry, doors: Doors) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app = App::build(config, registry)?;
    app.shutdown().follow_signals()?;
    app.bind(doors).await?.run().await
}

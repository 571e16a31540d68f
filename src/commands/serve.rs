//! `serve` and `worker`: run until told to stop.

use crate::app::{App, Doors};
use crate::config::Config;
use crate::telemetry;

pub(super) async fn run(doors: Doors) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app = App::build(config, super::registry())?;
    app.shutdown().follow_signals()?;
    app.bind(doors).await?.run().await
}

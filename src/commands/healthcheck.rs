//! `healthcheck`: asks the process on `PORT`, for containers without a shell or curl.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::output::Output;
use crate::config::env_vars;

pub(super) async fn run(output: &Output) -> anyhow::Result<i32> {
    let vars = env_vars();
    let port = vars.get("PORT").map(|port| port.trim()).filter(|port| !port.is_empty());
    // As the service reads it.
    let port: u16 =
        port.map_or(Ok(8080), str::parse).context("PORT is not a whole number from 0 to 65535")?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
    let response = client.get(format!("http://127.0.0.1:{port}/health")).send().await?;
    let healthy = response.status().is_success();
    let body: Value = response.json().await?;
    let status = body["status"].as_str().unwrap_or("unknown").to_owned();
    output.answer(&body, status);
    Ok(i32::from(!healthy))
}

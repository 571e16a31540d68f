//! `token`: make a token for a caller of the API.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::output::Output;
use crate::config::Config;
use crate::http::auth::mint;

/// Options of `token`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Who it is for, as the log names them.
    subject: String,
    /// What they are: service, or anything else for somebody who may do nothing yet.
    #[arg(long, default_value = "service")]
    role: String,
    /// How long it is valid, in seconds; ten years at the most.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    ttl: u64,
}

pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    let secret = config.http.tokens.jwt_secret.context("JWT_SECRET is not set: tokens are signed with it")?;
    let token = mint(&secret, &args.subject, &args.role, Duration::from_secs(args.ttl))?;
    output.answer(&json!({ "token": token, "expiresInSeconds": args.ttl }), &token);
    Ok(0)
}

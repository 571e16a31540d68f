//! Checks whose tokens are accepted.

use secrecy::ExposeSecret;
use url::Url;

use super::check::{Check, list};
use super::raw::Raw;
use super::{AuthMode, TokenConfig, is_loopback, platform};

impl TokenConfig {
    /// Whether Cloud Run has checked Google's tokens: `AUTH_MODE=cloud_run_iam`, on a Cloud Run service.
    #[must_use]
    pub fn is_behind_iam(&self) -> bool {
        self.mode == AuthMode::CloudRunIam && self.on_cloud_run
    }
}

impl Check {
    pub(super) fn tokens(&mut self, raw: &Raw) -> TokenConfig {
        if raw.jwt_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < 32) {
            self.problem("JWT_SECRET", "has fewer than 32 characters", "$(openssl rand -hex 32)");
        }
        let mode = self.choice(
            "AUTH_MODE",
            raw.auth_mode.as_deref(),
            &[("verify", AuthMode::Verify), ("cloud_run_iam", AuthMode::CloudRunIam)],
        );
        let oidc_audiences = list(raw.oidc_audiences.as_deref());
        let oidc_emails = list(raw.oidc_emails.as_deref());
        if mode == AuthMode::Verify && oidc_audiences.is_empty() != oidc_emails.is_empty() {
            let (missing, example) = match oidc_emails.is_empty() {
                true => ("OIDC_EMAILS", "scheduler@my-project.iam.gserviceaccount.com"),
                false => ("OIDC_AUDIENCES", "https://task-processor-abc.a.run.app"),
            };
            self.problem(
                missing,
                "missing: Google's tokens are accepted by audience and e-mail address",
                example,
            );
        }
        TokenConfig {
            jwt_secret: raw.jwt_secret.clone(),
            supabase_issuer: raw.supabase_url.as_deref().and_then(|url| self.supabase_issuer(url)),
            mode,
            on_cloud_run: platform("K_SERVICE").is_some(),
            oidc_audiences,
            oidc_emails,
            google_keys_url: "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
        }
    }

    /// Keys come from there, so that a stranger on the way must not be able to put in others. It is not quoted: there may be
    /// a password in it.
    fn supabase_issuer(&mut self, url: &str) -> Option<String> {
        let issuer = format!("{}/auth/v1", url.trim_end_matches('/'));
        let parsed = Url::parse(url).ok();
        let host = parsed.as_ref().and_then(Url::host_str);
        let what = match (parsed.as_ref().map(Url::scheme), host) {
            _ if parsed
                .as_ref()
                .is_some_and(|url| !url.username().is_empty() || url.password().is_some()) =>
            {
                "has a user or a password in it"
            }
            (Some("https"), Some(_)) => return Some(issuer),
            (Some("http"), Some(_)) if parsed.as_ref().is_some_and(is_loopback) => return Some(issuer),
            (Some("http"), Some(_)) => "is not https",
            _ => "is not a URL",
        };
        self.problem("SUPABASE_URL", what, "https://abcdefghijklmnopqrst.supabase.co");
        None
    }
}

//! What a token claims, and which claims are accepted from whom.

use serde::Deserialize;

/// The claims that decide. One of another type than here makes the token nobody's.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    sub: Option<String>,
    role: Option<String>,
    email: Option<String>,
    email_verified: Option<bool>,
    /// Seconds since 1970. Of a signed token the library checks that it is not over.
    pub(super) exp: f64,
    iat: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What the tokens of one issuer must say.
pub(super) struct Rule {
    pub(super) issuers: Vec<String>,
    /// Empty: any.
    pub(super) audiences: Vec<String>,
    /// Of service accounts; one of them, verified. Empty: any, or none.
    pub(super) emails: Vec<String>,
    /// Issuer and audience may be left out; if they are there, they must be right all the same.
    pub(super) may_be_silent: bool,
}

impl Claims {
    /// Whether it was made by now, and ends some day: an end beyond the year 2286 is milliseconds, or nonsense.
    pub(super) fn is_of_our_time(&self, now: f64) -> bool {
        self.iat.is_none_or(|made| made <= now) && self.exp < 1e10
    }

    /// Who is meant, for the log.
    pub(super) fn subject(&self) -> &str {
        self.sub.as_deref().unwrap_or("somebody without a name")
    }

    /// Supabase's word, or ours.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.role.as_deref(), Some("service_role" | "service"))
    }
}

impl Rule {
    /// Whether such a token may come from this issuer.
    pub(super) fn covers(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known == issuer)
    }

    /// `Err`: what is wrong.
    pub(super) fn check(&self, claims: &Claims) -> Result<(), &'static str> {
        if !claims.iss.as_ref().map_or(self.may_be_silent, |issuer| self.covers(issuer)) {
            return Err("wrong issuer");
        }
        let audience = match &claims.aud {
            _ if self.audiences.is_empty() => true,
            None => self.may_be_silent,
            Some(Audience::One(one)) => self.audiences.contains(one),
            Some(Audience::Many(many)) => many.iter().any(|one| self.audiences.contains(one)),
        };
        if !audience {
            return Err("wrong audience");
        }
        if self.emails.is_empty() {
            return Ok(());
        }
        if claims.email_verified != Some(true) {
            return Err("the e-mail address is not verified");
        }
        let listed = |email: &String| self.emails.iter().any(|known| known.eq_ignore_ascii_case(email));
        if claims.email.as_ref().is_some_and(listed) {
            Ok(())
        } else {
            Err("the e-mail address is not listed")
        }
    }
}

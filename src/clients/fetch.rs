//! HTTP to a service that is not trusted to be quick, brief or well-behaved.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response};

use super::ClientError;
use super::guard::{Forbidden, Guard, check_url, guarded};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// What came back, whatever its status.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: u16,
    /// How long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Nothing usable came back. The message holds neither the request nor a header of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    #[error("cannot be reached: {0}")]
    Forbidden(#[from] Forbidden),
}

/// A client that goes where it is told and nowhere else: no redirects, no proxy from the environment, no forbidden address.
/// How long a server may be silent is left to the limit of each request: a language model thinks before it says a word.
pub(super) fn client() -> Result<Client, ClientError> {
    guarded(Guard::new())
        .no_proxy()
        .connect_timeout(CONNECT_WITHIN)
        .user_agent(concat!("task-processor/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ClientError::Http(crate::telemetry::chain(&error)))
}

/// Sends a request and reads the answer, all within `limit`: a server that drips cannot hold a handler for longer.
pub(super) async fn fetch(request: RequestBuilder, limit: Duration) -> Result<Fetched, FetchError> {
    tokio::time::timeout(limit, read(request)).await.map_err(|_| FetchError::Slow(limit))?
}

async fn read(request: RequestBuilder) -> Result<Fetched, FetchError> {
    let (client, request) = request.build_split();
    let request = request.map_err(unreachable)?;
    check_url(request.url())?;
    let response = client.execute(request).await.map_err(unreachable)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    Ok(Fetched { status, retry_after, body: read_body(response, MAX_BODY).await? })
}

/// Reads what the answer carries, as long as it is at most `most` bytes.
pub(crate) async fn read_body(mut response: Response, most: usize) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > most {
            return Err(FetchError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: reqwest::Error) -> FetchError {
    FetchError::Unreachable(crate::telemetry::chain(&error.without_url()))
}

/// `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - Utc::now()).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_drips_is_given_up_when_the_time_is_over_however_much_it_still_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dripping = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
            let mut drops = 0_u32;
            while stream.write_all(b" ").await.is_ok() {
                drops += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drops
        });
        let limit = Duration::from_millis(300);
        let error = fetch(client().unwrap().get(url), limit).await.expect_err("never complete");
        assert!(matches!(error, FetchError::Slow(_)), "{error:?}");
        assert!(dripping.await.unwrap() > 3, "it was sending all the time");
    }

    #[tokio::test]
    async fn a_server_that_thinks_before_it_answers_has_all_of_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thinking = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            // Only the clock goes on.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(119)).await;
            tokio::time::resume();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").await.unwrap();
            stream
        });
        let request = client().unwrap().get(url);
        let fetched = fetch(request, Duration::from_mins(2)).await.expect("an answer");
        assert_eq!(fetched.body, b"well");
        drop(thinking.await.unwrap());
    }

    fn after(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_understood_in_seconds_and_as_a_date_and_nonsense_is_none() {
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = (Utc::now() + Duration::from_secs(90)).to_rfc2822();
        let wait = after(&later).expect("a date");
        assert!((Duration::from_secs(80)..=Duration::from_secs(90)).contains(&wait), "{wait:?}");
        for nonsense in ["soon", "-1", "", "99999999999999999999"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }
}

//! Why a server sent nothing, and when it is asked again.
//!
//! A hub that limits its requests says for how long: in `Retry-After`, or in `RateLimit` and `RateLimit-Policy` as the
//! drafts of the IETF have them. Its windows are of minutes, so that a limit is waited for longer than a failure.

use std::io;
use std::thread;
use std::time::Duration;

use humantime::format_duration;
use ureq::http::HeaderMap;

use crate::error::Error;

/// Why a server sent nothing.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub url: String,
    /// None where the connection failed.
    pub status: Option<u16>,
    /// The hub's own name of the error, such as `RevisionNotFound`.
    pub code: Option<String>,
    /// With the hub's own words, where it has some.
    pub reason: String,
    /// Whether it may be otherwise the next time.
    pub transient: bool,
    /// Whether the server was not reached at all.
    pub unreached: bool,
    retry_after: Option<Duration>,
}

/// The most characters of a hub's error message that are shown.
const LONGEST_MESSAGE: usize = 500;

impl Refusal {
    /// Of an answer that is neither a success nor a redirect.
    pub(super) fn status(url: &str, status: u16, headers: &HeaderMap) -> Refusal {
        let mut reason = format!("it answered with status {status}");
        if status == 429 {
            reason += ", too many requests";
            if let Some((requests, seconds)) = policy(headers) {
                reason +=
                    &format!(" (it allows {requests} in {})", format_duration(Duration::from_secs(seconds)));
            }
        }
        if let Some(message) =
            header(headers, "x-error-message").map(printable).filter(|text| !text.is_empty())
        {
            reason += &format!(": {message}");
        }
        let seconds = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
        let seconds = seconds.or_else(|| reset(headers).filter(|_| status == 429));
        Refusal {
            status: Some(status),
            code: header(headers, "x-error-code").map(str::to_owned),
            transient: matches!(status, 408 | 429 | 500..),
            retry_after: seconds.map(Duration::from_secs),
            ..Refusal::permanent(url, reason)
        }
    }

    /// Of a request that no server answered.
    pub(super) fn failed(url: &str, error: &ureq::Error) -> Refusal {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
        let (transient, unreached) = match error {
            // A certificate that no authority vouches for arrives like this.
            Io(error) if error.kind() == io::ErrorKind::InvalidData => (false, false),
            Io(_) | ConnectionFailed | HostNotFound | Timeout(_) => (true, true),
            Protocol(_) => (true, false),
            _ => (false, false),
        };
        let reason = format!("the connection failed: {error}");
        Refusal { transient, unreached, ..Refusal::permanent(url, reason) }
    }

    /// Of a connection that ended in the middle of an answer.
    pub(super) fn cut_off(url: &str, error: &io::Error) -> Refusal {
        Refusal { transient: true, ..Refusal::permanent(url, format!("the connection failed: {error}")) }
    }

    pub(super) fn permanent(url: &str, reason: impl Into<String>) -> Refusal {
        Refusal {
            url: url.to_owned(),
            status: None,
            code: None,
            reason: reason.into(),
            transient: false,
            unreached: false,
            retry_after: None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let Refusal { url, reason, transient, unreached, .. } = refusal;
        Error::Unreachable { url, reason, transient, unreached }
    }
}

/// How often a server is asked again.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: u32,
}

/// After so many failures in a row it is no use.
const MAX_FAILURES: u32 = 5;

/// The first pause; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a server may ask for: two of the hub's windows.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

impl Retries {
    /// Waits before the next attempt and tells how long, or says that there is none.
    pub(super) fn wait(&mut self, refusal: Refusal, tell: impl FnOnce(&str)) -> Result<(), Refusal> {
        self.failures += 1;
        if !refusal.transient || self.failures >= MAX_FAILURES {
            return Err(refusal);
        }
        let pause = refusal.retry_after.unwrap_or(FIRST_PAUSE * 2_u32.pow(self.failures - 1));
        if pause > LONGEST_PAUSE {
            let reason = format!("{}; it asks for a pause of {}", refusal.reason, format_duration(pause));
            return Err(Refusal { reason, ..refusal });
        }
        tell(&format!("{}; waiting for {}", refusal.reason, format_duration(pause)));
        thread::sleep(pause);
        Ok(())
    }
}

/// The seconds after which `RateLimit` allows requests again: the longest of the limits that are used up.
fn reset(headers: &HeaderMap) -> Option<u64> {
    let limits = header(headers, "ratelimit")?.split(',');
    let limits =
        limits.map(|limit| (parameter(limit, &["r", "remaining"]), parameter(limit, &["t", "reset"])));
    let limits: Vec<_> = limits.collect();
    let used_up =
        limits.iter().filter(|(left, _)| *left == Some(0)).filter_map(|(_, seconds)| *seconds).max();
    used_up.or_else(|| limits.iter().filter_map(|(_, seconds)| *seconds).max())
}

/// How many requests `RateLimit-Policy` allows, and in how many seconds.
fn policy(headers: &HeaderMap) -> Option<(u64, u64)> {
    let policy = header(headers, "ratelimit-policy")?.split(',').next()?;
    Some((parameter(policy, &["q"])?, parameter(policy, &["w"])?))
}

/// A number among the parameters of a structured field, as in `"api";r=0;t=55`.
fn parameter(item: &str, names: &[&str]) -> Option<u64> {
    item.split(';').find_map(|part| {
        let (name, value) = part.trim().split_once('=')?;
        names.contains(&name).then(|| value.parse().ok())?
    })
}

/// A server's message for a terminal, to which control characters are commands.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|character| !character.is_control()).take(LONGEST_MESSAGE).collect()
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)]) -> Refusal {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Refusal::status("https://hub.example/x", status, &HeaderMap::from_iter(headers))
    }

    #[test]
    fn the_pause_is_the_one_that_the_server_asks_for() {
        let seconds =
            |headers: &[(&'static str, &str)]| refusal(429, headers).retry_after.map(|pause| pause.as_secs());
        for (headers, expected) in [
            (&[][..], None),
            (&[("ratelimit", "\"api\";r=0;t=55")], Some(55)),
            (&[("ratelimit", "\"api\";r=3;t=99, \"resolvers\";r=0;t=7")], Some(7)),
            (&[("ratelimit", "\"api\";r=1;t=9, \"resolvers\";r=2;t=12")], Some(12)),
            (&[("ratelimit", "limit=500, remaining=0, reset=30")], Some(30)),
            (&[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "3")], Some(3)),
            (
                &[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")],
                Some(55),
            ),
            (&[("ratelimit", "\"api\";r=0;t=-1")], None),
            (&[("ratelimit", "t")], None),
        ] {
            assert_eq!(seconds(headers), expected, "{headers:?}");
        }
        // Another error says nothing about the limits.
        assert_eq!(refusal(500, &[("ratelimit", "\"api\";r=400;t=200")]).retry_after, None);
        assert_eq!(refusal(503, &[("retry-after", "2")]).retry_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_reason_has_the_words_of_the_hub_and_no_commands() {
        let limited = refusal(429, &[("ratelimit-policy", "\"fixed window\";\"api\";q=500;w=300")]);
        assert_eq!(limited.reason, "it answered with status 429, too many requests (it allows 500 in 5m)");
        let expired = refusal(401, &[("x-error-message", "Invalid credentials")]);
        assert_eq!(expired.reason, "it answered with status 401: Invalid credentials");
        assert_eq!(printable(" a\u{1b}[2Jb\n "), "a[2Jb");
        assert_eq!(printable(&"x".repeat(1000)).len(), LONGEST_MESSAGE);
    }

    #[test]
    fn a_pause_of_hours_is_not_waited_for() {
        let asked = refusal(429, &[("retry-after", "7200")]);
        let given_up = Retries::default().wait(asked, |_| panic!("it waits")).unwrap_err();
        assert!(given_up.reason.ends_with("it asks for a pause of 2h"), "{}", given_up.reason);
    }
}

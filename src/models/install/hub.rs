//! The hub: a server with the interface of the Hugging Face hub.
//!
//! Its address and the token come from the environment, as for Hugging Face's own client: `HF_ENDPOINT`, `HF_TOKEN`,
//! `HF_TOKEN_PATH`, `HF_HOME`; and `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`. Files may be elsewhere, and the hub
//! redirects there: the token goes to the hub alone.

use std::cell::Cell;
use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, BodyReader};

use super::refusal::{Refusal, Retries, header};
use crate::error::{Error, HubToken};

/// The hub of `HF_ENDPOINT`.
#[derive(Debug)]
pub(crate) struct Hub {
    agent: Agent,
    /// Such as `https://huggingface.co`, without a slash at the end.
    pub endpoint: String,
    token: Option<Token>,
    /// Whether the hub has refused the token. It answers so to one that has expired, for public repositories too.
    refuses_token: Cell<bool>,
}

/// An access token.
#[derive(Debug)]
struct Token {
    secret: String,
    /// Where it is from, in words.
    source: String,
}

/// The bytes that a server sends: those of a file from `start` on.
pub(crate) struct Content {
    pub start: u64,
    pub reader: BodyReader<'static>,
}

const PUBLIC_HUB: &str = "https://huggingface.co";

/// How long a server may take to be reached, and how long it may be silent.
const TO_CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);

/// As many as browsers follow.
const MAX_REDIRECTS: usize = 20;

/// The listing of a repository takes 1000 files a page.
const MAX_PAGES: usize = 100;

impl Hub {
    /// The hub that the environment names.
    pub(crate) fn from_environment() -> Result<Hub, Error> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            return Err(Error::BadEnvironment {
                variable: "HF_ENDPOINT",
                reason: format!("\"{endpoint}\" is no URL"),
            });
        }
        let config = Agent::config_builder()
            .user_agent(concat!("pg_clip/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(TO_CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()?).build())
            .build();
        Ok(Hub { agent: config.new_agent(), endpoint, token: token(), refuses_token: Cell::new(false) })
    }

    /// Whether there was a token, and whether the hub took it.
    pub(super) fn token(&self) -> HubToken {
        match &self.token {
            None => HubToken::None,
            Some(token) if self.refuses_token.get() => HubToken::Refused { source: token.source.clone() },
            Some(_) => HubToken::Accepted,
        }
    }

    /// All entries of a page of JSON and of the pages that follow it.
    pub(super) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Refusal> {
        let mut entries = Vec::new();
        let mut next = Some(format!("{}{path}", self.endpoint));
        let mut pages = 0;
        while let Some(url) = next {
            let (page, headers): (Vec<T>, HeaderMap) = self.json(&url)?;
            entries.extend(page);
            pages += 1;
            next = next_page(&headers);
            let astray =
                next.as_ref().filter(|next| pages == MAX_PAGES || origin(next) != origin(&self.endpoint));
            if let Some(next) = astray {
                return Err(Refusal::permanent(&url, format!("its next page is {next}")));
            }
        }
        Ok(entries)
    }

    /// The hub's answer at `path`.
    pub(super) fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        Ok(self.json(&format!("{}{path}", self.endpoint))?.0)
    }

    /// The bytes of a file from `start` on, or all of them where the server knows no ranges.
    pub(super) fn open(&self, path: &str, start: u64) -> Result<Content, Refusal> {
        let url = format!("{}{path}", self.endpoint);
        let response = self.get(&url, start)?;
        let start = match response.status().as_u16() {
            206 => first_byte(response.headers())
                .filter(|first| *first == start)
                .ok_or_else(|| Refusal::permanent(&url, "it sent another range than it was asked for"))?,
            _ => 0,
        };
        Ok(Content { start, reader: response.into_body().into_reader() })
    }

    /// A connection that ended in the middle of a file.
    pub(super) fn cut_off(&self, path: &str, error: &io::Error) -> Refusal {
        Refusal::cut_off(&format!("{}{path}", self.endpoint), error)
    }

    fn json<T: DeserializeOwned>(&self, url: &str) -> Result<(T, HeaderMap), Refusal> {
        let mut retries = Retries::default();
        loop {
            let answer = self.get(url, 0).and_then(|mut response| {
                let text = response.body_mut().read_to_vec().map_err(|error| Refusal::failed(url, &error))?;
                let value = serde_json::from_slice(&text)
                    .map_err(|error| Refusal::permanent(url, format!("it is no hub: {error}")))?;
                Ok((value, response.headers().clone()))
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(refusal) => retries.wait(refusal, |line| eprintln!("{line}"))?,
            }
        }
    }

    /// Asks with the token, and once more without it where the hub refuses it.
    fn get(&self, url: &str, start: u64) -> Result<Response<Body>, Refusal> {
        let Some(token) = self.token.as_ref().filter(|_| !self.refuses_token.get()) else {
            return self.ask(url, start, None);
        };
        match self.ask(url, start, Some(&token.secret)) {
            Err(refusal) if refusal.status == Some(401) => {
                eprintln!("WARNING:  the hub refuses the token of {}: {}", token.source, refusal.reason);
                self.refuses_token.set(true);
                self.ask(url, start, None)
            }
            answer => answer,
        }
    }

    fn ask(&self, url: &str, start: u64, token: Option<&str>) -> Result<Response<Body>, Refusal> {
        let mut target = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&target);
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            if let Some(token) = token
                && origin(&target) == origin(&self.endpoint)
            {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Refusal::failed(&target, &error))?;
            match response.status().as_u16() {
                200 | 206 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => target = redirect(&target, response.headers())?,
                status => return Err(Refusal::status(&target, status, response.headers())),
            }
        }
        Err(Refusal::permanent(url, "it redirects without end"))
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let port = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some((uri.scheme_str()?.to_owned(), uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(port)))
}

fn redirect(from: &str, headers: &HeaderMap) -> Result<String, Refusal> {
    let refuse = |reason: String| Refusal::permanent(from, reason);
    let location = header(headers, "location").ok_or_else(|| refuse("it redirects nowhere".to_owned()))?;
    let target = if location.starts_with('/') && !location.starts_with("//") {
        let host = from.find("://").map_or(0, |scheme| scheme + 3);
        let path = from[host..].find(['/', '?', '#']).map_or(from.len(), |path| host + path);
        format!("{}{location}", &from[..path])
    } else {
        location.to_owned()
    };
    match origin(&target) {
        Some((scheme, ..)) if scheme == "https" || from.starts_with("http://") => Ok(target),
        _ => Err(refuse(format!("it redirects to {location}"))),
    }
}

/// The page that `Link: <…>; rel="next"` names.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = header(headers, "link")?;
    links.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        parameters.contains("rel=\"next\"").then(|| target.to_owned())
    })
}

/// The first byte of `Content-Range: bytes <first>-<last>/<size>`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The token of `HF_TOKEN`, or of the file in which Hugging Face's client keeps it.
fn token() -> Option<Token> {
    let of_variable = || Some((variable("HF_TOKEN")?, "HF_TOKEN".to_owned()));
    let of_file = || {
        let home = || {
            variable("HF_HOME").map(PathBuf::from).or_else(|| {
                let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
                let caches = caches.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
                Some(caches?.join("huggingface"))
            })
        };
        let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")))?;
        Some((fs::read_to_string(&path).ok()?, path.display().to_string()))
    };
    let (secret, source) = of_variable().or_else(of_file)?;
    let secret = secret.trim().to_owned();
    (!secret.is_empty()).then_some(Token { secret, source })
}

/// The authorities to trust: the ones in the file of `SSL_CERT_FILE`, as behind a proxy that has one of its own, and
/// otherwise Mozilla's.
fn root_certificates() -> Result<RootCerts, Error> {
    let Some(path) = variable("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let pem = fs::read(&path).map_err(Error::io(format!("cannot read {path}")))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| Error::BadEnvironment {
            variable: "SSL_CERT_FILE",
            reason: format!("{path}: {error}"),
        })? {
            certificates.push(certificate);
        }
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443"));
        for other in ["http://hub.example", "https://hub.example:444", "https://cdn.hub.example"] {
            assert_ne!(origin("https://hub.example"), origin(other), "{other}");
        }
        for none in ["", "hub.example", "ftp://hub.example", "/path", "file:///etc/passwd"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_https() {
        let to = |from, location| redirect(from, &headers("location", location)).ok();
        assert_eq!(to("https://a", "/y?z"), Some("https://a/y?z".to_owned()));
        assert_eq!(to("https://a/x", "https://b/y"), Some("https://b/y".to_owned()));
        assert_eq!(to("http://a/x", "http://b/y"), Some("http://b/y".to_owned()));
        for elsewhere in ["http://b/y", "//b/y", "file:///etc/passwd", "y"] {
            assert_eq!(to("https://a/x", elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn headers_are_read() {
        let link = headers("link", "<https://a/tree?cursor=x>; rel=\"next\"");
        assert_eq!(next_page(&link), Some("https://a/tree?cursor=x".to_owned()));
        assert_eq!(next_page(&headers("link", "<https://a>; rel=\"prev\"")), None);
        assert_eq!(first_byte(&headers("content-range", "bytes 100-199/200")), Some(100));
        assert_eq!(first_byte(&headers("content-range", "lines 1-2/3")), None);
    }
}

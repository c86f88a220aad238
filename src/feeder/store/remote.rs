//! Stores that are reached over a network.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, RetryConfig};

use super::address::{Address, BadAddress};
use super::http::{Connector, with_status};
use super::object::{Fetch, NoObject, Why, check_size};

#[derive(Debug)]
pub(super) struct Remote {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    /// Whether answers are about the object alone: no credentials of the feeder's are involved.
    is_web: bool,
}

/// The pauses before further tries of a request, beside the queue's own tries: a server may be busy for a moment.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(20),
    }
}

impl Remote {
    pub(super) fn open(address: &Address) -> Result<Remote, BadAddress> {
        let connector = Connector::new()?;
        // The administrator who started the feeder chose an address with http://.
        let options = ClientOptions::new().with_allow_http(true);
        let no_bucket = || BadAddress::NoBucket(String::new());
        let (store, prefix): (Box<dyn ObjectStore>, &str) = match address {
            Address::S3 { bucket, prefix } => {
                let builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retries());
                (Box::new(builder.build()?), prefix)
            }
            Address::Google { bucket, prefix } => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retries());
                (Box::new(builder.build()?), prefix)
            }
            Address::Azure { container, prefix } => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(container)
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retries());
                (Box::new(builder.build()?), prefix)
            }
            Address::Web(url) => {
                let builder = HttpBuilder::new()
                    .with_url(url.as_str())
                    .with_client_options(options)
                    .with_http_connector(connector)
                    .with_retry(retries());
                (Box::new(builder.build()?), "")
            }
            Address::Folder(_) => return Err(no_bucket()),
        };
        let prefix = Path::parse(prefix).map_err(Error::from)?;
        Ok(Remote { store, prefix, is_web: matches!(address, Address::Web(_)) })
    }

    /// Fetches an object below the prefix. Nothing is read of one whose size is said to exceed the limit, nor more than
    /// the limit of one whose size is said wrongly.
    pub(super) async fn fetch(&self, key: &Path, limit: u64) -> Fetch {
        let location: Path = self.prefix.parts().chain(key.parts()).collect();
        let (fetched, status) = with_status(self.get(&location, key, limit)).await;
        fetched.map_err(|failed| match failed {
            Failed::Size(no_object) => no_object,
            Failed::Store(error) => self.reason(key, &error, status),
        })
    }

    async fn get(&self, location: &Path, key: &Path, limit: u64) -> Result<Vec<u8>, Failed> {
        let found = self.store.get(location).await?;
        let size = found.meta.size;
        check_size(key.as_ref(), size, limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
            check_size(key.as_ref(), bytes.len() as u64, limit)?;
        }
        Ok(bytes)
    }

    fn reason(&self, key: &Path, error: &Error, status: Option<u16>) -> NoObject {
        let text = error.to_string();
        let why = match (error, status) {
            (Error::NotFound { .. }, _) if is_of(&text, &NO_BUCKET) => Why::Away,
            (Error::NotFound { .. }, _) => Why::Missing,
            (Error::PermissionDenied { .. }, _) if is_of(&text, &CREDENTIALS) => Why::Away,
            (Error::PermissionDenied { .. }, _) => Why::Forbidden,
            (Error::Unauthenticated { .. }, _) if self.is_web => Why::Forbidden,
            (Error::Unauthenticated { .. }, _) => Why::Away,
            // Of other stores, the answer may be one to the feeder's credentials.
            (_, Some(410)) if self.is_web => Why::Missing,
            (_, Some(408 | 425 | 429)) => Why::Passing,
            (_, Some(300..=499)) if self.is_web => Why::Refused,
            (_, Some(200)) if text.contains(NO_LENGTH) => Why::Refused,
            _ => Why::Passing,
        };
        let said = said(error, &text, status);
        NoObject::new(
            why,
            match why {
                Why::Missing => format!("the store has no object \"{key}\""),
                Why::Forbidden => format!("the store does not give \"{key}\" to the feeder ({said})"),
                Why::Refused if matches!(status, Some(300..=399)) => {
                    format!("the store redirects \"{key}\" to another place, which is not followed")
                }
                Why::Refused if text.contains(NO_LENGTH) => {
                    format!("the store does not say how large \"{key}\" is")
                }
                Why::Refused => format!("the store refuses \"{key}\" ({said})"),
                _ => format!("the store did not give \"{key}\": {said}"),
            },
        )
    }
}

enum Failed {
    Size(NoObject),
    Store(Error),
}

impl From<NoObject> for Failed {
    fn from(no_object: NoObject) -> Failed {
        Failed::Size(no_object)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Store(error)
    }
}

/// The library's error for an answer without a length.
const NO_LENGTH: &str = "Content-Length Header missing";
/// The answers of stores where the bucket is not there: that is no object's fault.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"];
/// The answers of stores where the feeder's credentials are wrong.
const CREDENTIALS: [&str; 10] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AccountProblem",
    "InvalidClientTokenId",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];

fn is_of(text: &str, codes: &[&str]) -> bool {
    codes.iter().any(|code| text.contains(code))
}

/// The store's message, in few words and without its address.
fn said(error: &Error, text: &str, status: Option<u16>) -> String {
    let code = CREDENTIALS.iter().chain(&NO_BUCKET).find(|code| text.contains(**code));
    if let Some(code) = code {
        return (*code).to_owned();
    }
    if let Some(status) = status.filter(|status| *status >= 300) {
        let name = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        return format!("{status} {}", name.unwrap_or_default()).trim_end().to_owned();
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(transport) = inner.downcast_ref::<HttpError>() {
            return match transport.kind() {
                HttpErrorKind::Connect => "it cannot be reached",
                HttpErrorKind::Timeout => "it is silent",
                HttpErrorKind::Request | HttpErrorKind::Interrupted => "the connection ended",
                _ => "its answer is broken",
            }
            .to_owned();
        }
        cause = inner.source();
    }
    "its answer is broken".to_owned()
}

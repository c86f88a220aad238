//! The HTTP client of all stores.
//!
//! It follows no redirect: the administrator who starts the feeder decides where a request goes, and not a row or a
//! server's answer. It notes how the object's server answered, which `object_store` keeps to itself for most
//! answers.

use std::cell::Cell;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::redirect::Policy;

/// A server that takes longer to be reached, or sends nothing for so long, counts as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// The status of the last response in a fetch.
    static STATUS: Cell<Option<u16>>;
}

/// Runs a fetch, and tells the status of its last response.
pub(super) async fn with_status<R>(fetch: impl Future<Output = R>) -> (R, Option<u16>) {
    STATUS
        .scope(Cell::new(None), async {
            let fetched = fetch.await;
            (fetched, STATUS.with(Cell::get))
        })
        .await
}

/// Makes clients that share their connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
}

impl Connector {
    pub(super) fn new() -> Result<Connector, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("pg_clip_feeder/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .build()?;
        Ok(Connector { client })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.client.clone())))
    }
}

#[derive(Debug)]
struct Client(reqwest::Client);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // A row's key cannot make a URL that does not parse; the library would panic on one.
        if let Err(error) = request.uri().to_string().parse::<url::Url>() {
            return Err(HttpError::new(HttpErrorKind::Unknown, error));
        }
        let note = |status| STATUS.try_with(|last| last.set(status)).unwrap_or_default();
        note(None);
        let response = self.0.call(request).await?;
        note(Some(response.status().as_u16()));
        Ok(response)
    }
}

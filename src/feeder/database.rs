//! The feeder's side of the queue, in SQL.
//!
//! Statements are sent without a name, so that a pooler in between may give each to another session; and every name
//! in them has its schema: an object that another role has put into a schema of a search_path cannot stand in for
//! it.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Connection};

use crate::log;
use crate::tls;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database's address cannot be read: {}", with_cause(.0))]
    Address(#[source] tokio_postgres::Error),
    #[error("{}", said(.0))]
    Statement(#[from] tokio_postgres::Error),
    #[error(transparent)]
    NoTrusted(#[from] tls::NoTrusted),
    #[error("the database did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the database has no extension pg_clip")]
    NoExtension,
    #[error("role {role} may feed no table{}; its owner grants it: SELECT clip_grant_feeder('...', '{role}')", .table.as_ref().map_or(String::new(), |table| format!(" {table}")))]
    NothingToFeed { role: String, table: Option<String> },
}

impl Error {
    /// Whether the same statement may go well a little later.
    pub(crate) fn is_passing(&self) -> bool {
        let Error::Statement(error) = self else {
            return matches!(self, Error::Silent(_));
        };
        let Some(code) = error.code() else {
            return true;
        };
        // Connections, rollbacks, resources, locks, interventions, and a model that is not installed.
        ["08", "40", "53", "55P03", "57", "58", "F0"].iter().any(|class| code.code().starts_with(class))
    }
}

/// The server's message, with its hint, or else the error of the connection.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
            format!("{}: {}{hint}", error.code().code(), error.message())
        }
        None => with_cause(error),
    }
}

fn with_cause(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

/// How a database is reached.
pub struct Address {
    config: Config,
    checks_certificate: bool,
}

impl Address {
    pub fn read(url: &str) -> Result<Address, Error> {
        let checks_certificate = url.contains("sslmode=verify-full");
        let url = url.replace("sslmode=verify-full", "sslmode=require");
        let mut config: Config = url.parse().map_err(Error::Address)?;
        if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        config.application_name("pg_clip_feeder");
        config.connect_timeout(CONNECT_PATIENCE).keepalives_idle(KEEPALIVE);
        Ok(Address { config, checks_certificate })
    }

    async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
            Ok((client, tokio::spawn(drive(connection))))
        } else {
            let (client, connection) = self.config.connect(tls::connector(self.checks_certificate)?).await?;
            Ok((client, tokio::spawn(drive(connection))))
        }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// For a statement that waits for no embedder.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a batch of photos.
const FEED_PATIENCE: Duration = Duration::from_secs(600);

/// Moves messages between the client and the server until either ends, and prints the server's warnings.
async fn drive<S, T>(mut connection: Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                log::line(&format!("{}: {}", notice.severity(), notice.message()))
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// A connection.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    checks_certificate: bool,
    /// The quoted schema of pg_clip.
    schema: String,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A table of references.
#[derive(Debug, Clone)]
pub struct Table {
    pub oid: u32,
    /// With its schema, quoted where necessary.
    pub name: String,
}

/// A photo that this feeder is to fetch.
#[derive(Debug, Clone)]
pub struct Claim {
    pub key: String,
    pub generation: String,
    /// Nothing where there is no photo any more.
    pub reference: Option<String>,
}

/// The content that is handed over for a claimed photo.
#[derive(Debug)]
pub struct Fed {
    pub claim: Claim,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Image(Vec<u8>),
    /// A reason of `clip_feed` and a message.
    None(&'static str, String),
    /// There is no photo any more.
    Gone,
}

/// The facts of a table that a feeder may know.
pub struct Waiting {
    pub photos: u64,
    /// The size above which the server takes no photo.
    pub max_image_bytes: u64,
}

impl Session {
    pub async fn open(address: &Address) -> Result<Session, Error> {
        let (client, connection) = address.connect().await?;
        let checks_certificate = address.checks_certificate;
        let mut session = Session { client, connection, checks_certificate, schema: String::new() };
        let row = session.rows(EXTENSION, &[], PATIENCE).await?;
        session.schema = row.first().ok_or(Error::NoExtension)?.try_get(0)?;
        Ok(session)
    }

    /// The tables that the role may feed, or only the named ones among them, if any are.
    pub async fn tables(&self, named: &[String]) -> Result<Vec<Table>, Error> {
        let rows = self.rows(&tables(&self.schema), &[], PATIENCE).await?;
        let mut found = Vec::new();
        for row in rows {
            let (oid, schema, name, quoted): (u32, &str, &str, &str) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let names = [name.to_owned(), format!("{schema}.{name}"), quoted.to_owned()];
            found.push((names, Table { oid, name: quoted.to_owned() }));
        }
        let is = |names: &[String; 3], wanted: &String| names.contains(wanted);
        let missing = named.iter().find(|wanted| !found.iter().any(|(names, _)| is(names, wanted)));
        if missing.is_some() || found.is_empty() {
            let row = self.rows("SELECT pg_catalog.quote_ident(CURRENT_USER)", &[], PATIENCE).await?;
            let role = row.first().ok_or(Error::NoExtension)?.try_get(0)?;
            return Err(Error::NothingToFeed { role, table: missing.cloned() });
        }
        found.retain(|(names, _)| named.is_empty() || named.iter().any(|wanted| is(names, wanted)));
        Ok(found.into_iter().map(|(_, table)| table).collect())
    }

    pub async fn waiting(&self, table: &Table) -> Result<Waiting, Error> {
        let statement =
            format!("SELECT waiting, max_image_bytes FROM {}.clip_count_references($1)", self.schema);
        let rows = self.rows(&statement, &[(&table.oid, Type::OID)], PATIENCE).await?;
        let row = rows.first().ok_or(Error::NoExtension)?;
        let number =
            |column| row.try_get::<_, i64>(column).map(|number| number.try_into().unwrap_or_default());
        Ok(Waiting { photos: number(0)?, max_image_bytes: number(1)? })
    }

    /// Claims up to `most` photos.
    pub async fn claim(&self, table: &Table, most: usize, lease: Duration) -> Result<Vec<Claim>, Error> {
        let statement = format!(
            "SELECT key, generation, reference FROM {}.clip_claim_references($1, $2, $3)",
            self.schema
        );
        let (most, lease) = (i32::try_from(most).unwrap_or(i32::MAX), lease.as_secs_f64());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&table.oid, Type::OID), (&most, Type::INT4), (&lease, Type::FLOAT8)];
        let rows = self.rows(&statement, &parameters, PATIENCE).await?;
        let claim = |row: &tokio_postgres::Row| {
            Ok(Claim { key: row.try_get(0)?, generation: row.try_get(1)?, reference: row.try_get(2)? })
        };
        rows.iter().map(claim).collect()
    }

    /// Hands photos over, and returns the outcome of each, in the words of `clip_feed`.
    pub async fn feed(&self, table: &Table, photos: &[Fed]) -> Result<Vec<String>, Error> {
        let column = |value: fn(&Fed) -> Option<&str>| photos.iter().map(value).collect::<Vec<_>>();
        let keys = column(|photo| Some(&photo.claim.key));
        let generations = column(|photo| Some(&photo.claim.generation));
        let references = column(|photo| photo.claim.reference.as_deref());
        let images: Vec<Option<&[u8]>> = photos.iter().map(|photo| photo.content.image()).collect();
        let reasons = column(|photo| photo.content.reason().map(|(reason, _)| reason));
        let messages = column(|photo| photo.content.reason().map(|(_, message)| message));
        let statement = format!("CALL {}.clip_feed($1, $2, $3, $4, $5, $6, $7)", self.schema);
        let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
            (&table.oid, Type::OID),
            (&keys, Type::TEXT_ARRAY),
            (&generations, Type::TEXT_ARRAY),
            (&references, Type::TEXT_ARRAY),
            (&images, Type::BYTEA_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&messages, Type::TEXT_ARRAY),
        ];
        let rows = self.rows(&statement, &parameters, FEED_PATIENCE).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
    }

    /// Runs a statement. One that takes too long is cancelled.
    async fn rows(
        &self,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        patience: Duration,
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        match tokio::time::timeout(patience, self.client.query_typed(statement, parameters)).await {
            Ok(rows) => Ok(rows?),
            Err(_) => {
                // The connection is given up in any case.
                let token = self.client.cancel_token();
                if let Ok(connector) = tls::connector(self.checks_certificate) {
                    let _ = tokio::time::timeout(CONNECT_PATIENCE, token.cancel_query(connector)).await;
                }
                Err(Error::Silent(patience))
            }
        }
    }
}

impl Content {
    fn image(&self) -> Option<&[u8]> {
        match self {
            Content::Image(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn reason(&self) -> Option<(&str, &str)> {
        match self {
            Content::None(reason, message) => Some((reason, message)),
            _ => None,
        }
    }
}

const EXTENSION: &str = "
    SELECT pg_catalog.quote_ident(namespace.nspname::pg_catalog.text) FROM pg_catalog.pg_extension AS extension
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) extension.extnamespace
    WHERE extension.extname OPERATOR(pg_catalog.=) 'pg_clip'";

/// The tables of references that the role has the rights of the owner on, or may feed.
fn tables(schema: &str) -> String {
    format!(
        "SELECT watch.source::pg_catalog.oid, namespace.nspname::pg_catalog.text, class.relname::pg_catalog.text,
            pg_catalog.format('%I.%I', namespace.nspname, class.relname)
        FROM {schema}.clip_watches AS watch
        JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
        JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) class.relnamespace
        WHERE watch.by_reference AND (
            pg_catalog.pg_has_role(class.relowner, 'USAGE')
            OR EXISTS (
                SELECT FROM {schema}.clip_feeders AS given
                JOIN pg_catalog.pg_roles AS role ON role.oid OPERATOR(pg_catalog.=) given.feeder::pg_catalog.oid
                WHERE given.source::pg_catalog.oid OPERATOR(pg_catalog.=) class.oid
                    AND pg_catalog.pg_has_role(role.oid, 'USAGE')))
        ORDER BY class.oid"
    )
}

//! Where the photos lie: object storage, a web server, or a folder. Its address is given once, when the feeder starts.

mod address;
mod folder;
mod http;
mod remote;

use std::time::Duration;

pub use self::address::{Address, BadAddress};
use self::folder::Folder;
use self::remote::Remote;
use crate::key;

/// An open store.
#[derive(Debug)]
pub struct Store {
    place: Place,
    /// A photo that takes longer is given up for now.
    timeout: Duration,
}

#[derive(Debug)]
enum Place {
    Remote(Remote),
    Folder(Folder),
}

/// The bytes of an object, or why there are none.
pub type Fetch = Result<Vec<u8>, NoObject>;

#[derive(Debug, Clone)]
pub struct NoObject {
    pub why: Why,
    /// For the owner of the table, in `clip_failures`.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The store has no such object.
    Missing,
    /// The store does not give it to the feeder.
    Forbidden,
    /// The reference is no key, or leads elsewhere.
    Refused,
    /// It exceeds the limit.
    TooLarge,
    /// The next try may go well.
    Passing,
    /// The store gives nothing now: this says nothing of the object.
    Away,
}

impl NoObject {
    fn new(why: Why, message: impl Into<String>) -> NoObject {
        NoObject { why, message: message.into() }
    }
}

impl Store {
    pub fn open(address: &Address, timeout: Duration) -> Result<Store, BadAddress> {
        let place = match address {
            Address::Folder(root) => {
                Place::Folder(Folder::open(root).map_err(|cause| BadAddress::Folder(root.clone(), cause))?)
            }
            remote => Place::Remote(Remote::open(remote)?),
        };
        Ok(Store { place, timeout })
    }

    /// Fetches the object that a row refers to, of at most `limit` bytes.
    pub async fn fetch(&self, reference: &str, limit: u64) -> Fetch {
        let key = key::parse(reference).map_err(|why| {
            NoObject::new(Why::Refused, format!("the reference is not a key of the store: {why}"))
        })?;
        let fetch = async {
            match &self.place {
                Place::Remote(remote) => remote.fetch(&key, limit).await,
                Place::Folder(folder) => folder.fetch(key.as_ref(), limit).await,
            }
        };
        match tokio::time::timeout(self.timeout, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                let message = format!("the store did not give \"{key}\" within {seconds} s");
                Err(NoObject::new(Why::Passing, message))
            }
        }
    }

    /// Whether the store answers at all: what it says of an object that hardly exists is an answer too.
    pub async fn answers(&self) -> bool {
        const PROBE: &str = ".pg_clip_feeder";
        !matches!(self.fetch(PROBE, u64::MAX).await, Err(NoObject { why: Why::Passing | Why::Away, .. }))
    }
}

fn check_size(key: &str, size: u64, limit: u64) -> Result<(), NoObject> {
    if size <= limit {
        return Ok(());
    }
    let message = format!("\"{key}\" has {size} bytes, more than clip.max_image_bytes ({limit})");
    Err(NoObject::new(Why::TooLarge, message))
}

//! Where the photos lie: object storage, a web server, or a folder. Its address is given once, when the feeder starts.

mod address;
mod folder;
mod http;
mod object;
mod remote;

use std::time::Duration;

pub use self::address::{Address, BadAddress};
use self::folder::Folder;
pub use self::object::{Fetch, NoObject, Why};
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

    /// Whether the store answers at all: an answer about an object that hardly exists counts too.
    pub async fn answers(&self) -> bool {
        const PROBE: &str = ".pg_clip_feeder";
        // Where there is one, its size is an answer.
        !matches!(self.fetch(PROBE, 0).await, Err(NoObject { why: Why::Passing | Why::Away, .. }))
    }
}

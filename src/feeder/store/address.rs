//! The address of a store, as the command line has it.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Bucket or container, and prefix; without credentials, which are taken from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    S3 {
        bucket: String,
        prefix: String,
    },
    Google {
        bucket: String,
        prefix: String,
    },
    Azure {
        container: String,
        prefix: String,
    },
    /// A server that answers GET below this URL.
    Web(Url),
    Folder(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    #[error(
        "\"{0}\" is not the address of a store: s3://, gs:// or az://BUCKET/PREFIX, https://HOST/PREFIX, or file:///FOLDER"
    )]
    Unknown(String),
    #[error("\"{0}\" names no bucket")]
    NoBucket(String),
    #[error("cannot open the folder {}: {}", .0.display(), .1)]
    Folder(PathBuf, #[source] io::Error),
    #[error("cannot open the store: {0}")]
    Store(#[from] object_store::Error),
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let unknown = || BadAddress::Unknown(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        // Not by `Url`: a prefix is a key, whose characters are not percent-encoded.
        let bucket = || {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(BadAddress::NoBucket(text.to_owned()));
            }
            Ok((bucket.to_owned(), prefix.trim_matches('/').to_owned()))
        };
        match scheme {
            "s3" | "s3a" => bucket().map(|(bucket, prefix)| Address::S3 { bucket, prefix }),
            "gs" => bucket().map(|(bucket, prefix)| Address::Google { bucket, prefix }),
            "az" | "azure" => bucket().map(|(container, prefix)| Address::Azure { container, prefix }),
            "http" | "https" => {
                let mut url = Url::parse(text).map_err(|_| unknown())?;
                // A path is put behind it.
                url.path_segments_mut().map_err(|()| unknown())?.pop_if_empty();
                url.set_fragment(None);
                Ok(Address::Web(url))
            }
            "file" if rest.starts_with('/') => Ok(Address::Folder(PathBuf::from(rest))),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn reads_addresses() {
        let address = |text: &str| text.parse::<Address>().ok();
        let s3 = |bucket: &str, prefix: &str| {
            Some(Address::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        assert_eq!(address("s3://photos"), s3("photos", ""));
        assert_eq!(address("s3://photos/"), s3("photos", ""));
        assert_eq!(address("s3://photos/customers/2026/"), s3("photos", "customers/2026"));
        assert_eq!(address("file:///var/photos"), Some(Address::Folder("/var/photos".into())));
        for (given, base) in [("https://x.org/a/", "https://x.org/a"), ("https://x.org", "https://x.org/")] {
            assert!(matches!(address(given), Some(Address::Web(url)) if url.as_str() == base), "{given}");
        }
        for bad in ["photos", "s3:photos", "s3://", "ftp://x/y", "file://relative", "", "https://"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}

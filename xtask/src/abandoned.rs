//! Temporary clusters whose process was killed before it could remove them.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::cluster::{Cluster, TEMPORARY};
use crate::places::Places;
use crate::postgres::Postgres;

/// Stops and removes them; any PostgreSQL can stop any.
pub(crate) fn remove(places: &Places, postgres: &Postgres) -> Result<()> {
    for entry in fs::read_dir(&places.base)? {
        let entry = entry?;
        if let Some(maker) = maker(&entry.file_name().to_string_lossy())
            && !Path::new("/proc").join(maker).exists()
        {
            Cluster::at(places, postgres, entry.path()).remove()?;
        }
    }
    Ok(())
}

/// The process id in a temporary cluster's name.
fn maker(name: &str) -> Option<&str> {
    Some(name.strip_prefix(TEMPORARY)?.split_once('-')?.0)
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn reads_the_process_that_made_a_temporary_cluster() {
        assert_eq!(maker("temporary-123-0"), Some("123"));
        assert_eq!(maker("cluster-18-0a1b2c3d"), None);
    }
}

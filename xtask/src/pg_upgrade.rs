//! pg_upgrade from PostgreSQL 16 to 18, of a database with watches and photos that wait to be embedded.
//!
//! Checks that the search works as soon as the new server runs, that each vector is unchanged, that the photos that
//! waited are embedded, none twice, and that a database in which an earlier release was never updated comes along and
//! can be updated then.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, Setting, Stop};
use crate::command;
use crate::environment::Environment;
use crate::places::Places;
use crate::progress::step;
use crate::psql::Database;
use crate::{build, install};

const FROM: u32 = 16;
const TO: u32 = 18;

const PRELOADED: [Setting; 1] = [("shared_preload_libraries", "pg_clip")];
/// Photos then wait: a session that stores them needs no embedder.
const WITHOUT_EMBEDDER: [Setting; 2] =
    [("shared_preload_libraries", "pg_clip"), ("clip.embedder_program", "/nowhere/pg_clip_embedder")];

const EMBEDDED: usize = 10;
const WAITING: usize = 20;

const OBJECTS: &str = "
    CREATE EXTENSION vector; CREATE EXTENSION pg_clip;
    CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
    SELECT clip_watch('photos', mode => 'async');
    CREATE TABLE listings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
    SELECT clip_watch('listings', target => 'listing_embeddings');";

const VECTORS: &str = "SELECT md5(string_agg(e::text, ',' ORDER BY image_id)) AS value
    FROM (SELECT * FROM image_embeddings ORDER BY image_id LIMIT 10) AS e";

const NEAREST: &str = "SELECT image_id::text AS value FROM image_embeddings
    ORDER BY embedding <=> clip_embed_text('a cloud with lightning') LIMIT 1";

const QUEUED: &str = "SELECT count(*)::text AS value FROM clip_queue WHERE NOT dead";

const INFERENCES: &str = "SELECT image_inferences::text AS value FROM clip_status";

/// Photos without the vector of their bytes, and vectors of no photo.
const WRONG: &str =
    "SELECT count(*)::text AS value FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)";

pub fn pg_upgrade(places: &Places, environment: &Environment) -> Result<()> {
    let [from, to] = [FROM, TO].map(|major| environment.postgres(major));
    let (from, to) = (from?, to?);
    for postgres in [&from, &to] {
        let built = build::build(&places.workspace, environment, postgres)?;
        install::install(&places.workspace, environment, postgres, &built)?;
    }
    let photos = photos(&places.workspace.root)?;
    ensure!(photos.len() > EMBEDDED + WAITING, "the demo has too few photos");

    let old = Cluster::temporary(places, &from, &PRELOADED)?;
    fill(&old, &photos, &places.workspace.root)?;
    let database = Database { cluster: &old, name: "photos" };
    let (vectors, nearest) = (value(&database, VECTORS)?, value(&database, NEAREST)?);
    old.configure(&WITHOUT_EMBEDDER)?;
    old.restart()?;
    database.run(&insert("photos", &photos[EMBEDDED..EMBEDDED + WAITING]))?;
    let queued = value(&database, QUEUED)?;
    ensure!(queued == WAITING.to_string(), "{queued} photos wait");
    old.stop(Stop::Fast)?;

    let new = Cluster::of_upgrade(places, &to)?;
    step(&format!("upgrading {} to {}", from.version, to.version), || move_over(places, &old, &new))?;
    new.configure(&PRELOADED)?;
    let start = Instant::now();
    new.start()?;
    let database = Database { cluster: &new, name: "photos" };
    let found = value(&database, NEAREST)?;
    let searched = start.elapsed();
    ensure!(found == nearest, "the nearest photo is {found}, and was {nearest}");
    wait_for_the_queue(&database)?;
    let inferences = value(&database, INFERENCES)?;
    ensure!(value(&database, VECTORS)? == vectors, "vectors have changed");
    ensure!(inferences == WAITING.to_string(), "{inferences} inferences for {WAITING} photos");
    let wrong = value(&database, WRONG)?;
    ensure!(wrong == "0", "{wrong} vectors are not those of their photos");
    // Both watches go on.
    for table in ["photos", "listings"] {
        database.run(&insert(table, &photos[EMBEDDED + WAITING..EMBEDDED + WAITING + 1]))?;
    }
    wait_for_the_queue(&database)?;
    ensure!(value(&database, WRONG)? == "0", "a new photo was not embedded");
    let listed = value(&database, "SELECT count(*)::text AS value FROM listing_embeddings")?;
    ensure!(listed == "1", "{listed} photos of the watch in sync mode are embedded");

    let earlier = Database { cluster: &new, name: "earlier" };
    earlier.run("ALTER EXTENSION pg_clip UPDATE")?;
    let left = wait_for(
        &earlier,
        "SELECT count(*)::text AS value FROM clip_queue WHERE NOT dead AND source = 'uploads'::regclass",
    )?;
    println!(
        "{} to {}: {EMBEDDED} photos with vectors and {WAITING} in the queue\n\
         the first search, {} ms after the start began, found what it found before\n\
         the queue made {inferences} inferences for the {WAITING} photos; {wrong} vectors are wrong\n\
         a database of release 0.1.0 was updated afterwards; {left} of its photos wait",
        from.version,
        to.version,
        searched.as_millis(),
    );
    Ok(())
}

/// A database with watches and embedded photos, and one that release 0.1.0 made.
fn fill(cluster: &Cluster, photos: &[Vec<u8>], root: &Path) -> Result<()> {
    let server = Database { cluster, name: "postgres" };
    server.run(
        "CREATE DATABASE photos; CREATE DATABASE earlier; CREATE ROLE photographer; CREATE ROLE archivist",
    )?;
    let database = Database { cluster, name: "photos" };
    database.run(OBJECTS)?;
    database.run(&insert("photos", &photos[..EMBEDDED]))?;
    wait_for_the_queue(&database)?;
    let dump = root.join("tests/data/upgrade/0.1.0.sql");
    let dump = fs::read_to_string(&dump).with_context(|| format!("cannot read {}", dump.display()))?;
    Database { cluster, name: "earlier" }.run(&dump)?;
    Ok(())
}

/// Runs pg_upgrade; its logs become the error.
fn move_over(places: &Places, old: &Cluster, new: &Cluster) -> Result<()> {
    let mut upgrade = places.account.command(new.postgres().program("pg_upgrade"));
    upgrade
        .arg("--old-bindir")
        .arg(&old.postgres().bindir)
        .arg("--new-bindir")
        .arg(&new.postgres().bindir)
        .arg("--old-datadir")
        .arg(old.data())
        .arg("--new-datadir")
        .arg(new.data())
        .arg("--socketdir")
        .arg(new.sockets())
        .args(["--username=postgres", "--no-sync"])
        .current_dir(new.directory());
    command::output(&mut upgrade).map(drop).with_context(|| {
        let mut paths = vec![new.data().join("pg_upgrade_output.d")];
        let mut said = String::new();
        while let Some(path) = paths.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => paths.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) => said += &fs::read_to_string(&path).unwrap_or_default(),
            }
        }
        said
    })
}

fn photos(root: &Path) -> Result<Vec<Vec<u8>>> {
    let folder = root.join("models/demo/photos");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "webp"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

fn insert(table: &str, photos: &[Vec<u8>]) -> String {
    let literals: Vec<String> = photos
        .iter()
        .map(|photo| {
            let digits: String = photo.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("('\\x{digits}')")
        })
        .collect();
    format!("INSERT INTO {table} (image) VALUES {};", literals.join(", "))
}

fn value(database: &Database, query: &str) -> Result<String> {
    let rows = database.rows(query)?;
    let row = rows.first().with_context(|| format!("no row: {query}"))?;
    Ok(row["value"].as_str().unwrap_or_default().to_owned())
}

fn wait_for_the_queue(database: &Database) -> Result<()> {
    wait_for(database, QUEUED).map(drop)
}

/// Waits until a query says 0.
fn wait_for(database: &Database, query: &str) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let left = value(database, query)?;
        if left == "0" {
            return Ok(left);
        }
        if Instant::now() > deadline {
            bail!("{left} photos wait after 5 minutes: {}", database.cluster.log().unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

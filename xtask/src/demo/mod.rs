//! The demo: photos go into a watched table and are found again, with nothing but SQL.
//!
//! Every statement it shows is the statement that it ran, and every answer is psql's own.

mod page;
mod photos;
mod searches;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::demo::page::Page;
use crate::demo::photos::{Photo, quote};
use crate::places::Places;
use crate::progress::{bar, step};
use crate::psql::Database;

pub const DATABASE: &str = "demo";

const BATCH: usize = 32;

const TABLES: &str = "\
CREATE TABLE customer_photos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    file_name text NOT NULL,
    image bytea
);
SELECT clip_watch('customer_photos');";

/// Runs the demo on a cluster that has the extension; returns the path of its page.
pub fn demo(places: &Places, cluster: &Cluster) -> Result<PathBuf> {
    let folder = folder(places);
    let photos = photos::read(&folder)?;
    let queries = photos::read(&folder.join("queries"))?;
    let database = create(cluster)?;

    show("A table of photos that embeds them by itself", TABLES, &database.run(TABLES)?);
    insert(&database, &photos)?;
    add_query_photos(&database, &queries)?;

    let mut page = Page::new(&photos);
    for search in searches::searches(&queries)? {
        show(search.title, &search.sql, &database.run(&search.sql)?);
        let rows = database.rows(&search.sql)?;
        if rows.is_empty() {
            bail!("the search found nothing");
        }
        page.add(search.title, &search.sql, search.picture, &rows);
    }
    upload_again(&database, &photos, &mut page)?;

    let path = places.workspace.target.join("pg_clip/demo.html");
    fs::write(&path, page.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The demo's database, after loading its photos where an earlier demo has not.
pub fn loaded<'a>(places: &Places, cluster: &'a Cluster) -> Result<Database<'a>> {
    let server = Database { cluster, name: "postgres" };
    let is_there = format!("SELECT count(*) AS number FROM pg_database WHERE datname = '{DATABASE}'");
    let embedded = "SELECT count(*) AS number FROM pg_class WHERE oid = to_regclass('image_embeddings')";
    let database = Database { cluster, name: DATABASE };
    if number(&server, &is_there)? == 0 || number(&database, embedded)? == 0 {
        let photos = photos::read(&folder(places))?;
        let inserts: Vec<String> = photos.chunks(BATCH).map(insertion).collect();
        let database = create(cluster)?;
        // In one transaction: a table that is there has all photos.
        let load = format!("BEGIN;\n{TABLES}\n{}\nCOMMIT;", inserts.join("\n"));
        step(&format!("inserting {} photos", photos.len()), || database.run(&load))?;
    }
    Ok(database)
}

/// The command line's arguments for psql on the demo's database.
pub fn psql_arguments() -> String {
    format!("-- {DATABASE}")
}

fn folder(places: &Places) -> PathBuf {
    places.workspace.root.join("models/demo/photos")
}

fn create(cluster: &Cluster) -> Result<Database<'_>> {
    let server = Database { cluster, name: "postgres" };
    server.run(&format!(
        "SET client_min_messages = warning; DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE); \
         CREATE DATABASE {DATABASE};"
    ))?;
    let database = Database { cluster, name: DATABASE };
    database.run("CREATE EXTENSION vector; CREATE EXTENSION pg_clip;")?;
    Ok(database)
}

fn insert(database: &Database, photos: &[Photo]) -> Result<()> {
    let bar = bar(&format!("inserting {} photos", photos.len()), photos.len() as u64);
    let start = Instant::now();
    for batch in photos.chunks(BATCH) {
        database.run(&insertion(batch))?;
        bar.inc(batch.len() as u64);
    }
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let embedded = number(database, "SELECT count(*) AS number FROM image_embeddings")?;
    let rate = photos.len() as f64 / seconds;
    println!(
        "{} photos inserted, {embedded} embedded, in {seconds:.1} s: {rate:.0} a second\n",
        photos.len()
    );
    if usize::try_from(embedded) != Ok(photos.len()) {
        bail!("not every photo has been embedded");
    }
    Ok(())
}

fn insertion(photos: &[Photo]) -> String {
    let rows: Vec<String> = photos
        .iter()
        .map(|photo| format!("({}, {}, {})", quote(&photo.project), quote(&photo.file), photo.literal()))
        .collect();
    format!("INSERT INTO customer_photos (project, file_name, image) VALUES {};", rows.join(", "))
}

/// Pictures to search with, in a table of their own that is not watched.
fn add_query_photos(database: &Database, queries: &[Photo]) -> Result<()> {
    let mut sql = "CREATE TABLE query_photos (file_name text PRIMARY KEY, image bytea);\n".to_owned();
    for photo in queries {
        sql += &format!("INSERT INTO query_photos VALUES ({}, {});\n", quote(&photo.file), photo.literal());
    }
    database.run(&sql).map(drop)
}

/// The fifth search: the same bytes again cost no inference, and are recognised.
fn upload_again<'a>(database: &Database, photos: &'a [Photo], page: &mut Page<'a>) -> Result<()> {
    let first = photos.first().context("there is no photo")?;
    let name = format!("again-{}", first.file);
    let inferences = "SELECT image_inferences AS number FROM clip_status";
    let before = number(database, inferences)?;
    let upload = format!(
        "INSERT INTO customer_photos (project, file_name, image)\nSELECT project, {}, image FROM customer_photos \
         WHERE file_name = {};",
        quote(&name),
        quote(&first.file)
    );
    let search = searches::duplicates(&name);
    let sql = format!("{upload}\n\n{search}");
    let title = "The same photo uploaded again: its checksum is known, its vector is copied";
    show(title, &sql, &(database.run(&upload)? + &database.run(&search)?));
    page.add_copy(&name, first);
    page.add(title, &sql, None, &database.rows(&search)?);
    let after = number(database, inferences)?;
    println!("Image inferences of the embedder: {before} before, {after} after.\n");
    if after != before {
        bail!("the same bytes were embedded twice");
    }
    Ok(())
}

fn number(database: &Database, query: &str) -> Result<i64> {
    let rows = database.rows(query)?;
    rows.first().and_then(|row| row["number"].as_i64()).with_context(|| format!("no number from: {query}"))
}

fn show(title: &str, sql: &str, answer: &str) {
    println!("{title}\n\n{sql}\n\n{}\n", answer.trim_end());
}

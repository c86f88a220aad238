//! The statements of the triggers and the queue worker on watched tables and their targets.
//!
//! Identifiers are quoted by PostgreSQL's own function, tables come with their schemas, and operators are those of
//! `pg_catalog` or the key's own: a caller's search_path cannot change what a statement means.
//!
//! A transition table is never joined to a table that is written: PostgreSQL would carry its whole rows along, and
//! read each photo for that. The statements take its keys out first.

use super::next::NEXT_EMBEDDING;
use super::watched::{Source, Watched};

/// The model of some vector of the target.
pub(crate) fn any_model(watched: &Watched) -> String {
    let (target, model) = (&watched.target.rows, &watched.model.name);
    format!("SELECT t.{model} FROM {target} AS t WHERE t.{model} IS NOT NULL LIMIT 1")
}

/// A model other than `$1` that made a vector of the target.
pub(crate) fn other_model(watched: &Watched) -> String {
    let (target, model) = (&watched.target.rows, &watched.model.name);
    format!("SELECT t.{model} FROM {target} AS t WHERE t.{model} OPERATOR(pg_catalog.<>) $1 LIMIT 1")
}

/// The photo with key `$1` as it is now: its image, its project, and which version of its row that is.
pub(crate) fn photo(watched: &Watched) -> String {
    let (source, key, image) =
        (&watched.source.table.rows, &watched.source.key.name, &watched.source.image.name);
    let (equals, project) = (&watched.source.key_type.equals, project_of(watched, "s"));
    format!("SELECT s.{image}, {project}, {VERSION} FROM {source} AS s WHERE s.{key} {equals} $1")
}

/// As [`photo`], with a lock: no other transaction changes or deletes the photo before the end of this one. No row
/// also where another transaction has it locked.
pub(crate) fn lock_photo(watched: &Watched) -> String {
    format!("{} FOR SHARE SKIP LOCKED", photo(watched))
}

/// A row keeps its place and its writer until a transaction writes to it.
const VERSION: &str = "pg_catalog.concat_ws(' ', s.tableoid, s.ctid, s.xmin)";

/// The keys of photos that a statement inserted.
pub(crate) fn inserted_keys(source: &Source, new: &str) -> String {
    let (key, image) = (&source.key.name, &source.image.name);
    format!("SELECT n.{key} FROM {new} AS n WHERE n.{image} IS NOT NULL")
}

/// The changes under each key that a statement left: the key, the image after and before, whether the key was there
/// before, and whether its project is another now. A project is compared by its bytes: not each type has an
/// operator.
pub(crate) fn changes(watched: &Watched, new: &str, old: &str) -> String {
    let (key, image, equals) =
        (&watched.source.key.name, &watched.source.image.name, &watched.source.key_type.equals);
    let project_changed = match &watched.project {
        Some((project, _)) => {
            format!("NOT pg_catalog.record_image_eq(ROW(n.{0}), ROW(o.{0}))", project.name)
        }
        None => "false".to_owned(),
    };
    format!(
        "SELECT n.{key}, n.{image}, o.{image}, o.{key} IS NOT NULL, {project_changed} FROM {new} AS n
        LEFT JOIN {old} AS o ON o.{key} {equals} n.{key} WHERE n.{key} IS NOT NULL"
    )
}

/// The vector of a photo with checksum `$1` that model `$2` made, and that of the model that the target is being moved to.
pub(crate) fn find_vector(watched: &Watched) -> String {
    let (target, embedding) = (&watched.target.rows, &watched.embedding.name);
    let (checksum, model) = (&watched.checksum.name, &watched.model.name);
    let next = watched.next.as_ref().map_or(String::new(), |_| format!(", t.{NEXT_EMBEDDING}"));
    format!(
        "SELECT t.{embedding}{next} FROM {target} AS t
        WHERE t.{checksum} OPERATOR(pg_catalog.=) $1 AND t.{model} OPERATOR(pg_catalog.=) $2 LIMIT 1"
    )
}

/// Key `$1`, vector `$2`, checksum `$3`, model `$4` and then, where there are such columns, the project and the vector of
/// the model that the target is being moved to.
pub(crate) fn write_vector(watched: &Watched) -> String {
    let target = &watched.target.name;
    let key = watched.target_key.name.as_str();
    let mut columns = vec![key, &watched.embedding.name, &watched.checksum.name, &watched.model.name];
    columns.extend(watched.project.as_ref().map(|(_, project)| project.name.as_str()));
    columns.extend(watched.next.as_ref().map(|_| NEXT_EMBEDDING));
    let list = |text: fn(usize, &str) -> String, first: usize| {
        let texts = columns.iter().enumerate().skip(first).map(|(index, column)| text(index, column));
        texts.collect::<Vec<_>>().join(", ")
    };
    format!(
        "INSERT INTO {target} AS t ({}) VALUES ({}) ON CONFLICT ({key}) DO UPDATE SET {}",
        list(|_, column| column.to_owned(), 0),
        list(|index, _| format!("${}", index + 1), 0),
        list(|_, column| format!("{column} = EXCLUDED.{column}"), 1),
    )
}

/// Gives the embeddings under a statement's keys the projects that their photos have now. Empty where no project is
/// carried over.
pub(crate) fn carry_projects_over(watched: &Watched, new: &str) -> String {
    let Some((project, target_project)) = &watched.project else {
        return String::new();
    };
    let (source, target) = (&watched.source.table.rows, &watched.target.rows);
    let (key, target_key, equals) =
        (&watched.source.key.name, &watched.target_key.name, &watched.source.key_type.equals);
    let (project, target_project) = (&project.name, &target_project.name);
    format!(
        "WITH touched AS MATERIALIZED (SELECT n.{key} FROM {new} AS n)
        UPDATE {target} AS t SET {target_project} = s.{project}
        FROM touched JOIN {source} AS s ON s.{key} {equals} touched.{key}
        WHERE t.{target_key} {equals} touched.{key}
            AND NOT pg_catalog.record_image_eq(ROW(t.{target_project}), ROW(s.{project}))"
    )
}

/// The keys under which an UPDATE left no photo.
pub(crate) fn left_keys(source: &Source, new: &str, old: &str) -> String {
    let (key, image, equals) = (&source.key.name, &source.image.name, &source.key_type.equals);
    format!(
        "SELECT o.{key} FROM {old} AS o WHERE NOT EXISTS (
            SELECT FROM {new} AS n WHERE n.{key} {equals} o.{key} AND n.{image} IS NOT NULL)"
    )
}

/// A row where key `$1` is that of one of some rows.
pub(crate) fn is_among(source: &Source, rows: &str) -> String {
    let (key, equals) = (&source.key.name, &source.key_type.equals);
    format!("SELECT FROM {rows} AS r WHERE r.{key} {equals} $1 LIMIT 1")
}

/// The keys of a statement's rows.
pub(crate) fn all_keys(source: &Source, rows: &str) -> String {
    format!("SELECT r.{} FROM {rows} AS r", source.key.name)
}

/// The ones among some keys that have a photo now. `keys` is [`all_keys`] or [`left_keys`].
pub(crate) fn keys_with_photo(source: &Source, keys: &str) -> String {
    let (table, key, image, equals) =
        (&source.table.rows, &source.key.name, &source.image.name, &source.key_type.equals);
    format!(
        "WITH touched AS MATERIALIZED ({keys}) SELECT touched.{key} FROM touched WHERE EXISTS (
            SELECT FROM {table} AS s WHERE s.{key} {equals} touched.{key} AND s.{image} IS NOT NULL)"
    )
}

/// Deletes the embeddings under keys that have no photo now. `keys` is [`all_keys`] or [`left_keys`].
pub(crate) fn delete_gone(watched: &Watched, keys: &str) -> String {
    let (source, target) = (&watched.source.table.rows, &watched.target.rows);
    let (key, target_key, equals) =
        (&watched.source.key.name, &watched.target_key.name, &watched.source.key_type.equals);
    let image = &watched.source.image.name;
    format!(
        "WITH touched AS MATERIALIZED ({keys})
        DELETE FROM {target} AS t USING touched WHERE t.{target_key} {equals} touched.{key} AND NOT EXISTS (
            SELECT FROM {source} AS s WHERE s.{key} {equals} touched.{key} AND s.{image} IS NOT NULL)"
    )
}

/// Deletes all embeddings that have no photo. Not TRUNCATE: a foreign key may have truncated the target in the same
/// command.
pub(crate) fn delete_all_gone(watched: &Watched) -> String {
    let (source, target) = (&watched.source.table.rows, &watched.target.rows);
    let (key, target_key, equals) =
        (&watched.source.key.name, &watched.target_key.name, &watched.source.key_type.equals);
    let image = &watched.source.image.name;
    format!(
        "DELETE FROM {target} AS t WHERE NOT EXISTS (
            SELECT FROM {source} AS s WHERE s.{key} {equals} t.{target_key} AND s.{image} IS NOT NULL)"
    )
}

/// The keys of all embeddings that have no photo.
pub(crate) fn all_gone(watched: &Watched) -> String {
    let (source, target) = (&watched.source.table.rows, &watched.target.rows);
    let (key, target_key, equals) =
        (&watched.source.key.name, &watched.target_key.name, &watched.source.key_type.equals);
    let image = &watched.source.image.name;
    format!(
        "SELECT t.{target_key} FROM {target} AS t WHERE NOT EXISTS (
            SELECT FROM {source} AS s WHERE s.{key} {equals} t.{target_key} AND s.{image} IS NOT NULL)"
    )
}

/// Deletes the embedding under key `$1`.
pub(crate) fn delete_embedding(watched: &Watched) -> String {
    let (target, target_key, equals) =
        (&watched.target.rows, &watched.target_key.name, &watched.source.key_type.equals);
    format!("DELETE FROM {target} AS t WHERE t.{target_key} {equals} $1")
}

/// Deletes the embedding under key `$1` unless it is known to be of the bytes with checksum `$2`.
pub(crate) fn delete_stale(watched: &Watched) -> String {
    let checksum = &watched.checksum.name;
    format!("{} AND (t.{checksum} OPERATOR(pg_catalog.=) $2) IS NOT TRUE", delete_embedding(watched))
}

/// Locks the embedding under key `$1` as its deletion would. No row also where another transaction has it.
pub(crate) fn lock_embedding(watched: &Watched) -> String {
    let (target, target_key, equals) =
        (&watched.target.rows, &watched.target_key.name, &watched.source.key_type.equals);
    format!("SELECT FROM {target} AS t WHERE t.{target_key} {equals} $1 FOR UPDATE SKIP LOCKED")
}

/// Whether there is an embedding under key `$1`, locked or not.
pub(crate) fn embedding_exists(watched: &Watched) -> String {
    let (target, target_key, equals) =
        (&watched.target.rows, &watched.target_key.name, &watched.source.key_type.equals);
    format!("SELECT FROM {target} AS t WHERE t.{target_key} {equals} $1")
}

fn project_of(watched: &Watched, alias: &str) -> String {
    match &watched.project {
        Some((project, _)) => format!("{alias}.{}", project.name),
        None => "NULL".to_owned(),
    }
}

//! The statements of the trigger.
//!
//! Identifiers are quoted by PostgreSQL's own function, tables come with their schemas, and operators are those of
//! `pg_catalog`: a caller's search_path cannot change what a statement means.

use std::ffi::CString;

use pgrx::pg_sys;

use super::watched::Watched;
use crate::varlena::c_string;

/// Quotes a name where it needs it.
pub(super) fn identifier(name: &str) -> String {
    let name = CString::new(name).expect("a name of the catalog has no NUL byte");
    // SAFETY: `quote_identifier` returns its argument or a string in the current memory context.
    unsafe { c_string(pg_sys::quote_identifier(name.as_ptr())) }
}

/// Of a function `$1` of the extension: its schema, its owner, and pgvector's type, which others of them return.
pub(super) const HOME: &str = "
    SELECT namespace.nspname, running.proowner, embed.prorettype
    FROM pg_catalog.pg_proc AS running
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) running.pronamespace
    JOIN pg_catalog.pg_proc AS embed ON embed.pronamespace OPERATOR(pg_catalog.=) running.pronamespace
        AND embed.proname OPERATOR(pg_catalog.=) 'clip_embed_image' AND embed.pronargs OPERATOR(pg_catalog.=) 1
    WHERE running.oid OPERATOR(pg_catalog.=) $1";

/// The name of table `$1`, and whether the caller owns it.
pub(super) const OWNS: &str = "
    SELECT relname, pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class
    WHERE oid OPERATOR(pg_catalog.=) $1";

/// Deletes the rows of tables that were dropped.
pub(super) fn forget_dropped(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_watches AS watch
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) watch.source)
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) watch.target)"
    )
}

/// Writes the row of a watch, in place of one of the same source. The parameters are the columns.
pub(super) fn register(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_watches VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (source) DO UPDATE SET target = EXCLUDED.target, mode = EXCLUDED.mode,
            image_column = EXCLUDED.image_column, key_column = EXCLUDED.key_column,
            project_column = EXCLUDED.project_column, target_key_column = EXCLUDED.target_key_column,
            embedding_column = EXCLUDED.embedding_column, checksum_column = EXCLUDED.checksum_column,
            model_column = EXCLUDED.model_column, target_project_column = EXCLUDED.target_project_column"
    )
}

/// Deletes the row of a watch.
pub(super) fn unregister(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_watches WHERE source OPERATOR(pg_catalog.=) $1::pg_catalog.oid RETURNING true"
    )
}

/// Writes down that model `$2` made the vectors of source `$1`.
pub(super) fn set_model(schema: &str) -> String {
    format!("UPDATE {schema}.clip_watches SET model = $2 WHERE source OPERATOR(pg_catalog.=) $1")
}

/// The registered watch of table `$1`.
pub(super) fn registration(schema: &str) -> String {
    format!(
        "SELECT pg_catalog.format('%I.%I', source_namespace.nspname, source_class.relname),
            pg_catalog.format('%I.%I', target_namespace.nspname, target_class.relname),
            target_class.relowner, image_column, key_column, project_column, target_project_column,
            target_key_column, embedding_column, checksum_column, model_column
        FROM {schema}.clip_watches AS watch
        JOIN pg_catalog.pg_class AS source_class ON source_class.oid OPERATOR(pg_catalog.=) watch.source
        JOIN pg_catalog.pg_namespace AS source_namespace
            ON source_namespace.oid OPERATOR(pg_catalog.=) source_class.relnamespace
        JOIN pg_catalog.pg_class AS target_class ON target_class.oid OPERATOR(pg_catalog.=) watch.target
        JOIN pg_catalog.pg_namespace AS target_namespace
            ON target_namespace.oid OPERATOR(pg_catalog.=) target_class.relnamespace
        WHERE watch.source OPERATOR(pg_catalog.=) $1"
    )
}

/// What the arguments `$2` of a trigger on table `$1` say, each `'name=value'` with a parameter of `clip_watch`. What
/// they leave out is as `clip_watch` has it.
pub(super) const FROM_ARGUMENTS: &str = "
    WITH argument AS (
        SELECT pg_catalog.split_part(entry, '=', 1) AS name,
            pg_catalog.substr(entry, pg_catalog.strpos(entry, '=') OPERATOR(pg_catalog.+) 1) AS value
        FROM pg_catalog.unnest($2) AS entry
    ), chosen AS (
        SELECT
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'target') AS target,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'image_column') AS image,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'key_column') AS key,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'project_column') AS project,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'target_key_column') AS target_key,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'embedding_column') AS embedding,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'checksum_column') AS checksum,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'model_column') AS model,
            pg_catalog.max(value) FILTER (WHERE name OPERATOR(pg_catalog.=) 'target_project_column') AS target_project
        FROM argument
    ), source AS (
        SELECT class.oid, class.relname, namespace.nspname
        FROM pg_catalog.pg_class AS class
        JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) class.relnamespace
        WHERE class.oid OPERATOR(pg_catalog.=) $1
    )
    SELECT pg_catalog.format('%I.%I', source.nspname, source.relname),
        CASE WHEN pg_catalog.cardinality(pg_catalog.parse_ident(target)) OPERATOR(pg_catalog.=) 2
            THEN target ELSE pg_catalog.format('%I.%s', source.nspname, COALESCE(target, 'image_embeddings')) END,
        NULL,
        COALESCE(image, 'image'),
        COALESCE(key, (
            SELECT attname FROM pg_catalog.pg_index
            JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) indrelid
                AND attnum OPERATOR(pg_catalog.=) indkey[0]
            WHERE indrelid OPERATOR(pg_catalog.=) source.oid AND indisprimary
                AND indnkeyatts OPERATOR(pg_catalog.=) 1)),
        project, COALESCE(target_project, 'project'), COALESCE(target_key, 'image_id'),
        COALESCE(embedding, 'embedding'), COALESCE(checksum, 'checksum'), COALESCE(model, 'model')
    FROM chosen, source";

/// Rows of key, image, project, and the image before (NULL: there was none).
pub(super) fn inserted_photos(watched: &Watched, new: &str) -> String {
    let Watched { key, image, .. } = watched;
    let project = project_of(watched, "n");
    format!("SELECT n.{key}, n.{image}, {project}, NULL::bytea FROM {new} AS n WHERE n.{image} IS NOT NULL")
}

/// As [`inserted_photos`]. The bytes are compared by who reads the rows: most have the same TOAST pointer.
pub(super) fn updated_photos(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { key, image, .. } = watched;
    let project = project_of(watched, "n");
    format!(
        "SELECT n.{key}, n.{image}, {project}, o.{image} FROM {new} AS n
        LEFT JOIN {old} AS o ON o.{key} OPERATOR(pg_catalog.=) n.{key} WHERE n.{image} IS NOT NULL"
    )
}

/// The vector of a photo with checksum `$1` that model `$2` made.
pub(super) fn find_vector(watched: &Watched) -> String {
    let Watched { target, embedding, checksum, model, .. } = watched;
    format!(
        "SELECT t.{embedding} FROM {target} AS t
        WHERE t.{checksum} OPERATOR(pg_catalog.=) $1 AND t.{model} OPERATOR(pg_catalog.=) $2 LIMIT 1"
    )
}

/// Key `$1`, vector `$2`, checksum `$3`, model `$4` and, where it is carried over, project `$5`.
pub(super) fn write_vector(watched: &Watched) -> String {
    let Watched { target, target_key, embedding, checksum, model, .. } = watched;
    let (column, value, update) = match &watched.project {
        Some((_, project)) => (format!(", {project}"), ", $5", format!(", {project} = EXCLUDED.{project}")),
        None => Default::default(),
    };
    format!(
        "INSERT INTO {target} AS t ({target_key}, {embedding}, {checksum}, {model}{column})
        VALUES ($1, $2, $3, $4{value})
        ON CONFLICT ({target_key}) DO UPDATE SET {embedding} = EXCLUDED.{embedding},
            {checksum} = EXCLUDED.{checksum}, {model} = EXCLUDED.{model}{update}"
    )
}

/// Empty where no project is carried over.
pub(super) fn carry_project_over(watched: &Watched, new: &str) -> String {
    let Watched { target, target_key, key, .. } = watched;
    match &watched.project {
        Some((project, target_project)) => format!(
            "UPDATE {target} AS t SET {target_project} = n.{project} FROM {new} AS n
            WHERE t.{target_key} OPERATOR(pg_catalog.=) n.{key} AND t.{target_project} IS DISTINCT FROM n.{project}"
        ),
        None => String::new(),
    }
}

/// The embeddings of photos that are NULL now.
pub(super) fn delete_emptied(watched: &Watched, new: &str) -> String {
    let Watched { target, target_key, key, image, .. } = watched;
    format!(
        "DELETE FROM {target} AS t USING {new} AS n
        WHERE t.{target_key} OPERATOR(pg_catalog.=) n.{key} AND n.{image} IS NULL"
    )
}

/// The embeddings under keys that no photo of the statement has any more.
pub(super) fn delete_renamed(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { target, target_key, key, .. } = watched;
    format!(
        "DELETE FROM {target} AS t USING {old} AS o
        WHERE t.{target_key} OPERATOR(pg_catalog.=) o.{key}
            AND NOT EXISTS (SELECT FROM {new} AS n WHERE n.{key} OPERATOR(pg_catalog.=) o.{key})"
    )
}

/// The embeddings of photos that are gone.
pub(super) fn delete_deleted(watched: &Watched, old: &str) -> String {
    let Watched { target, target_key, key, .. } = watched;
    format!("DELETE FROM {target} AS t USING {old} AS o WHERE t.{target_key} OPERATOR(pg_catalog.=) o.{key}")
}

/// All embeddings. Not TRUNCATE: a foreign key may have truncated the target in the same command.
pub(super) fn delete_all(watched: &Watched) -> String {
    format!("DELETE FROM {}", watched.target)
}

fn project_of(watched: &Watched, alias: &str) -> String {
    match &watched.project {
        Some((project, _)) => format!("{alias}.{project}"),
        None => "NULL".to_owned(),
    }
}

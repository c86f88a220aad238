//! The statements of the trigger.
//!
//! Identifiers are quoted by PostgreSQL's own function, tables come with their schemas, and operators are those of
//! `pg_catalog`: a caller's search_path cannot change what a statement means.

use std::ffi::CString;

use pgrx::pg_sys;

use super::watched::Watched;
use crate::varlena::c_string;

/// Quotes a name where it needs it.
pub(crate) fn identifier(name: &str) -> String {
    let name = CString::new(name).expect("a name of the catalog has no NUL byte");
    // SAFETY: `quote_identifier` returns its argument or a string in the current memory context.
    unsafe { c_string(pg_sys::quote_identifier(name.as_ptr())) }
}

/// Of a function `$1` of the extension: its schema, its owner, and pgvector's type, which others of them return.
pub(crate) const HOME: &str = "
    SELECT namespace.nspname, running.proowner, embed.prorettype
    FROM pg_catalog.pg_proc AS running
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) running.pronamespace
    JOIN pg_catalog.pg_proc AS embed ON embed.pronamespace OPERATOR(pg_catalog.=) running.pronamespace
        AND embed.proname OPERATOR(pg_catalog.=) 'clip_embed_image' AND embed.pronargs OPERATOR(pg_catalog.=) 1
    WHERE running.oid OPERATOR(pg_catalog.=) $1";

/// As [`HOME`], of the extension that is created in this database, and its version. A table of its queue's name that
/// is not its own does not count, nor does a queue that a subscription fills: its jobs are those of the publisher.
pub(crate) const INSTALLED: &str = "
    SELECT namespace.nspname, embed.proowner, embed.prorettype, extension.extversion
    FROM pg_catalog.pg_extension AS extension
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) extension.extnamespace
    JOIN pg_catalog.pg_proc AS embed ON embed.pronamespace OPERATOR(pg_catalog.=) extension.extnamespace
        AND embed.proname OPERATOR(pg_catalog.=) 'clip_embed_image' AND embed.pronargs OPERATOR(pg_catalog.=) 1
    JOIN pg_catalog.pg_class AS queue ON queue.relnamespace OPERATOR(pg_catalog.=) extension.extnamespace
        AND queue.relname OPERATOR(pg_catalog.=) 'clip_queue'
    JOIN pg_catalog.pg_depend AS member ON member.objid OPERATOR(pg_catalog.=) queue.oid
        AND member.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        AND member.refobjid OPERATOR(pg_catalog.=) extension.oid AND member.deptype OPERATOR(pg_catalog.=) 'e'
    WHERE extension.extname OPERATOR(pg_catalog.=) 'pg_clip' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_subscription_rel AS subscribed
        WHERE subscribed.srrelid OPERATOR(pg_catalog.=) queue.oid)";

/// The name of table `$1`, and whether the caller owns it.
pub(crate) const OWNS: &str = "
    SELECT relname, pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class
    WHERE oid OPERATOR(pg_catalog.=) $1";

/// Deletes the rows of tables that were dropped.
pub(crate) fn forget_dropped(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_watches AS watch
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) watch.source)
            OR NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) watch.target)"
    )
}

/// Deletes the jobs of tables that were dropped.
pub(crate) fn forget_jobs_of_dropped(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_queue AS job
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) job.source)"
    )
}

/// Writes the row of a watch, in place of one of the same source. The parameters are the columns.
pub(crate) fn register(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_watches VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ON CONFLICT (source) DO UPDATE SET target = EXCLUDED.target, mode = EXCLUDED.mode,
            image_column = EXCLUDED.image_column, key_column = EXCLUDED.key_column,
            project_column = EXCLUDED.project_column, target_key_column = EXCLUDED.target_key_column,
            embedding_column = EXCLUDED.embedding_column, checksum_column = EXCLUDED.checksum_column,
            model_column = EXCLUDED.model_column, target_project_column = EXCLUDED.target_project_column,
            model = EXCLUDED.model"
    )
}

/// Deletes the row of a watch.
pub(crate) fn unregister(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_watches WHERE source OPERATOR(pg_catalog.=) $1::pg_catalog.oid RETURNING true"
    )
}

/// The registered watch of table `$1`.
pub(crate) fn registration(schema: &str) -> String {
    format!(
        "SELECT pg_catalog.format('%I.%I', source_namespace.nspname, source_class.relname),
            pg_catalog.format('%I.%I', target_namespace.nspname, target_class.relname),
            target_class.relowner, image_column, key_column, project_column, target_project_column,
            target_key_column, embedding_column, checksum_column, model_column,
            source_class.relowner, mode, model,
            (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) watch.source
                AND attname OPERATOR(pg_catalog.=) key_column AND NOT attisdropped),
            (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) watch.source
                AND attname OPERATOR(pg_catalog.=) project_column AND NOT attisdropped),
            EXISTS (SELECT FROM {schema}.clip_queue AS job
                WHERE job.source OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid),
            target_class.relhastriggers
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
pub(crate) const FROM_ARGUMENTS: &str = "
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

/// The deferrable constraints of table `$1` that INSERT or UPDATE fires, those among them that are INITIALLY DEFERRED,
/// and the same of DELETE. The bits of `tgtype` are those of `catalog/pg_trigger.h`.
pub(crate) const DEFERRABLE: &str = "
    WITH fired AS (
        SELECT pg_catalog.format('%I.%I', nspname, conname) AS name, condeferred AS deferred,
            (tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 20) OPERATOR(pg_catalog.<>) 0 AS by_write,
            (tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 8) OPERATOR(pg_catalog.<>) 0 AS by_delete
        FROM pg_catalog.pg_trigger
        JOIN pg_catalog.pg_constraint AS checked ON checked.oid OPERATOR(pg_catalog.=) tgconstraint
        JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) connamespace
        WHERE tgrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1) AND tgdeferrable
    )
    SELECT pg_catalog.string_agg(DISTINCT name, ', ') FILTER (WHERE by_write),
        pg_catalog.string_agg(DISTINCT name, ', ') FILTER (WHERE by_write AND deferred),
        pg_catalog.string_agg(DISTINCT name, ', ') FILTER (WHERE by_delete),
        pg_catalog.string_agg(DISTINCT name, ', ') FILTER (WHERE by_delete AND deferred)
    FROM fired";

/// The model of the watch of source `$1`.
pub(crate) fn model(schema: &str) -> String {
    format!("SELECT model FROM {schema}.clip_watches WHERE source OPERATOR(pg_catalog.=) $1")
}

/// The same, under the lock of its row.
pub(crate) fn lock_model(schema: &str) -> String {
    format!("SELECT model FROM {schema}.clip_watches WHERE source OPERATOR(pg_catalog.=) $1 FOR UPDATE")
}

/// Writes down that model `$2` made the vectors of source `$1`.
pub(crate) fn set_model(schema: &str) -> String {
    format!("UPDATE {schema}.clip_watches SET model = $2 WHERE source OPERATOR(pg_catalog.=) $1")
}

/// The model of some vector of the target.
pub(crate) fn any_model(watched: &Watched) -> String {
    format!("SELECT t.{} FROM {} AS t LIMIT 1", watched.model, watched.target)
}

/// A model other than `$1` that made a vector of the target.
pub(crate) fn other_model(watched: &Watched) -> String {
    let Watched { target, model, .. } = watched;
    format!("SELECT t.{model} FROM {target} AS t WHERE t.{model} OPERATOR(pg_catalog.<>) $1 LIMIT 1")
}

/// The photo with key `$1`, and which version of its row that is.
pub(crate) fn photo(watched: &Watched) -> String {
    let Watched { source, key, image, .. } = watched;
    format!("SELECT s.{image}, {VERSION} FROM {source} AS s WHERE s.{key} OPERATOR(pg_catalog.=) $1 LIMIT 1")
}

/// Which version of its row the photo with key `$1` is now, and its project. No row where there is no photo.
pub(crate) fn photo_version(watched: &Watched) -> String {
    let Watched { source, key, image, .. } = watched;
    let project = project_of(watched, "s");
    format!(
        "SELECT {VERSION}, {project} FROM {source} AS s
        WHERE s.{key} OPERATOR(pg_catalog.=) $1 AND s.{image} IS NOT NULL LIMIT 1"
    )
}

/// A row has the same place and the same writer only as long as nobody has written to it.
const VERSION: &str = "pg_catalog.concat_ws(' ', s.tableoid, s.ctid, s.xmin)";

/// The keys of photos that a statement inserted.
pub(crate) fn inserted_keys(watched: &Watched, new: &str) -> String {
    let Watched { key, image, .. } = watched;
    format!("SELECT n.{key} FROM {new} AS n WHERE n.{image} IS NOT NULL")
}

/// The keys under which a statement left no photo: deleted, renamed or NULL.
pub(crate) fn vanished_keys(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { key, image, .. } = watched;
    format!(
        "SELECT o.{key} FROM {old} AS o WHERE NOT EXISTS (
            SELECT FROM {new} AS n WHERE n.{key} OPERATOR(pg_catalog.=) o.{key} AND n.{image} IS NOT NULL)"
    )
}

/// The keys of rows.
pub(crate) fn all_keys(watched: &Watched, rows: &str) -> String {
    format!("SELECT r.{} FROM {rows} AS r", watched.key)
}

/// Rows of key, image, project, the image before (NULL: there was none), and whether the key is new.
pub(crate) fn inserted_photos(watched: &Watched, new: &str) -> String {
    let Watched { key, image, .. } = watched;
    let project = project_of(watched, "n");
    format!(
        "SELECT n.{key}, n.{image}, {project}, NULL::bytea, true FROM {new} AS n WHERE n.{image} IS NOT NULL"
    )
}

/// As [`inserted_photos`]. The bytes are compared by who reads the rows: most have the same TOAST pointer.
pub(crate) fn updated_photos(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { key, image, .. } = watched;
    let project = project_of(watched, "n");
    format!(
        "SELECT n.{key}, n.{image}, {project}, o.{image}, o.{key} IS NULL FROM {new} AS n
        LEFT JOIN {old} AS o ON o.{key} OPERATOR(pg_catalog.=) n.{key} WHERE n.{image} IS NOT NULL"
    )
}

/// The vector of a photo with checksum `$1` that model `$2` made.
pub(crate) fn find_vector(watched: &Watched) -> String {
    let Watched { target, embedding, checksum, model, .. } = watched;
    format!(
        "SELECT t.{embedding} FROM {target} AS t
        WHERE t.{checksum} OPERATOR(pg_catalog.=) $1 AND t.{model} OPERATOR(pg_catalog.=) $2 LIMIT 1"
    )
}

/// Key `$1`, vector `$2`, checksum `$3`, model `$4` and, where it is carried over, project `$5`.
pub(crate) fn write_vector(watched: &Watched) -> String {
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
pub(crate) fn carry_project_over(watched: &Watched, new: &str) -> String {
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
pub(crate) fn delete_emptied(watched: &Watched, new: &str) -> String {
    let Watched { target, target_key, key, image, .. } = watched;
    format!(
        "DELETE FROM {target} AS t USING {new} AS n
        WHERE t.{target_key} OPERATOR(pg_catalog.=) n.{key} AND n.{image} IS NULL"
    )
}

/// The embeddings of photos whose bytes are others now.
pub(crate) fn delete_stale(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { target, target_key, key, image, .. } = watched;
    format!(
        "DELETE FROM {target} AS t USING {new} AS n, {old} AS o
        WHERE t.{target_key} OPERATOR(pg_catalog.=) n.{key} AND o.{key} OPERATOR(pg_catalog.=) n.{key}
            AND o.{image} OPERATOR(pg_catalog.<>) n.{image}"
    )
}

/// The embeddings under keys that no photo of the statement has any more.
pub(crate) fn delete_renamed(watched: &Watched, new: &str, old: &str) -> String {
    let Watched { target, target_key, key, .. } = watched;
    format!(
        "DELETE FROM {target} AS t USING {old} AS o
        WHERE t.{target_key} OPERATOR(pg_catalog.=) o.{key}
            AND NOT EXISTS (SELECT FROM {new} AS n WHERE n.{key} OPERATOR(pg_catalog.=) o.{key})"
    )
}

/// The embeddings of photos that are gone.
pub(crate) fn delete_deleted(watched: &Watched, old: &str) -> String {
    let Watched { target, target_key, key, .. } = watched;
    format!("DELETE FROM {target} AS t USING {old} AS o WHERE t.{target_key} OPERATOR(pg_catalog.=) o.{key}")
}

/// All embeddings. Not TRUNCATE: a foreign key may have truncated the target in the same command.
pub(crate) fn delete_all(watched: &Watched) -> String {
    format!("DELETE FROM {}", watched.target)
}

fn project_of(watched: &Watched, alias: &str) -> String {
    match &watched.project {
        Some((project, _)) => format!("{alias}.{project}"),
        None => "NULL".to_owned(),
    }
}

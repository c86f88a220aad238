//! The statements on the tables of watches and of the database's model.

/// Deletes the rows of tables that were dropped, unless another session is about to.
pub(crate) fn forget_dropped(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_watches WHERE ctid = ANY (ARRAY(
            SELECT watch.ctid FROM {schema}.clip_watches AS watch
            WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = watch.source)
                OR NOT EXISTS (SELECT FROM pg_class WHERE oid = watch.target)
            FOR UPDATE SKIP LOCKED))"
    )
}

/// Deletes the jobs of tables that were dropped, unless another session is about to.
pub(crate) fn forget_jobs_of_dropped(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_queue WHERE ctid = ANY (ARRAY(
            SELECT job.ctid FROM {schema}.clip_queue AS job
            WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = job.source)
            FOR UPDATE SKIP LOCKED))"
    )
}

/// Writes the row of a watch, in place of one of the same source. The parameters are the columns.
pub(crate) fn register(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_watches VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT (source) DO UPDATE SET target = EXCLUDED.target, mode = EXCLUDED.mode,
            image_column = EXCLUDED.image_column, key_column = EXCLUDED.key_column,
            project_column = EXCLUDED.project_column, target_key_column = EXCLUDED.target_key_column,
            embedding_column = EXCLUDED.embedding_column, checksum_column = EXCLUDED.checksum_column,
            model_column = EXCLUDED.model_column, target_project_column = EXCLUDED.target_project_column,
            model = EXCLUDED.model, by_reference = EXCLUDED.by_reference, replicated = EXCLUDED.replicated"
    )
}

/// Deletes the row of a watch.
pub(crate) fn unregister(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_watches WHERE source = $1 RETURNING true")
}

/// The registered watch of table `$1`.
pub(crate) fn registration(schema: &str) -> String {
    format!(
        "SELECT target, mode, image_column, key_column, project_column, target_key_column, embedding_column,
            checksum_column, model_column, target_project_column, model, by_reference, replicated
        FROM {schema}.clip_watches WHERE source = $1"
    )
}

/// The watch that the arguments `$2` of a trigger on table `$1` describe, each `'name=value'` with a parameter of
/// `clip_watch`; in the columns of [`registration`], without the model. An argument that is left out has the
/// default of `clip_watch`.
pub(crate) const FROM_ARGUMENTS: &str = "
    WITH argument AS (
        SELECT split_part(entry, '=', 1) AS name, substr(entry, strpos(entry, '=') + 1) AS value
        FROM unnest($2) AS entry
    ), chosen AS (
        SELECT
            max(value) FILTER (WHERE name = 'target') AS target,
            max(value) FILTER (WHERE name = 'image_column') AS image,
            max(value) FILTER (WHERE name = 'key_column') AS key,
            max(value) FILTER (WHERE name = 'project_column') AS project,
            max(value) FILTER (WHERE name = 'target_key_column') AS target_key,
            max(value) FILTER (WHERE name = 'embedding_column') AS embedding,
            max(value) FILTER (WHERE name = 'checksum_column') AS checksum,
            max(value) FILTER (WHERE name = 'model_column') AS model,
            max(value) FILTER (WHERE name = 'target_project_column') AS target_project
        FROM argument
    ), source AS (
        SELECT class.oid, namespace.nspname
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.oid = $1
    ), named AS (
        SELECT CASE WHEN cardinality(parse_ident(target)) = 2 THEN target
            ELSE format('%I.%s', source.nspname, COALESCE(target, 'image_embeddings')) END AS target
        FROM chosen, source
    )
    SELECT to_regclass(named.target), 'sync',
        COALESCE(image, 'image'),
        COALESCE(key, (
            SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE indrelid = source.oid AND indisprimary AND indnkeyatts = 1)),
        project, COALESCE(target_key, 'image_id'), COALESCE(embedding, 'embedding'),
        COALESCE(checksum, 'checksum'), COALESCE(model, 'model'), COALESCE(target_project, 'project'),
        named.target
    FROM chosen, source, named";

/// The model that is written down for the database.
pub(crate) fn database_model(schema: &str) -> String {
    format!("SELECT model FROM {schema}.clip_database_model")
}

/// Writes model `$1` down for the database, in place of the one before.
pub(crate) fn set_database_model(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_database_model (model) VALUES ($1)
        ON CONFLICT (is_only) DO UPDATE SET model = EXCLUDED.model"
    )
}

/// Writes model `$1` down for the database, unless one is, if role `$2` has the rights of its owner and table `$3` is watched.
/// A row where that is done.
pub(crate) fn begin_database_model(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_database_model (model) SELECT $1 FROM pg_database
        WHERE datname = current_database() AND pg_has_role($2, datdba, 'USAGE')
            AND EXISTS (SELECT FROM {schema}.clip_watches WHERE source = $3)
        ON CONFLICT (is_only) DO NOTHING RETURNING true"
    )
}

/// The model of the watch of source `$1`.
pub(crate) fn model(schema: &str) -> String {
    format!("SELECT model FROM {schema}.clip_watches WHERE source = $1")
}

/// The same, under the lock of its row.
pub(crate) fn lock_model(schema: &str) -> String {
    format!("SELECT model FROM {schema}.clip_watches WHERE source = $1 FOR UPDATE")
}

/// Writes down that model `$2` made the vectors of source `$1`.
pub(crate) fn set_model(schema: &str) -> String {
    format!("UPDATE {schema}.clip_watches SET model = $2 WHERE source = $1")
}

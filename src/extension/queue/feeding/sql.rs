//! The statements on the jobs of tables of references, and on the roles that feed them.
//!
//! All of them run as the extension's owner with `search_path = pg_catalog, pg_temp`, see [`crate::watch::role`].

/// A row where table `$1` is watched by reference.
pub(super) fn is_by_reference(schema: &str) -> String {
    format!("SELECT FROM {schema}.clip_watches WHERE source = $1 AND by_reference")
}

/// A row where role `$2` may feed source `$1`.
pub(super) fn may_feed(schema: &str) -> String {
    format!(
        "SELECT FROM {schema}.clip_feeders
        JOIN pg_roles ON pg_roles.oid = feeder
        WHERE source = $1 AND pg_has_role($2, feeder, 'USAGE') LIMIT 1"
    )
}

/// Lets role `$2` feed source `$1`. Roles that are gone are forgotten.
pub(super) fn grant(schema: &str) -> String {
    format!(
        "WITH gone AS (
            DELETE FROM {schema}.clip_feeders AS given
            WHERE NOT EXISTS (SELECT FROM pg_roles WHERE pg_roles.oid = given.feeder))
        INSERT INTO {schema}.clip_feeders VALUES ($1, $2) ON CONFLICT DO NOTHING"
    )
}

/// Takes the right to feed source `$1` from role `$2`.
pub(super) fn revoke(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_feeders WHERE source = $1 AND feeder = $2")
}

/// Claims jobs of source `$1` that are due, at most `$2`, for `$3` seconds, the ones that have waited longest. A
/// claim by a feeder that did not come back does not count as an attempt: the feeder's death says nothing of the
/// photo.
pub(super) fn claim(schema: &str) -> String {
    format!(
        "WITH due AS MATERIALIZED (
            SELECT key FROM {schema}.clip_queue WHERE source = $1 AND NOT dead AND NOT slow AND run_at <= now()
            ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE {schema}.clip_queue AS job SET claimed = true, run_at = clock_timestamp() + $3 * interval '1 second',
            attempts = CASE WHEN job.claimed THEN job.attempts ELSE job.attempts + 1 END
        FROM due WHERE job.source = $1 AND job.key = due.key
        RETURNING job.key, job.generation, job.attempts"
    )
}

/// A row where source `$1` is left alone for a while.
pub(super) fn is_paused(schema: &str) -> String {
    format!("SELECT FROM {schema}.clip_queue_pauses WHERE source = $1 AND until > now()")
}

/// The jobs of source `$1` and the keys `$2`: their generations, attempts and whether they are dead.
pub(super) fn jobs(schema: &str) -> String {
    format!(
        "SELECT key, generation, attempts, dead FROM {schema}.clip_queue WHERE source = $1 AND key = ANY ($2)"
    )
}

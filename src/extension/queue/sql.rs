//! The statements on `clip_queue`.
//!
//! All of them run as the extension's owner with `search_path = pg_catalog, pg_temp`, see [`crate::watch::role`].

use super::lane::Lane;

/// How often a job may fail before it is dead.
pub(super) const MOST_ATTEMPTS: i32 = 5;

/// How long a claimed job is left alone, should its worker be gone and no other have started since.
const LEASE: &str = "5 minutes";

/// How long a table that was slow is treated as such.
const SLOW: &str = "10 minutes";

/// Writes jobs for the keys `$2` of source `$1`. A job that is there starts again from the beginning, and keeps its place:
/// a photo that changes often would never have its turn at the end of a long queue.
pub(super) fn add(schema: &str) -> String {
    add_due(schema, "at", "CASE WHEN job.dead THEN EXCLUDED.run_at ELSE job.enqueued_at END")
}

/// As [`add`], before all others: a job that needs no inference does not wait behind jobs that do.
pub(super) fn add_first(schema: &str) -> String {
    add_due(schema, "'2000-01-01 00:00:00+00'::timestamptz", "EXCLUDED.run_at")
}

/// `new` is when a new job is due, `again` when a job is due that was there. No two jobs of a statement are of one time:
/// see [`super::known`].
fn add_due(schema: &str, new: &str, again: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_queue AS job (source, key, enqueued_at, run_at)
        SELECT $1, key, at, {new} FROM (SELECT key, clock_timestamp() AS at FROM unnest($2) AS key OFFSET 0) AS job
        ON CONFLICT (source, key) DO UPDATE SET generation = EXCLUDED.generation,
            run_at = {again},
            enqueued_at = CASE WHEN job.dead THEN EXCLUDED.enqueued_at ELSE job.enqueued_at END,
            attempts = 0, claimed = false, suspect = false, dead = false, changed = true,
            sqlstate = NULL, message = NULL, failed_at = NULL"
    )
}

/// Writes jobs for the keys `$2` of source `$1` that have none, not even a dead one. The photos are the same as before.
pub(super) fn add_missing(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_queue (source, key, changed)
        SELECT $1, key, false FROM unnest($2) AS key ORDER BY key
        ON CONFLICT (source, key) DO NOTHING RETURNING true"
    )
}

/// Which of the keys `$2` of source `$1` have a job, and whether it is dead.
pub(super) fn jobs_of(schema: &str) -> String {
    format!("SELECT key, dead FROM {schema}.clip_queue WHERE source = $1 AND key = ANY ($2)")
}

/// Writes down of this session's call of `clip_backfill` on source `$1` how many photos are done, of how many,
/// and which index it builds. /// Notes of sessions that are gone are deleted.
pub(super) fn note_backfill(schema: &str) -> String {
    format!(
        "WITH gone AS (
            DELETE FROM {schema}.clip_backfill_notes AS note
            WHERE NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) AS session WHERE session.pid = note.pid))
        INSERT INTO {schema}.clip_backfill_notes (source, pid, started_at, done, total, building)
        VALUES ($1, pg_backend_pid(), statement_timestamp(), $2, $3, $4)
        ON CONFLICT (source, pid) DO UPDATE SET started_at = EXCLUDED.started_at,
            done = EXCLUDED.done, total = EXCLUDED.total, building = EXCLUDED.building"
    )
}

/// Deletes this session's note about source `$1`.
pub(super) fn end_backfill(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_backfill_notes WHERE source = $1 AND pid = pg_backend_pid()")
}

/// Whether source `$1` has dead jobs.
pub(super) fn have_failed(schema: &str) -> String {
    format!("SELECT FROM {schema}.clip_queue WHERE source = $1 AND dead LIMIT 1")
}

/// Deletes the dead jobs of the keys `$2` of source `$1`.
pub(super) fn forget_failed(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_queue WHERE source = $1 AND key = ANY ($2) AND dead")
}

/// Deletes all jobs of source `$1`.
pub(super) fn clear(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_queue WHERE source = $1")
}

/// The jobs that workers of a lane before this one have claimed.
pub(super) fn claimed(schema: &str, lane: Lane) -> String {
    let condition = lane.condition();
    let not_fed = not_fed(schema);
    format!(
        "SELECT source::oid, key, generation, attempts FROM {schema}.clip_queue
        WHERE claimed AND {condition} AND {not_fed}"
    )
}

/// Gives up the claim of a worker before this one on the job of source `$1`, key `$2` and generation `$3`. What it was at work
/// on is embedded alone from now on; a job that has been alone already, as often as it may, is dead.
pub(super) fn recover(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET claimed = false, suspect = true, run_at = now(),
            attempts = CASE WHEN suspect THEN attempts ELSE attempts - 1 END,
            dead = suspect AND attempts >= {MOST_ATTEMPTS},
            sqlstate = CASE WHEN suspect THEN '57P02' ELSE sqlstate END,
            message = CASE WHEN suspect THEN 'the queue worker ended while it embedded this photo' ELSE message END,
            failed_at = CASE WHEN suspect THEN now() ELSE failed_at END
        WHERE source = $1 AND key = $2 AND generation = $3::xid8 AND claimed"
    )
}

/// That a job is not one of a table of references, whose photos a feeder brings.
fn not_fed(schema: &str) -> String {
    format!("source NOT IN (SELECT fed.source FROM {schema}.clip_watches AS fed WHERE fed.by_reference)")
}

/// The sources that have jobs for the worker of a lane, their owners, and in how many seconds the next job of each
/// is due. The index is asked for one source after the other: the cost grows with the number of sources, and not
/// with the number of jobs.
pub(super) fn waiting(schema: &str, lane: Lane) -> String {
    let condition = lane.condition();
    let not_fed = not_fed(schema);
    format!(
        "WITH RECURSIVE present (source) AS (
            (SELECT source::oid FROM {schema}.clip_queue WHERE {condition} ORDER BY source LIMIT 1)
            UNION ALL
            SELECT (SELECT source::oid FROM {schema}.clip_queue
                WHERE {condition} AND source > present.source ORDER BY source LIMIT 1)
            FROM present WHERE present.source IS NOT NULL
        )
        SELECT present.source, coalesce(class.relowner, 0), greatest(extract(epoch FROM (
            SELECT run_at FROM {schema}.clip_queue
            WHERE {condition} AND source = present.source ORDER BY run_at LIMIT 1) - now()), 0)::float8
        FROM present LEFT JOIN pg_class AS class ON class.oid = present.source
        WHERE present.source IS NOT NULL AND present.{not_fed}"
    )
}

/// The jobs of source `$1` that are due in a lane, at most `$2`, since second `$3` of the epoch, the one that has waited
/// longest first.
pub(super) fn due(schema: &str, lane: Lane) -> String {
    let condition = lane.condition();
    format!(
        "SELECT key, suspect, extract(epoch FROM run_at)::float8 FROM {schema}.clip_queue
        WHERE source = $1 AND {condition} AND run_at <= now() AND run_at >= to_timestamp($3)
        ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED"
    )
}

/// How many jobs of source `$1` wait in these lanes, at most so many of each, and since when the oldest of them does.
pub(super) fn count_waiting(schema: &str, lanes: [Lane; 2], most: i64) -> String {
    let jobs = lanes.map(|lane| {
        let condition = lane.condition();
        format!(
            "(SELECT enqueued_at FROM {schema}.clip_queue WHERE source = $1 AND {condition}
            ORDER BY source, run_at LIMIT {most})"
        )
    });
    format!("SELECT count(*), min(enqueued_at) FROM ({}) AS waiting", jobs.join(" UNION ALL "))
}

/// How many jobs of source `$1` are dead, at most so many.
pub(super) fn count_failed(schema: &str, most: i64) -> String {
    format!(
        "SELECT count(*) FROM (SELECT FROM {schema}.clip_queue WHERE source = $1 AND dead LIMIT {most}) AS failed"
    )
}

/// Claims the jobs of source `$1` and the keys `$2`.
pub(super) fn claim(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET claimed = true, attempts = attempts + 1, run_at = now() + interval '{LEASE}'
        WHERE source = $1 AND key = ANY ($2)
        RETURNING key, generation, attempts"
    )
}

/// Has the slow lane take over the jobs of source `$1` that no transaction has locked.
pub(super) fn slow_down(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET slow = true WHERE source = $1 AND key IN (
            SELECT key FROM {schema}.clip_queue WHERE source = $1 AND NOT dead AND NOT slow AND NOT claimed
            FOR UPDATE SKIP LOCKED)"
    )
}

/// Writes down that the photos of source `$1` wait for `$2`, for `$3` seconds.
pub(super) fn note_pause(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_queue_pauses (source, reason, until)
        VALUES ($1, $2, now() + $3 * interval '1 second')
        ON CONFLICT (source) DO UPDATE SET reason = EXCLUDED.reason, until = EXCLUDED.until"
    )
}

/// Writes down that source `$1` is slow.
pub(super) fn note_slow(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_queue_pauses (source, slow_until) VALUES ($1, now() + interval '{SLOW}')
        ON CONFLICT (source) DO UPDATE SET slow_until = EXCLUDED.slow_until"
    )
}

/// Whether source `$1` is known to be slow.
pub(super) fn is_slow(schema: &str) -> String {
    format!("SELECT FROM {schema}.clip_queue_pauses WHERE source = $1 AND slow_until > now()")
}

/// Has the failed jobs of source `$1` and key `$2` start again from the beginning, where role `$3` owns the source. No key means
/// all, and no source all that no other transaction has locked: one role must not wait for another's table.
pub(super) fn revive(schema: &str, of_all: bool) -> String {
    let failed = "failed_at IS NOT NULL AND NOT claimed AND ($1 IS NULL OR job.source = $1) AND ($2 IS NULL OR job.key = $2)";
    let owned = "class.oid = job.source AND pg_has_role($3, class.relowner, 'USAGE')";
    let which = if of_all {
        format!(
            "WHERE (source, key) IN (
                SELECT job.source, job.key FROM {schema}.clip_queue AS job JOIN pg_class AS class ON {owned}
                WHERE {failed} FOR UPDATE OF job SKIP LOCKED)"
        )
    } else {
        format!("FROM pg_class AS class WHERE {owned} AND {failed}")
    };
    format!(
        "UPDATE {schema}.clip_queue AS job SET run_at = now(), attempts = 0, suspect = false, dead = false,
            sqlstate = NULL, message = NULL, failed_at = NULL {which} RETURNING true"
    )
}

/// Locks the job of source `$1`, key `$2` and generation `$3`, unless it has changed or another session has the lock.
pub(super) fn hold(schema: &str) -> String {
    format!(
        "SELECT FROM {schema}.clip_queue WHERE source = $1 AND key = $2 AND generation = $3::xid8
        FOR UPDATE SKIP LOCKED"
    )
}

/// A row where the photo of the job of source `$1`, key `$2` and generation `$3` may differ from the one that its
/// embedding was made from.
pub(super) fn has_changed(schema: &str) -> String {
    format!(
        "SELECT FROM {schema}.clip_queue WHERE source = $1 AND key = $2 AND generation = $3::xid8 AND changed"
    )
}

/// Locks the jobs of source `$1` that have one of the keys `$2` and one of the generations `$3`, unless another
/// session has the lock. Returns their keys and generations: the caller compares which of them belong together.
pub(super) fn hold_all(schema: &str) -> String {
    format!(
        "SELECT key, generation FROM {schema}.clip_queue
        WHERE source = $1 AND key = ANY ($2) AND generation = ANY ($3::xid8[])
        FOR UPDATE SKIP LOCKED"
    )
}

/// Deletes jobs of source `$1` that this transaction holds, with the keys `$2` and the generations `$3`.
pub(super) fn retire_all(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_queue WHERE source = $1 AND key = ANY ($2) AND generation = ANY ($3::xid8[])"
    )
}

/// Deletes the job of source `$1`, key `$2` and generation `$3`.
pub(super) fn retire(schema: &str) -> String {
    format!("DELETE FROM {schema}.clip_queue WHERE source = $1 AND key = $2 AND generation = $3::xid8")
}

/// Whether there still is a job of source `$1`, key `$2` and generation `$3`.
pub(super) fn exists(schema: &str) -> String {
    format!("SELECT FROM {schema}.clip_queue WHERE source = $1 AND key = $2 AND generation = $3::xid8")
}

/// Gives the job of source `$1`, key `$2` and generation `$3` back, due in `$4` seconds, as if it had not been claimed;
/// `$5` says whether it is to be embedded alone.
pub(super) fn give_back(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET claimed = false, attempts = attempts - 1,
            run_at = now() + $4 * interval '1 second', suspect = suspect OR $5
        WHERE source = $1 AND key = $2 AND generation = $3::xid8"
    )
}

/// Gives the job of source `$1`, key `$2` and generation `$3` back as [`give_back`] does, and writes down what it waits
/// for: SQLSTATE `$5` and message `$6`.
pub(super) fn wait(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET claimed = false, attempts = attempts - 1,
            run_at = now() + $4 * interval '1 second', sqlstate = $5, message = $6, failed_at = now()
        WHERE source = $1 AND key = $2 AND generation = $3::xid8"
    )
}

/// Writes down that the job of source `$1`, key `$2` and generation `$3` failed with SQLSTATE `$4` and message `$5`.
/// `$6` says whether it is dead in any case; else it is due again after a pause that doubles up to 10 minutes.
pub(super) fn fail(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue SET claimed = false, sqlstate = $4, message = $5, failed_at = now(),
            dead = $6 OR attempts >= {MOST_ATTEMPTS},
            run_at = now() + least(interval '1 second' * 2 ^ least(attempts - 1, 10), interval '10 minutes')
        WHERE source = $1 AND key = $2 AND generation = $3::xid8"
    )
}

/// Adds `$2` jobs to the count of jobs of source `$1` that this session has ended: the rate follows the last half
/// minute, and begins anew after a pause. No row where the session has not counted yet.
pub(super) fn count_ended(schema: &str) -> String {
    format!(
        "UPDATE {schema}.clip_queue_rates AS known SET counted_at = clock_timestamp(), rate = (
            SELECT CASE WHEN seconds < 60 THEN
                $2 / seconds * weight + coalesce(known.rate, $2 / seconds) * (1 - weight) END
            FROM greatest(extract(epoch FROM clock_timestamp() - known.counted_at)::float8, 0.001) AS seconds,
                LATERAL (SELECT 1 - exp(-seconds / 30)) AS of_now (weight))
        WHERE source = $1 AND pid = pg_backend_pid() RETURNING true"
    )
}

/// Begins to count the jobs of source `$1` that this session ends.
pub(super) fn begin_to_count(schema: &str) -> String {
    format!(
        "INSERT INTO {schema}.clip_queue_rates (source, pid, counted_at)
        VALUES ($1, pg_backend_pid(), clock_timestamp())"
    )
}

/// Deletes the counts of sessions that are gone, or have done nothing for long.
pub(super) fn forget_rates(schema: &str) -> String {
    format!(
        "DELETE FROM {schema}.clip_queue_rates WHERE (source, pid) IN (
            SELECT source, pid FROM {schema}.clip_queue_rates
            WHERE counted_at < clock_timestamp() - interval '10 minutes' FOR UPDATE SKIP LOCKED)"
    )
}

-- The queue of watches in async mode. API: private.

-- Written by the triggers and the queue worker, as the owner of this table: no other role may write to it. A role that
-- could attach a trigger to it would have that trigger run as the owner. The owner of the database reads it, to dump it.
CREATE TABLE clip_queue (
	source pg_catalog.regclass NOT NULL,
	key pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
	generation pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
	enqueued_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
	run_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
	attempts pg_catalog.int4 NOT NULL DEFAULT 0,
	claimed pg_catalog.bool NOT NULL DEFAULT false,
	suspect pg_catalog.bool NOT NULL DEFAULT false,
	dead pg_catalog.bool NOT NULL DEFAULT false,
	sqlstate pg_catalog.text,
	message pg_catalog.text,
	failed_at pg_catalog.timestamptz,
	slow pg_catalog.bool NOT NULL DEFAULT false,
	changed pg_catalog.bool NOT NULL DEFAULT true,
	PRIMARY KEY (source, key)
) WITH (
	fillfactor = 70,
	autovacuum_vacuum_scale_factor = 0.01,
	autovacuum_vacuum_insert_scale_factor = 0.1,
	autovacuum_analyze_scale_factor = 0.1
);
COMMENT ON TABLE clip_queue IS 'photos that are to be embedded, one row a photo';
COMMENT ON COLUMN clip_queue.source IS 'the table with the photo';
COMMENT ON COLUMN clip_queue.key IS 'the photo''s key as its type prints it';
COMMENT ON COLUMN clip_queue.generation IS 'the transaction that asked for it last: tells two requests for one photo apart';
COMMENT ON COLUMN clip_queue.run_at IS 'when it is due; while it is claimed, when the claim ends';
COMMENT ON COLUMN clip_queue.attempts IS 'how often it was tried, the claim included; not counted while the embedder is away';
COMMENT ON COLUMN clip_queue.claimed IS 'whether the queue worker or a feeder is at work on it';
COMMENT ON COLUMN clip_queue.suspect IS 'whether it is embedded alone, because it was in a batch that did not come back';
COMMENT ON COLUMN clip_queue.slow IS 'whether the slow lane''s worker embeds it, because its table takes long';
COMMENT ON COLUMN clip_queue.changed IS 'whether the photo may be another than the one that its embedding is of';
COMMENT ON COLUMN clip_queue.dead IS 'whether it is tried no more; clip_retry revives it';
SELECT pg_catalog.pg_extension_config_dump('clip_queue', '');
REVOKE ALL ON clip_queue FROM PUBLIC;
GRANT SELECT ON clip_queue TO pg_database_owner;

CREATE INDEX clip_queue_due ON clip_queue (source, run_at) WHERE NOT dead AND NOT slow;
COMMENT ON INDEX clip_queue_due IS 'the order in which jobs of a table are claimed';
CREATE INDEX clip_queue_due_slow ON clip_queue (source, run_at) WHERE NOT dead AND slow;
COMMENT ON INDEX clip_queue_due_slow IS 'the order in which jobs of a slow table are claimed';
CREATE INDEX clip_queue_failed ON clip_queue (source, key) WHERE dead;
COMMENT ON INDEX clip_queue_failed IS 'the failed jobs of a table';
CREATE INDEX clip_queue_failures ON clip_queue (source) WHERE failed_at IS NOT NULL;
COMMENT ON INDEX clip_queue_failures IS 'the jobs that have failed, those that are tried again included';

CREATE TABLE clip_queue_pauses (
	source pg_catalog.regclass PRIMARY KEY,
	reason pg_catalog.text,
	until pg_catalog.timestamptz,
	slow_until pg_catalog.timestamptz
);
COMMENT ON TABLE clip_queue_pauses IS 'the tables whose photos wait, and the tables that are slow';
COMMENT ON COLUMN clip_queue_pauses.reason IS 'why the queue worker leaves the table alone';
COMMENT ON COLUMN clip_queue_pauses.until IS 'until when it does';
COMMENT ON COLUMN clip_queue_pauses.slow_until IS 'until when the table''s photos are embedded in the slow lane';
REVOKE ALL ON clip_queue_pauses FROM PUBLIC;

-- API: public.

CREATE VIEW clip_failures WITH (security_barrier) AS
	SELECT
		job.source,
		job.key,
		job.sqlstate,
		job.message,
		job.attempts,
		job.failed_at,
		CASE WHEN NOT job.dead THEN job.run_at END AS retry_at,
		job.dead
	FROM clip_queue AS job
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) job.source::pg_catalog.oid
	WHERE job.failed_at IS NOT NULL AND pg_catalog.pg_has_role(class.relowner, 'USAGE');
COMMENT ON VIEW clip_failures IS 'photos that the queue could not embed, for the owner of their table';
COMMENT ON COLUMN clip_failures.key IS 'the photo''s key as text';
COMMENT ON COLUMN clip_failures.retry_at IS 'when it is tried again; NULL where it is not';
COMMENT ON COLUMN clip_failures.dead IS 'whether it is tried no more, unless clip_retry is called or the photo changes';
GRANT SELECT ON clip_failures TO PUBLIC;

CREATE FUNCTION clip_retry(source pg_catalog.regclass DEFAULT NULL, key pg_catalog.text DEFAULT NULL)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'clip_retry' LANGUAGE C;
COMMENT ON FUNCTION clip_retry(pg_catalog.regclass, pg_catalog.text) IS
	'has photos of clip_failures embedded again: one, those of a table, or all of tables of the caller; returns how many';

-- PostgreSQL checks the right to call a view's function as that of the view's reader.
CREATE FUNCTION clip_count_photos(
	source pg_catalog.regclass, OUT photos pg_catalog.int8, OUT embedded pg_catalog.int8, OUT missing pg_catalog.int8,
	OUT stale pg_catalog.int8, OUT is_estimate pg_catalog.bool
)
	AS 'MODULE_PATHNAME', 'clip_count_photos' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_count_photos(pg_catalog.regclass) IS
	'counts the photos of a watched table as its owner, those of a large one by a sample; read it through clip_coverage';
CREATE FUNCTION clip_count_queue(
	source pg_catalog.regclass, OUT queued pg_catalog.int8, OUT failed pg_catalog.int8,
	OUT oldest_waiting pg_catalog.timestamptz
)
	AS 'MODULE_PATHNAME', 'clip_count_queue' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_count_queue(pg_catalog.regclass) IS
	'counts the jobs of a watched table, up to 10,000 of a kind; read it through clip_coverage';

CREATE VIEW clip_coverage WITH (security_barrier) AS
	SELECT
		watch.source,
		watch.target,
		watch.mode,
		watch.model,
		counts.photos,
		counts.embedded,
		counts.missing,
		counts.stale,
		jobs.queued,
		jobs.failed,
		jobs.oldest_waiting,
		CASE WHEN pause.until OPERATOR(pg_catalog.>) pg_catalog.now() THEN
				-- What a user's code said is its owner's to read.
				CASE WHEN pg_catalog.pg_has_role(class.relowner, 'USAGE') THEN pause.reason ELSE 'its owner sees the reason' END
			WHEN pause.slow_until OPERATOR(pg_catalog.>) pg_catalog.now() THEN 'the triggers of its tables take long'
			WHEN clip_is_filled(watch.target) THEN 'a subscription fills its target'
		END AS waits_for,
		counts.is_estimate
	FROM clip_watches AS watch
	LEFT JOIN clip_queue_pauses AS pause
		ON pause.source::pg_catalog.oid OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
	LEFT JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
	CROSS JOIN LATERAL clip_count_photos(watch.source) AS counts
	CROSS JOIN LATERAL clip_count_queue(watch.source) AS jobs
	WHERE class.oid IS NULL OR pg_catalog.pg_has_role(class.relowner, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats'::pg_catalog.name, 'USAGE');
COMMENT ON VIEW clip_coverage IS
	'one row a watched table, for its owner and for members of pg_monitor: how many of its photos are embedded';
COMMENT ON COLUMN clip_coverage.model IS 'the model that made the vectors; NULL before there is one';
COMMENT ON COLUMN clip_coverage.photos IS
	'rows with a photo; NULL, as the next three, where the tables cannot be counted, or the reader is neither their owner nor a member of pg_stat_scan_tables';
COMMENT ON COLUMN clip_coverage.embedded IS 'photos that have a vector, an outdated one included';
COMMENT ON COLUMN clip_coverage.missing IS 'photos that have none';
COMMENT ON COLUMN clip_coverage.stale IS 'photos whose vector is of another model';
COMMENT ON COLUMN clip_coverage.queued IS 'photos that wait to be embedded; above 10,000 an estimate';
COMMENT ON COLUMN clip_coverage.failed IS
	'photos that the queue has given up; clip_failures says why; above 10,000 an estimate';
COMMENT ON COLUMN clip_coverage.oldest_waiting IS
	'since when the oldest of the queued photos waits; of more than 10,000, the oldest of those that are due first';
COMMENT ON COLUMN clip_coverage.waits_for IS
	'why the queue worker leaves the table alone or is slow with it: a pause, slow triggers, or a subscription that fills its target; NULL otherwise';
COMMENT ON COLUMN clip_coverage.is_estimate IS
	'whether photos, embedded, missing and stale are estimates, of tables of more than 32 MB: missing and stale are those of a sample of about 1,000 photos, and 0 where it has none; clip_count is exact';
GRANT SELECT ON clip_coverage TO PUBLIC;

CREATE FUNCTION clip_count(
	source pg_catalog.regclass, OUT photos pg_catalog.int8, OUT embedded pg_catalog.int8, OUT missing pg_catalog.int8,
	OUT stale pg_catalog.int8
)
	AS 'MODULE_PATHNAME', 'clip_count' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_count(pg_catalog.regclass) IS
	'counts the photos of a watched table exactly, and reads each row for it: those with an embedding, without one, and with one of another model';

CREATE VIEW clip_workers AS
	SELECT
		activity.pid,
		activity.datname AS database,
		activity.backend_type AS worker,
		activity.backend_start AS started_at,
		activity.state,
		activity.query AS activity,
		activity.state_change AS since
	FROM pg_catalog.pg_stat_activity AS activity
	WHERE activity.backend_type OPERATOR(pg_catalog.~~) 'pg\_clip queue %';
COMMENT ON VIEW clip_workers IS
	'the queue''s launcher and workers in all databases, for members of pg_read_all_stats; a worker runs while there is work';
GRANT SELECT ON clip_workers TO PUBLIC;

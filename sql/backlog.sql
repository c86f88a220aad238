-- How fast the queue works. API: private.

-- Each session that ends jobs counts its own, and waits for no other.
CREATE TABLE clip_queue_rates (
	source pg_catalog.regclass NOT NULL,
	pid pg_catalog.int4 NOT NULL,
	rate pg_catalog.float8,
	counted_at pg_catalog.timestamptz NOT NULL,
	PRIMARY KEY (source, pid)
) WITH (fillfactor = 50);
COMMENT ON TABLE clip_queue_rates IS 'how many photos a second the sessions have done that work on the queue; read it through clip_backlog';
COMMENT ON COLUMN clip_queue_rates.rate IS 'photos a second, those of the last half minute above all; NULL before two batches have ended';
REVOKE ALL ON clip_queue_rates FROM PUBLIC;

-- API: public.

CREATE VIEW clip_backlog WITH (security_barrier) AS
	SELECT
		watch.source,
		jobs.queued,
		jobs.oldest_waiting,
		speed.rate,
		CASE WHEN jobs.queued OPERATOR(pg_catalog.>) 0 AND speed.rate OPERATOR(pg_catalog.>) 0 THEN
			pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(
				secs => LEAST(jobs.queued::pg_catalog.float8 OPERATOR(pg_catalog./) speed.rate, 1000000000::pg_catalog.float8))
		END AS eta
	FROM clip_watches AS watch
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
	CROSS JOIN LATERAL clip_count_queue(watch.source) AS jobs
	CROSS JOIN LATERAL (
		SELECT COALESCE(pg_catalog.sum(session.rate), 0::pg_catalog.float8) AS rate
		FROM clip_queue_rates AS session
		WHERE session.source::pg_catalog.oid OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
			AND session.counted_at OPERATOR(pg_catalog.>)
				(pg_catalog.now() OPERATOR(pg_catalog.-) '2 minutes'::pg_catalog.interval)
			AND EXISTS (
				SELECT FROM pg_catalog.pg_stat_activity AS activity
				WHERE activity.pid OPERATOR(pg_catalog.=) session.pid)
	) AS speed
	WHERE pg_catalog.pg_has_role(class.relowner, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats'::pg_catalog.name, 'USAGE');
COMMENT ON VIEW clip_backlog IS
	'one row a watched table, for its owner and for members of pg_read_all_stats: how many photos wait, how fast they are done, and when all will be';
COMMENT ON COLUMN clip_backlog.queued IS 'photos that wait to be embedded; above 10,000 an estimate';
COMMENT ON COLUMN clip_backlog.oldest_waiting IS 'since when the oldest of them waits';
COMMENT ON COLUMN clip_backlog.rate IS
	'photos that are done a second, embedded or given up, in the last half minute above all; 0 where no session works on the table';
COMMENT ON COLUMN clip_backlog.eta IS 'when all will be done that wait now, at this rate; NULL where none waits, or none is done';
GRANT SELECT ON clip_backlog TO PUBLIC;

CREATE VIEW clip_failure_counts WITH (security_barrier) AS
	SELECT
		job.source,
		job.sqlstate,
		job.dead,
		pg_catalog.count(*) AS photos,
		pg_catalog.max(job.failed_at) AS last_failed_at
	FROM clip_queue AS job
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) job.source::pg_catalog.oid
	WHERE job.failed_at IS NOT NULL AND (
		pg_catalog.pg_has_role(class.relowner, 'USAGE')
		OR pg_catalog.pg_has_role('pg_read_all_stats'::pg_catalog.name, 'USAGE'))
	GROUP BY job.source, job.sqlstate, job.dead;
COMMENT ON VIEW clip_failure_counts IS
	'how many photos the queue could not embed, for the owner of their table and for members of pg_read_all_stats';
COMMENT ON COLUMN clip_failure_counts.dead IS 'whether they are tried no more';
COMMENT ON COLUMN clip_failure_counts.last_failed_at IS 'when the last of them failed';
GRANT SELECT ON clip_failure_counts TO PUBLIC;

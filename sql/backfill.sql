-- Embedding the photos of a table that have no embedding yet.

-- API: private.
CREATE TABLE clip_backfill_notes (
	source pg_catalog.regclass NOT NULL,
	pid pg_catalog.int4 NOT NULL,
	started_at pg_catalog.timestamptz NOT NULL,
	total pg_catalog.int8 NOT NULL,
	done pg_catalog.int8 NOT NULL,
	building pg_catalog.regclass,
	PRIMARY KEY (source, pid)
);
COMMENT ON TABLE clip_backfill_notes IS 'how far calls of clip_backfill are; read it through clip_backfills';
REVOKE ALL ON clip_backfill_notes FROM PUBLIC;

-- API: private.
CREATE TABLE clip_indexes_to_build (index pg_catalog.regclass PRIMARY KEY);
COMMENT ON TABLE clip_indexes_to_build IS 'indexes that clip_backfill emptied and builds once the photos are done';
REVOKE ALL ON clip_indexes_to_build FROM PUBLIC;

-- API: public.
CREATE VIEW clip_backfills WITH (security_barrier) AS
	SELECT note.source, note.pid, note.started_at, note.done, note.total, speed.rate,
		CASE WHEN speed.rate OPERATOR(pg_catalog.>) 0 THEN
			pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => LEAST(
				(note.total OPERATOR(pg_catalog.-) note.done)::pg_catalog.float8 OPERATOR(pg_catalog./) speed.rate,
				1000000000::pg_catalog.float8))
		END AS eta,
		note.building
	FROM clip_backfill_notes AS note
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) note.source::pg_catalog.oid
		AND (
			pg_catalog.pg_has_role(class.relowner, 'USAGE')
			OR pg_catalog.pg_has_role('pg_read_all_stats'::pg_catalog.name, 'USAGE'))
	-- A call that was killed or cancelled wrote its last row before: its session is gone, idle, or at another
	-- statement. The state of other roles' sessions may be hidden.
	JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid OPERATOR(pg_catalog.=) note.pid
		AND COALESCE(activity.state, 'active') OPERATOR(pg_catalog.=) 'active'
		AND COALESCE(activity.query_start OPERATOR(pg_catalog.<=) note.started_at, true)
	CROSS JOIN LATERAL (
		SELECT EXTRACT(epoch FROM (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) note.started_at))::pg_catalog.float8
	) AS elapsed (seconds)
	CROSS JOIN LATERAL (
		SELECT CASE WHEN elapsed.seconds OPERATOR(pg_catalog.>) 0
			THEN note.done::pg_catalog.float8 OPERATOR(pg_catalog./) elapsed.seconds END
	) AS speed (rate);
COMMENT ON VIEW clip_backfills IS
	'the running calls of clip_backfill, for the owner of the table and for members of pg_read_all_stats: photos done, of how many, a second, and when all will be';
COMMENT ON COLUMN clip_backfills.done IS
	'photos that the call found without an embedding and that have one now; with verify, also those that were right';
COMMENT ON COLUMN clip_backfills.total IS
	'photos without an embedding when the call began; with verify, all photos and rows of no photo';
COMMENT ON COLUMN clip_backfills.building IS
	'the index that the call builds, once the photos are done; pg_stat_progress_create_index says how far it is';
GRANT SELECT ON clip_backfills TO PUBLIC;

CREATE PROCEDURE clip_backfill(
	source pg_catalog.regclass, verify pg_catalog.bool DEFAULT false, index_last pg_catalog.bool DEFAULT false
)
	AS 'MODULE_PATHNAME', 'clip_backfill' LANGUAGE C;
COMMENT ON PROCEDURE clip_backfill(pg_catalog.regclass, pg_catalog.bool, pg_catalog.bool) IS
	'embeds the photos of a watched table that have no embedding; with verify, reads all and mends what is wrong; with index_last, builds the indexes of the vectors at the end';

CREATE FUNCTION clip_verify(
	source pg_catalog.regclass, OUT photos pg_catalog.int8, OUT embedded pg_catalog.int8, OUT missing pg_catalog.int8,
	OUT stale pg_catalog.int8, OUT orphaned pg_catalog.int8, OUT other_project pg_catalog.int8
)
	AS 'MODULE_PATHNAME', 'clip_verify' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_verify(pg_catalog.regclass) IS
	'reads the photos of a watched table and counts: those with the vector of their bytes, without one, with an outdated one; rows of no photo, and rows with another project';

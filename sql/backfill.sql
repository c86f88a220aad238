-- Embedding the photos of a table that have no embedding yet.
--
-- The queue does the work, whatever the watch's mode: what it does for one photo, with retries, poison and an embedder
-- that is away, it does for a million. Here are only the keys found, a few at a time, and the jobs waited for. A call
-- that is killed loses nothing: what it has asked for is done, and the next call finds the rest.

-- API: private.
CREATE TABLE clip_backfill_notes (
	source pg_catalog.regclass NOT NULL,
	pid pg_catalog.int4 NOT NULL,
	started_at pg_catalog.timestamptz NOT NULL,
	looked_at pg_catalog.int8 NOT NULL,
	waiting pg_catalog.int8 NOT NULL,
	total pg_catalog.int8 NOT NULL,
	PRIMARY KEY (source, pid)
);
COMMENT ON TABLE clip_backfill_notes IS 'how far calls of clip_backfill are; read it through clip_backfills';
REVOKE ALL ON clip_backfill_notes FROM PUBLIC;

CREATE FUNCTION clip_enqueue_missing(source pg_catalog.regclass, keys pg_catalog.text[]) RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'clip_enqueue_missing' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_enqueue_missing(pg_catalog.regclass, pg_catalog.text[]) IS
	'has photos of the caller''s table embedded that have no job yet; returns how many; for clip_backfill';

CREATE FUNCTION clip_count_jobs(
	source pg_catalog.regclass, dead pg_catalog.bool, enqueued_before pg_catalog.timestamptz
) RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'clip_count_jobs' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_count_jobs(pg_catalog.regclass, pg_catalog.bool, pg_catalog.timestamptz) IS
	'how many jobs of the caller''s table wait, or are dead; for clip_backfill';

CREATE FUNCTION clip_note_backfill(
	source pg_catalog.regclass, started_at pg_catalog.timestamptz, looked_at pg_catalog.int8, waiting pg_catalog.int8,
	total pg_catalog.int8
) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_note_backfill' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_note_backfill(
	pg_catalog.regclass, pg_catalog.timestamptz, pg_catalog.int8, pg_catalog.int8, pg_catalog.int8) IS
	'writes down how far this session is with the caller''s table; for clip_backfill';

CREATE FUNCTION clip_end_backfill(source pg_catalog.regclass) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_end_backfill' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_end_backfill(pg_catalog.regclass) IS 'deletes what this session wrote down; for clip_backfill';

CREATE FUNCTION clip_begin_backfill(source pg_catalog.regclass) RETURNS pg_catalog.int8
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	p_source CONSTANT regclass := clip_begin_backfill.source;
	total bigint;
BEGIN
	IF p_source IS NULL THEN
		RAISE EXCEPTION 'the table must be named' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = p_source), 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of table %', p_source USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF NOT EXISTS (SELECT FROM @extschema@.clip_watches AS watch WHERE watch.source = p_source) THEN
		RAISE EXCEPTION 'table % is not watched', p_source
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT clip_watch(%L)', p_source);
	END IF;
	IF EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = '@extschema@.clip_queue'::regclass) THEN
		RAISE EXCEPTION 'the queue of this database is filled by a subscription'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'The jobs in it are those of the publisher, and no photo is embedded here.',
				HINT = 'Publish tables by their names, and not those of pg_clip.';
	END IF;
	EXECUTE format('SELECT count(*) FROM %s', p_source) INTO total;
	RETURN total;
END
$function$;
COMMENT ON FUNCTION clip_begin_backfill(pg_catalog.regclass) IS
	'how many rows a table of the caller has, or why it cannot be filled; for clip_backfill';

CREATE FUNCTION clip_find_missing(
	source pg_catalog.regclass, after pg_catalog.text, verify pg_catalog.bool, OUT last pg_catalog.text,
	OUT seen pg_catalog.int8, OUT keys pg_catalog.text[]
)
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	p_source CONSTANT regclass := clip_find_missing.source;
	watch record;
BEGIN
	SELECT watched.*, format_type(atttypid, atttypmod) AS key_type INTO watch
	FROM @extschema@.clip_watches AS watched
	JOIN pg_attribute ON attrelid = watched.source AND attname = watched.key_column
	WHERE watched.source = p_source;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'table % is not watched any more', p_source USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	-- Whether a photo is NULL stands in its row. Its bytes are read to verify them only, and then a few at a time.
	EXECUTE format(
		'SELECT (array_agg(key::text ORDER BY key DESC))[1], count(*), array_agg(key::text ORDER BY key) FILTER (WHERE '
			'image IS NOT NULL AND (t.%1$I IS NULL OR t.%2$I <> $3 OR $2 AND t.%3$I <> sha256(image))) '
		'FROM (SELECT s.%4$I AS key, s.%5$I AS image FROM %6$s AS s WHERE $1 IS NULL OR s.%4$I > $1::%7$s '
			'ORDER BY s.%4$I LIMIT CASE WHEN $2 THEN 32 ELSE 1000 END) AS photo '
		'LEFT JOIN %8$s AS t ON t.%1$I = photo.key',
		watch.target_key_column, watch.model_column, watch.checksum_column, watch.key_column, watch.image_column,
		p_source, watch.key_type, watch.target)
		INTO last, seen, keys USING after, verify, watch.model;
END
$function$;
COMMENT ON FUNCTION clip_find_missing(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool) IS
	'which of the next rows after a key have a photo without an embedding of it; for clip_backfill';

-- API: public.
CREATE VIEW clip_backfills AS
	SELECT note.source, note.pid, note.started_at, speed.done, note.total, speed.rate,
		-- NULLIF would compare by an operator of the search_path.
		CASE WHEN speed.rate OPERATOR(pg_catalog.>) 0 THEN
			pg_catalog.now() OPERATOR(pg_catalog.+) (((note.total OPERATOR(pg_catalog.-) speed.done)::pg_catalog.float8
				OPERATOR(pg_catalog./) speed.rate) OPERATOR(pg_catalog.*) '1 second'::pg_catalog.interval)
		END AS eta
	FROM clip_backfill_notes AS note
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) note.source
		AND pg_catalog.pg_has_role(class.relowner, 'USAGE')
	-- A call that was killed or cancelled wrote its last word before. The state of others' sessions may be hidden.
	JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid OPERATOR(pg_catalog.=) note.pid
		AND COALESCE(activity.state, 'active') OPERATOR(pg_catalog.=) 'active'
	CROSS JOIN LATERAL (SELECT note.looked_at OPERATOR(pg_catalog.-) note.waiting) AS progress (done)
	CROSS JOIN LATERAL (
		SELECT EXTRACT(epoch FROM (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) note.started_at))::pg_catalog.float8
	) AS elapsed (seconds)
	CROSS JOIN LATERAL (
		SELECT progress.done, CASE WHEN elapsed.seconds OPERATOR(pg_catalog.>) 0
			THEN progress.done::pg_catalog.float8 OPERATOR(pg_catalog./) elapsed.seconds END
	) AS speed (done, rate);
COMMENT ON VIEW clip_backfills IS 'the running calls of clip_backfill on tables of yours: rows done, of how many, a second, and when all will be';
GRANT SELECT ON clip_backfills TO PUBLIC;

CREATE PROCEDURE clip_backfill(source pg_catalog.regclass, verify pg_catalog.bool DEFAULT false)
	LANGUAGE plpgsql
AS $procedure$
DECLARE
	-- A photo that somebody uploads meanwhile waits for so many others at most.
	most_waiting CONSTANT pg_catalog.int8 := 128;
	started_at pg_catalog.timestamptz := pg_catalog.clock_timestamp();
	reported pg_catalog.timestamptz := started_at;
	total pg_catalog.int8;
	looked_at pg_catalog.int8 := 0;
	asked_for pg_catalog.int8 := 0;
	waiting pg_catalog.int8 := 0;
	dead pg_catalog.int8;
	found record;
	after pg_catalog.text;
	keys pg_catalog.text[];
	is_at_end pg_catalog.bool := false;
	until pg_catalog.timestamptz := 'infinity';
BEGIN
	total := @extschema@.clip_begin_backfill(source);
	COMMIT;
	WHILE NOT is_at_end OR waiting OPERATOR(pg_catalog.>) 0 LOOP
		IF keys[1] IS NOT NULL AND waiting OPERATOR(pg_catalog.<) most_waiting THEN
			asked_for := asked_for OPERATOR(pg_catalog.+) @extschema@.clip_enqueue_missing(source, keys[1:64]);
			keys := keys[65:];
		ELSIF keys[1] IS NULL AND NOT is_at_end AND waiting OPERATOR(pg_catalog.<) most_waiting THEN
			found := @extschema@.clip_find_missing(source, after, COALESCE(verify, false));
			is_at_end := found.last IS NULL;
			after := found.last;
			looked_at := looked_at OPERATOR(pg_catalog.+) found.seen;
			keys := found.keys;
			-- Jobs that come later are not this call's.
			until := CASE WHEN is_at_end THEN pg_catalog.clock_timestamp() ELSE until END;
		ELSE
			PERFORM pg_catalog.pg_sleep(0.1);
		END IF;
		COMMIT;
		waiting := @extschema@.clip_count_jobs(source, false, until);
		PERFORM @extschema@.clip_note_backfill(source, started_at, looked_at, waiting, total);
		COMMIT;
		IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>)
			(reported OPERATOR(pg_catalog.+) '10 seconds'::pg_catalog.interval)
		THEN
			RAISE NOTICE '% of % rows of table % looked at, % photos found, % of them waiting', looked_at, total, source,
				asked_for, waiting;
			reported := pg_catalog.clock_timestamp();
		END IF;
	END LOOP;
	PERFORM @extschema@.clip_end_backfill(source);
	dead := @extschema@.clip_count_jobs(source, true, until);
	RAISE NOTICE '% photos of table % were without an embedding, % cannot be embedded', asked_for, source, dead;
	COMMIT;
END
$procedure$;
COMMENT ON PROCEDURE clip_backfill(pg_catalog.regclass, pg_catalog.bool) IS
	'embeds the photos of a watched table that have no embedding, or with verify an outdated one';

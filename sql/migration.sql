-- Moving a target to another model while it stays searchable.
--
-- The vectors of the new model are collected in a second column of the target, which takes the place of the first in
-- one transaction, together with clip.model. Always true until then: a vector in the second column is that of the bytes
-- whose checksum is in its row. What a migration needs to know stands in its trigger's arguments, so that it is rolled
-- back, dropped and dumped with the table. A procedure that commits cannot have a search_path of its own, so that the
-- procedure only calls functions that have one.

-- API: private.
CREATE FUNCTION clip_migration_progress(
	target pg_catalog.regclass, OUT done pg_catalog.int8, OUT total pg_catalog.int8
)
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
	EXECUTE (
		SELECT format('SELECT count(clip_next_embedding), count(%s) FROM %s', migration.embedding, target)
		FROM @extschema@.clip_migration_of(target) AS migration) INTO done, total;
END
$function$;
COMMENT ON FUNCTION clip_migration_progress(pg_catalog.regclass) IS
	'how many rows of a target have a vector of the new model; read it through clip_migrations';

-- API: public.
CREATE VIEW clip_migrations AS
	SELECT trigger.tgrelid::pg_catalog.regclass AS target, migration.held AS from_model, migration.identity AS to_model,
		progress.done, progress.total
	FROM pg_catalog.pg_trigger AS trigger
	CROSS JOIN LATERAL clip_migration_of(trigger.tgrelid) AS migration
	CROSS JOIN LATERAL clip_migration_progress(trigger.tgrelid) AS progress
	WHERE trigger.tgfoid OPERATOR(pg_catalog.=) '@extschema@.clip_forget_next_embedding'::pg_catalog.regproc;
COMMENT ON VIEW clip_migrations IS 'the tables of yours that are being moved to another model';
GRANT SELECT ON clip_migrations TO PUBLIC;

CREATE PROCEDURE clip_migrate(
	target pg_catalog.regclass, model pg_catalog.text, set_default pg_catalog.bool DEFAULT true
)
	LANGUAGE plpgsql
AS $procedure$
DECLARE
	-- A search waits for the switch, and a writer for what comes before it, at most so many milliseconds in a row:
	-- doubled at each attempt that failed, and always below deadlock_timeout, so that nobody else is chosen as the
	-- victim.
	patience pg_catalog.int4 := 50;
	most_patience CONSTANT pg_catalog.int4 := 800;
	few CONSTANT pg_catalog.int4 := 32;
	task record;
	batch record;
	after pg_catalog.text;
	progress record;
	seen pg_catalog.int8;
	seen_before pg_catalog.int8;
	caught_up pg_catalog.bool;
	filled pg_catalog.int8;
	failure pg_catalog.text;
	reported pg_catalog.timestamptz := pg_catalog.clock_timestamp();
	switched pg_catalog.bool := false;
BEGIN
	task := @extschema@.clip_check_migration(target, model, set_default);
	IF NOT task.needed THEN
		RETURN;
	END IF;
	-- Where a procedure cannot commit, it ends here, and holds nothing.
	COMMIT;
	IF NOT @extschema@.clip_hold(target, 'migrations') THEN
		RAISE EXCEPTION 'table % is being migrated by another session', target USING ERRCODE = 'object_in_use';
	END IF;
	-- Another session may have come to an end meanwhile.
	task := @extschema@.clip_check_migration(target, model, set_default);
	IF task.needed THEN
		PERFORM @extschema@.clip_announce_migration(model, set_default);
	END IF;
	COMMIT;
	WHILE task.needed AND NOT task.prepared LOOP
		task.prepared := @extschema@.clip_prepare_migration(target, model, patience);
		COMMIT;
		IF NOT task.prepared THEN
			PERFORM @extschema@.clip_wait(target, 'users', 0);
			patience := LEAST(patience OPERATOR(pg_catalog.*) 2, most_patience);
			COMMIT;
		END IF;
	END LOOP;
	WHILE task.needed AND NOT switched LOOP
		seen := 0;
		filled := 0;
		failure := NULL;
		after := NULL;
		LOOP
			batch := @extschema@.clip_migrate_batch(target, after);
			seen := seen OPERATOR(pg_catalog.+) batch.seen;
			filled := filled OPERATOR(pg_catalog.+) batch.filled;
			failure := COALESCE(failure, batch.failure);
			COMMIT;
			after := batch.last;
			EXIT WHEN after IS NULL;
			IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>)
				(reported OPERATOR(pg_catalog.+) '10 seconds'::pg_catalog.interval)
			THEN
				progress := @extschema@.clip_migration_progress(target);
				RAISE NOTICE '% of % rows of table % embedded with model %', progress.done, progress.total, target, model;
				reported := pg_catalog.clock_timestamp();
			END IF;
		END LOOP;
		IF filled OPERATOR(pg_catalog.<) seen THEN
			PERFORM @extschema@.clip_check_left_over(target, failure);
			COMMIT;
		END IF;
		-- Once more, unless others write as fast as this fills.
		caught_up := seen OPERATOR(pg_catalog.<=) few OR seen OPERATOR(pg_catalog.>=) seen_before;
		seen_before := seen;
		CONTINUE WHEN NOT caught_up;

		-- Whoever has an old snapshot would not see the new vectors after the switch. Those who have one now are waited
		-- for while nobody waits for us; those who come are few, and are waited for while writers wait.
		PERFORM @extschema@.clip_wait(target, 'snapshots', 0);
		COMMIT;
		IF @extschema@.clip_wait(target, 'writers', patience) THEN
			after := NULL;
			seen := 0;
			filled := 0;
			LOOP
				COMMIT;
				batch := @extschema@.clip_migrate_batch(target, after);
				seen := seen OPERATOR(pg_catalog.+) batch.seen;
				filled := filled OPERATOR(pg_catalog.+) batch.filled;
				after := batch.last;
				EXIT WHEN after IS NULL;
			END LOOP;
			COMMIT;
			IF filled OPERATOR(pg_catalog.=) seen AND @extschema@.clip_wait_without_writers(target, patience) THEN
				COMMIT;
				switched := @extschema@.clip_switch_model(target, set_default, patience);
			END IF;
			PERFORM @extschema@.clip_let_go(target, 'writers');
		END IF;
		COMMIT;
		IF NOT switched THEN
			RAISE NOTICE 'waiting for transactions that use table %', target;
			PERFORM @extschema@.clip_wait(target, 'users', 0);
			patience := LEAST(patience OPERATOR(pg_catalog.*) 2, most_patience);
			COMMIT;
		END IF;
	END LOOP;
	PERFORM @extschema@.clip_let_go(target, 'migrations');
	IF switched THEN
		RAISE NOTICE 'table % holds the vectors of model % now', target, model;
	END IF;
END
$procedure$;
COMMENT ON PROCEDURE clip_migrate(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool) IS
	'moves a target to another model while it stays searchable; goes on where an earlier call ended';

CREATE FUNCTION clip_abandon_migration(target pg_catalog.regclass) RETURNS pg_catalog.void
	LANGUAGE plpgsql STRICT
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	p_target CONSTANT regclass := clip_abandon_migration.target;
BEGIN
	IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = p_target), 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of table %', p_target USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF NOT EXISTS (
		SELECT FROM pg_trigger
		WHERE tgrelid = p_target AND tgfoid = '@extschema@.clip_forget_next_embedding'::regproc)
	THEN
		RAISE EXCEPTION 'table % is not being migrated', p_target USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	EXECUTE format('DROP TRIGGER clip_migration ON %s', p_target);
	EXECUTE format('ALTER TABLE %s DROP COLUMN clip_next_embedding, DROP COLUMN clip_next_model', p_target);
END
$function$;
COMMENT ON FUNCTION clip_abandon_migration(pg_catalog.regclass) IS
	'takes back what clip_migrate has prepared; the table stays with its model';

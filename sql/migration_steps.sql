-- The steps of clip_migrate, see migration.sql for what is always true.

-- API: private.
CREATE FUNCTION clip_model_identity(model pg_catalog.text) RETURNS pg_catalog.text
	AS 'MODULE_PATHNAME', 'clip_model_identity' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_model_identity(pg_catalog.text) IS
	'what model columns hold for an installed model: its name and the start of its fingerprint';

CREATE FUNCTION clip_model_dimensions(model pg_catalog.text) RETURNS pg_catalog.int4
	AS 'MODULE_PATHNAME', 'clip_model_dimensions' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_model_dimensions(pg_catalog.text) IS 'the dimensions of the vectors of an installed model';

CREATE FUNCTION clip_hold(target pg_catalog.regclass, what pg_catalog.text) RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'clip_hold' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_hold(pg_catalog.regclass, pg_catalog.text) IS
	'locks a table of the caller beyond the transaction, against other migrations or against writers; for clip_migrate';

CREATE FUNCTION clip_let_go(target pg_catalog.regclass, what pg_catalog.text) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_let_go' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_let_go(pg_catalog.regclass, pg_catalog.text) IS 'ends a lock of clip_hold; for clip_migrate';

CREATE FUNCTION clip_await_users(target pg_catalog.regclass) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_await_users' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_await_users(pg_catalog.regclass) IS
	'waits until the transactions that use a table of the caller now have ended; for clip_migrate';

CREATE FUNCTION clip_snapshot_holders() RETURNS pg_catalog.text[]
	AS 'MODULE_PATHNAME', 'clip_snapshot_holders' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_snapshot_holders() IS
	'the transactions that may not see what is committed now, as pg_locks.virtualtransaction has them; for clip_migrate';

CREATE FUNCTION clip_await_transactions(names pg_catalog.text[]) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_await_transactions' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_await_transactions(pg_catalog.text[]) IS
	'waits until transactions have ended; for clip_migrate';

CREATE FUNCTION clip_forget_next_embedding() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
	RETURN jsonb_populate_record(NEW, '{"clip_next_embedding": null}');
END
$function$;
COMMENT ON FUNCTION clip_forget_next_embedding() IS
	'trigger function: who writes a row''s embedding takes away the one that clip_migrate made of the bytes before';

-- One row where the caller''s table is the target of a watch. All names are quoted.
CREATE FUNCTION clip_migration_of(
	target pg_catalog.regclass, OUT source pg_catalog.text, OUT source_key pg_catalog.text, OUT image pg_catalog.text,
	OUT key pg_catalog.text, OUT key_type pg_catalog.text, OUT embedding pg_catalog.text, OUT checksum pg_catalog.text,
	OUT model_column pg_catalog.text, OUT held pg_catalog.text, OUT model pg_catalog.text, OUT identity pg_catalog.text
) RETURNS SETOF record
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
	SET row_security = on
AS $function$
	SELECT watch.source::text, quote_ident(watch.key_column), quote_ident(watch.image_column),
		quote_ident(watch.target_key_column), format_type(attribute.atttypid, attribute.atttypmod),
		quote_ident(watch.embedding_column), quote_ident(watch.checksum_column), quote_ident(watch.model_column),
		watch.model, split_part(arguments.arguments, '\000', 1), split_part(arguments.arguments, '\000', 2)
	FROM @extschema@.clip_watches AS watch
	JOIN pg_class AS class ON class.oid = watch.source AND pg_has_role(class.relowner, 'USAGE')
	JOIN pg_attribute AS attribute ON attribute.attrelid = watch.target AND attribute.attname = watch.target_key_column
	LEFT JOIN pg_trigger AS trigger ON trigger.tgrelid = watch.target
		AND trigger.tgfoid = '@extschema@.clip_forget_next_embedding'::regproc
	LEFT JOIN LATERAL encode(trigger.tgargs, 'escape') AS arguments ON true
	WHERE watch.target = clip_migration_of.target
$function$;
COMMENT ON FUNCTION clip_migration_of(pg_catalog.regclass) IS
	'the watch of a target and, where it is being migrated, the new model; for clip_migrate';

CREATE FUNCTION clip_check_migration(
	target pg_catalog.regclass, model pg_catalog.text, set_default pg_catalog.bool, OUT needed pg_catalog.bool,
	OUT prepared pg_catalog.bool
)
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	p_target CONSTANT regclass := clip_check_migration.target;
	p_model CONSTANT text := clip_check_migration.model;
	class pg_class;
	migration record;
	identity text;
	dimensions int;
	dependents text;
BEGIN
	IF p_target IS NULL OR p_model IS NULL OR set_default IS NULL THEN
		RAISE EXCEPTION 'table and model must be named' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT * INTO class FROM pg_class WHERE oid = p_target;
	IF NOT pg_has_role(class.relowner, 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of table %', p_target USING ERRCODE = 'insufficient_privilege';
	END IF;
	SELECT * INTO migration FROM @extschema@.clip_migration_of(p_target);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'table % takes the embeddings of no watched table of yours', p_target
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Name the table with the embeddings. SELECT clip_watch(''…'') makes one.';
	END IF;
	IF class.relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits WHERE p_target IN (inhrelid, inhparent)) THEN
		RAISE EXCEPTION 'table % is partitioned or inherits', p_target USING ERRCODE = 'feature_not_supported';
	END IF;
	IF set_default AND NOT pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of database %', current_database()
			USING ERRCODE = 'insufficient_privilege',
			HINT = 'With set_default => false, clip.model stays as it is and is yours to change.';
	END IF;
	identity := @extschema@.clip_model_identity(p_model);
	dimensions := @extschema@.clip_model_dimensions(p_model);

	prepared := migration.identity IS NOT NULL;
	IF prepared AND migration.identity <> identity THEN
		RAISE EXCEPTION 'table % is being migrated to model %, not %', p_target, migration.identity, identity
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = format('SELECT clip_abandon_migration(%L)', p_target);
	END IF;
	needed := prepared OR migration.held IS DISTINCT FROM identity;
	IF NOT needed THEN
		RAISE NOTICE 'table % holds the vectors of model % already', p_target, identity;
		RETURN;
	END IF;

	SELECT string_agg(DISTINCT pg_describe_object(depend.classid, depend.objid, depend.objsubid), ', ') INTO dependents
	FROM pg_attribute AS attribute
	JOIN pg_depend AS depend ON depend.refclassid = 'pg_class'::regclass AND depend.refobjid = p_target
		AND depend.refobjsubid = attribute.attnum
	LEFT JOIN pg_index AS index ON depend.classid = 'pg_class'::regclass AND index.indexrelid = depend.objid
		AND quote_ident(attribute.attname) = migration.embedding
	LEFT JOIN pg_attrdef AS own ON depend.classid = 'pg_attrdef'::regclass AND own.oid = depend.objid
		AND own.adnum = attribute.attnum
	LEFT JOIN pg_constraint AS not_null ON depend.classid = 'pg_constraint'::regclass AND not_null.oid = depend.objid
		AND not_null.contype = 'n'
	LEFT JOIN pg_trigger AS trigger ON depend.classid = 'pg_trigger'::regclass AND trigger.oid = depend.objid
		AND trigger.tgfoid = '@extschema@.clip_forget_next_embedding'::regproc
	WHERE attribute.attrelid = p_target
		AND quote_ident(attribute.attname) IN (migration.embedding, migration.model_column)
		AND own.oid IS NULL AND not_null.oid IS NULL AND trigger.oid IS NULL
		-- An index is made anew for the new column. One on an expression may name the dimensions.
		AND (index.indexrelid IS NULL OR index.indexprs IS NOT NULL AND attribute.atttypmod NOT IN (-1, dimensions));
	IF dependents IS NOT NULL THEN
		RAISE EXCEPTION 'other objects depend on the columns %, % of table %', migration.embedding,
				migration.model_column, p_target
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('Dependent: %s.', dependents),
			HINT = 'Drop them, and create them again after the migration.';
	END IF;
END
$function$;
COMMENT ON FUNCTION clip_check_migration(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool) IS
	'whether a target has to be migrated, or why it cannot be; for clip_migrate';

CREATE FUNCTION clip_announce_migration(model pg_catalog.text, set_default pg_catalog.bool) RETURNS pg_catalog.void
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	roles text;
BEGIN
	IF NOT set_default AND current_setting('clip.model') <> model THEN
		RAISE NOTICE 'after the migration, photos are refused until clip.model is %', model;
	END IF;
	SELECT string_agg(DISTINCT quote_ident(rolname), ', ') INTO roles
	FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) AS entry
	WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
		AND lower(split_part(entry, '=', 1)) = 'clip.model'
		AND split_part(entry, '=', 2) <> clip_announce_migration.model;
	IF roles IS NOT NULL THEN
		RAISE NOTICE 'clip.model is set to another model for the roles %', roles
			USING HINT = 'ALTER ROLE … RESET clip.model, once the table has been migrated.';
	END IF;
END
$function$;
COMMENT ON FUNCTION clip_announce_migration(pg_catalog.text, pg_catalog.bool) IS
	'tells what a migration leaves to others; for clip_migrate';

CREATE FUNCTION clip_indexes_on(target pg_catalog.regclass, column_name pg_catalog.text)
	RETURNS TABLE (name pg_catalog.text, definition pg_catalog.text, spcname pg_catalog.text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $function$
	SELECT DISTINCT class.relname::text,
		begin_of.definition || ' ON ' || substr(
			pg_get_indexdef(class.oid), length(begin_of.definition || format(' %I ON ', class.relname)) + 1),
		space.spcname::text
	FROM pg_attribute AS attribute
	JOIN pg_depend AS depend ON depend.classid = 'pg_class'::regclass AND depend.refclassid = 'pg_class'::regclass
		AND depend.refobjid = attribute.attrelid AND depend.refobjsubid = attribute.attnum
	JOIN pg_class AS class ON class.oid = depend.objid
	JOIN pg_index AS index ON index.indexrelid = class.oid
	LEFT JOIN pg_tablespace AS space ON space.oid = class.reltablespace
	CROSS JOIN LATERAL (
		SELECT CASE WHEN index.indisunique THEN 'CREATE UNIQUE INDEX' ELSE 'CREATE INDEX' END) AS begin_of (definition)
	WHERE attribute.attrelid = clip_indexes_on.target AND quote_ident(attribute.attname) = clip_indexes_on.column_name
	ORDER BY class.relname::text
$function$;
COMMENT ON FUNCTION clip_indexes_on(pg_catalog.regclass, pg_catalog.text) IS
	'the indexes on a column of a table, with definitions that name none; for clip_migrate';

CREATE FUNCTION clip_prepare_migration(
	target pg_catalog.regclass, model pg_catalog.text, patience pg_catalog.int4
) RETURNS pg_catalog.bool
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	p_target CONSTANT regclass := clip_prepare_migration.target;
	migration record;
	old pg_attribute;
	definitions text[];
	spaces text[];
	vector_type text;
BEGIN
	PERFORM set_config('lock_timeout', patience::text, true);
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', p_target);
	PERFORM set_config('lock_timeout', '0', true);
	SELECT * INTO migration FROM @extschema@.clip_migration_of(p_target);
	SELECT * INTO old FROM pg_attribute WHERE attrelid = p_target AND quote_ident(attname) = migration.embedding;
	vector_type := format_type(old.atttypid, NULL);
	IF old.atttypmod <> -1 THEN
		vector_type := format('%s(%s)', vector_type, @extschema@.clip_model_dimensions(clip_prepare_migration.model));
	END IF;
	-- Under the new column's name for a moment: the definitions of the indexes then are those of the new ones.
	EXECUTE format('ALTER TABLE %s RENAME COLUMN %s TO clip_next_embedding', p_target, migration.embedding);
	SELECT array_agg(definition), array_agg(coalesce(spcname, '')) INTO definitions, spaces
	FROM @extschema@.clip_indexes_on(p_target, 'clip_next_embedding');
	EXECUTE format('ALTER TABLE %s RENAME COLUMN clip_next_embedding TO %s', p_target, migration.embedding);
	EXECUTE format(
		'ALTER TABLE %s ADD COLUMN clip_next_embedding %s, ADD COLUMN clip_next_model text NOT NULL DEFAULT %L',
		p_target, vector_type, @extschema@.clip_model_identity(clip_prepare_migration.model));
	-- As long as the column is empty, there is nothing to build, and nobody waits for it. The indexes grow as the rows
	-- come; CREATE INDEX CONCURRENTLY afterwards cannot run in a procedure.
	FOR number IN 1 .. coalesce(cardinality(definitions), 0) LOOP
		PERFORM set_config('default_tablespace', spaces[number], true);
		EXECUTE definitions[number];
	END LOOP;
	EXECUTE format(
		'CREATE TRIGGER clip_migration BEFORE UPDATE OF %s, %s ON %s '
			'FOR EACH ROW EXECUTE FUNCTION @extschema@.clip_forget_next_embedding(%L, %L)',
		migration.embedding, migration.checksum, p_target, clip_prepare_migration.model,
		@extschema@.clip_model_identity(clip_prepare_migration.model));
	EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER clip_migration', p_target);
	RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN false;
END
$function$;
COMMENT ON FUNCTION clip_prepare_migration(pg_catalog.regclass, pg_catalog.text, pg_catalog.int4) IS
	'adds the second column, its indexes and the trigger; false where the table was in use; for clip_migrate';

CREATE FUNCTION clip_migrate_batch(
	target pg_catalog.regclass, after pg_catalog.text, OUT last pg_catalog.text, OUT seen pg_catalog.int4,
	OUT filled pg_catalog.int4, OUT failure pg_catalog.text
)
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
AS $function$
DECLARE
	migration record;
	keys text[];
	checksums bytea[];
	images bytea[];
	copied int;
	fill text;
BEGIN
	-- Nobody abandons it, or finishes it, in the middle of a batch.
	EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', clip_migrate_batch.target);
	SELECT * INTO migration FROM @extschema@.clip_migration_of(clip_migrate_batch.target);
	IF migration.identity IS NULL THEN
		RAISE EXCEPTION 'the migration of table % was abandoned', clip_migrate_batch.target
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	-- As many as the embedder takes at once, and not more bytes than a backend should hold; the sizes stand in the
	-- rows, whose photos are not read for it.
	EXECUTE format(
		'SELECT array_agg(key::text ORDER BY key) FROM ('
			'SELECT key, row_number() OVER rising AS number, sum(size) OVER rising AS bytes FROM ('
				'SELECT t.%1$s AS key, coalesce(octet_length(s.%2$s), 0) AS size '
				'FROM %3$s AS t LEFT JOIN %4$s AS s ON s.%5$s = t.%1$s '
				'WHERE t.%6$s IS NOT NULL AND t.clip_next_embedding IS NULL AND ($1 IS NULL OR t.%1$s > $1::%7$s) '
				'ORDER BY t.%1$s LIMIT 32) AS next '
			'WINDOW rising AS (ORDER BY key)) AS counted '
		'WHERE number = 1 OR bytes <= 33554432',
		migration.key, migration.image, clip_migrate_batch.target, migration.source, migration.source_key,
		migration.embedding, migration.key_type)
		INTO keys USING after;
	seen := coalesce(cardinality(keys), 0);
	filled := 0;
	IF seen = 0 THEN
		RETURN;
	END IF;
	last := keys[seen];
	EXECUTE format(
		'UPDATE %1$s AS t SET clip_next_embedding = ('
			'SELECT d.clip_next_embedding FROM %1$s AS d '
			'WHERE d.%2$s = t.%2$s AND d.clip_next_embedding IS NOT NULL LIMIT 1) '
		'WHERE t.%3$s = ANY ($1::%4$s[]) AND t.clip_next_embedding IS NULL AND t.%5$s IS NOT NULL AND EXISTS ('
			'SELECT FROM %1$s AS d WHERE d.%2$s = t.%2$s AND d.clip_next_embedding IS NOT NULL)',
		clip_migrate_batch.target, migration.checksum, migration.key, migration.key_type, migration.embedding)
		USING keys;
	GET DIAGNOSTICS copied = ROW_COUNT;
	filled := filled + copied;
	EXECUTE format(
		'SELECT array_agg(checksum), array_agg(image) FROM ('
			'SELECT DISTINCT ON (t.%1$s) t.%1$s AS checksum, s.%2$s AS image '
			'FROM %3$s AS t JOIN %4$s AS s ON s.%5$s = t.%6$s '
			'WHERE t.%6$s = ANY ($1::%7$s[]) AND t.clip_next_embedding IS NULL AND t.%8$s IS NOT NULL '
				'AND sha256(s.%2$s) = t.%1$s '
			'ORDER BY t.%1$s) AS photo',
		migration.checksum, migration.image, clip_migrate_batch.target, migration.source, migration.source_key,
		migration.key, migration.key_type, migration.embedding)
		INTO checksums, images USING keys;
	-- A row whose photo has changed meanwhile has another checksum, and is left to a later batch.
	fill := format(
		'UPDATE %1$s AS t SET clip_next_embedding = photo.embedding FROM ('
			'SELECT unnest($2) AS checksum, unnest(@extschema@.clip_embed_images($3, $4)) AS embedding) AS photo '
		'WHERE t.%2$s = ANY ($1::%3$s[]) AND t.%4$s = photo.checksum AND t.clip_next_embedding IS NULL '
			'AND t.%5$s IS NOT NULL',
		clip_migrate_batch.target, migration.key, migration.key_type, migration.checksum, migration.embedding);
	BEGIN
		EXECUTE fill USING keys, checksums, images, migration.model;
		GET DIAGNOSTICS copied = ROW_COUNT;
		filled := filled + copied;
	EXCEPTION WHEN invalid_binary_representation OR invalid_parameter_value OR feature_not_supported
		OR program_limit_exceeded OR connection_failure
	THEN
		-- One of them is not for this model: the others are.
		FOR photo IN 1 .. cardinality(images) LOOP
			BEGIN
				EXECUTE fill USING keys, checksums[photo:photo], images[photo:photo], migration.model;
				GET DIAGNOSTICS copied = ROW_COUNT;
				filled := filled + copied;
			EXCEPTION WHEN invalid_binary_representation OR invalid_parameter_value OR feature_not_supported
				OR program_limit_exceeded OR connection_failure
			THEN
				failure := coalesce(failure, SQLERRM);
			END;
		END LOOP;
	END;
END
$function$;
COMMENT ON FUNCTION clip_migrate_batch(pg_catalog.regclass, pg_catalog.text) IS
	'fills the second column of the next rows after a key; for clip_migrate';

CREATE FUNCTION clip_check_left_over(target pg_catalog.regclass, failure pg_catalog.text) RETURNS pg_catalog.void
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
AS $function$
DECLARE
	migration record;
	without bigint;
BEGIN
	IF failure IS NOT NULL THEN
		RAISE EXCEPTION 'photos of table % cannot be embedded: %', clip_check_left_over.target, failure
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Mend or delete them, then call clip_migrate again. What is done is kept.';
	END IF;
	EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', clip_check_left_over.target);
	SELECT * INTO migration FROM @extschema@.clip_migration_of(clip_check_left_over.target);
	IF migration.identity IS NULL THEN
		RETURN;
	END IF;
	EXECUTE format(
		'SELECT count(*) FROM %s AS t WHERE t.%s IS NOT NULL AND t.clip_next_embedding IS NULL AND NOT EXISTS ('
			'SELECT FROM %s AS s WHERE s.%s = t.%s AND sha256(s.%s) = t.%s)',
		clip_check_left_over.target, migration.embedding, migration.source, migration.source_key, migration.key,
		migration.image, migration.checksum)
		INTO without;
	IF without > 0 THEN
		RAISE EXCEPTION '% rows of table % have no photo with their checksum', without, clip_check_left_over.target
			USING ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('The photos are looked for in table %s.', migration.source),
			HINT = 'Delete the rows, or embed their photos anew, then call clip_migrate again. What is done is kept.';
	END IF;
END
$function$;
COMMENT ON FUNCTION clip_check_left_over(pg_catalog.regclass, pg_catalog.text) IS
	'refuses to go on where rows cannot be embedded with the new model; for clip_migrate';

CREATE FUNCTION clip_wait(target pg_catalog.regclass, what pg_catalog.text, patience pg_catalog.int4)
	RETURNS pg_catalog.bool
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
	PERFORM set_config('lock_timeout', patience::text, true);
	CASE what
		WHEN 'users' THEN PERFORM @extschema@.clip_await_users(target);
		WHEN 'snapshots' THEN PERFORM @extschema@.clip_await_transactions(@extschema@.clip_snapshot_holders());
		WHEN 'writers' THEN PERFORM @extschema@.clip_hold(target, 'writers');
	END CASE;
	RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN false;
END
$function$;
COMMENT ON FUNCTION clip_wait(pg_catalog.regclass, pg_catalog.text, pg_catalog.int4) IS
	'waits for users, snapshots or writers at most so many milliseconds, or as long as it takes for 0; for clip_migrate';

-- Writers that wait for our lock are not waited for. They do not look for rows with the snapshot that they have: it is
-- that of a statement on the source, or else the trigger ends their transaction with a serialization failure.
CREATE FUNCTION clip_wait_without_writers(target pg_catalog.regclass, patience pg_catalog.int4) RETURNS pg_catalog.bool
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	until CONSTANT timestamptz := clock_timestamp() + patience * interval '1 millisecond';
	holders text[] := @extschema@.clip_snapshot_holders();
BEGIN
	-- Short: who is waited for may come to wait for us.
	PERFORM set_config('lock_timeout', '20', true);
	LOOP
		BEGIN
			holders := ARRAY(
				SELECT unnest(holders) EXCEPT SELECT virtualtransaction FROM pg_locks
				WHERE relation = clip_wait_without_writers.target AND NOT granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database()));
			PERFORM @extschema@.clip_await_transactions(holders);
			RETURN true;
		EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
			IF clock_timestamp() > until THEN
				RETURN false;
			END IF;
		END;
	END LOOP;
END
$function$;
COMMENT ON FUNCTION clip_wait_without_writers(pg_catalog.regclass, pg_catalog.int4) IS
	'waits for snapshots at most so many milliseconds, while writers are held; for clip_migrate';

CREATE FUNCTION clip_switch_model(
	target pg_catalog.regclass, set_default pg_catalog.bool, patience pg_catalog.int4
) RETURNS pg_catalog.bool
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
	SET row_security = off
AS $function$
#variable_conflict use_column
DECLARE
	p_target CONSTANT regclass := clip_switch_model.target;
	migration record;
	embedding pg_attribute;
	model pg_attribute;
	old pg_attribute;
	setting text;
	grants text[];
	names text[];
	definitions text[];
	new_name text;
	schema name;
BEGIN
	-- Who has searched and waits to write now would have to be waited for, and waits for us.
	IF EXISTS (
		SELECT FROM pg_locks AS wanted JOIN pg_locks AS held USING (database, relation, virtualtransaction)
		WHERE relation = p_target AND NOT wanted.granted AND held.granted)
	THEN
		RETURN false;
	END IF;
	PERFORM set_config('lock_timeout', patience::text, true);
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', p_target);
	SELECT * INTO migration FROM @extschema@.clip_migration_of(p_target);
	IF migration.identity IS NULL THEN
		RAISE EXCEPTION 'the migration of table % was abandoned', p_target
			USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	IF migration.identity <> @extschema@.clip_model_identity(migration.model) THEN
		RAISE EXCEPTION 'model % was replaced during the migration of table %', migration.model, p_target
			USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = format('SELECT clip_abandon_migration(%L)', p_target);
	END IF;
	schema := (
		SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = p_target);
	SELECT * INTO embedding FROM pg_attribute WHERE attrelid = p_target AND quote_ident(attname) = migration.embedding;
	SELECT * INTO model FROM pg_attribute WHERE attrelid = p_target AND quote_ident(attname) = migration.model_column;
	SELECT coalesce(array_agg(name), '{}'), array_agg(definition) INTO names, definitions
	FROM @extschema@.clip_indexes_on(p_target, migration.embedding);

	-- What the columns have beside their type.
	IF embedding.attnotnull THEN
		EXECUTE format('ALTER TABLE %s ALTER COLUMN clip_next_embedding SET NOT NULL', p_target);
	END IF;
	EXECUTE format('ALTER TABLE %s ALTER COLUMN clip_next_model DROP DEFAULT', p_target);
	IF NOT model.attnotnull THEN
		EXECUTE format('ALTER TABLE %s ALTER COLUMN clip_next_model DROP NOT NULL', p_target);
	END IF;
	EXECUTE format(
		'ALTER TABLE %s ALTER COLUMN clip_next_embedding SET STORAGE %s', p_target,
		CASE embedding.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END);
	grants := ARRAY(
		SELECT format(
			'GRANT %s (%I) ON %s TO %s %s', privilege_type, attname, p_target,
			CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
			CASE WHEN is_grantable THEN 'WITH GRANT OPTION' END)
		FROM pg_attribute, aclexplode(attacl)
		WHERE attrelid = p_target AND attnum IN (embedding.attnum, model.attnum));
	FOREACH old IN ARRAY ARRAY[embedding, model] LOOP
		SELECT pg_get_expr(adbin, adrelid) INTO setting FROM pg_attrdef
		WHERE adrelid = p_target AND adnum = old.attnum;
		IF setting IS NOT NULL THEN
			grants := grants || format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', p_target, old.attname, setting);
		END IF;
		setting := col_description(p_target, old.attnum);
		IF setting IS NOT NULL THEN
			grants := grants || format('COMMENT ON COLUMN %s.%I IS %L', p_target, old.attname, setting);
		END IF;
	END LOOP;

	EXECUTE format('DROP TRIGGER clip_migration ON %s', p_target);
	EXECUTE format('ALTER TABLE %s DROP COLUMN %I, DROP COLUMN %I', p_target, embedding.attname, model.attname);
	EXECUTE format('ALTER TABLE %s RENAME COLUMN clip_next_embedding TO %I', p_target, embedding.attname);
	EXECUTE format('ALTER TABLE %s RENAME COLUMN clip_next_model TO %I', p_target, model.attname);
	FOREACH setting IN ARRAY grants LOOP
		EXECUTE setting;
	END LOOP;
	-- An index takes the name of the one that had the same definition.
	FOR number IN 1 .. cardinality(names) LOOP
		new_name := (
			SELECT found.name FROM @extschema@.clip_indexes_on(p_target, migration.embedding) AS found
			WHERE found.definition = definitions[number] AND found.name <> ALL (names)
			LIMIT 1);
		IF new_name IS NOT NULL THEN
			EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', schema, new_name, names[number]);
		END IF;
	END LOOP;

	PERFORM @extschema@.clip_set_watch_model(migration.source::regclass, migration.identity);
	IF set_default THEN
		EXECUTE format('ALTER DATABASE %I SET clip.model = %L', current_database(), migration.model);
	END IF;
	RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN false;
END
$function$;
COMMENT ON FUNCTION clip_switch_model(pg_catalog.regclass, pg_catalog.bool, pg_catalog.int4) IS
	'puts the second column in the place of the first; false where the table was in use; for clip_migrate';

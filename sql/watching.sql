-- Watching a table. API: private, but for clip_watch, clip_unwatch and clip_fill_image_embeddings.

-- A row says where the photos of a table are embedded to. The trigger function reads it as the owner of this table,
-- and writes to the target as the owner of the target: hence both have to be the caller's to write a row.
CREATE TABLE clip_watches (
	source pg_catalog.regclass PRIMARY KEY,
	target pg_catalog.regclass NOT NULL UNIQUE,
	mode pg_catalog.text NOT NULL CHECK (mode OPERATOR(pg_catalog.=) 'sync' OR mode OPERATOR(pg_catalog.=) 'async'),
	image_column pg_catalog.name NOT NULL,
	key_column pg_catalog.name NOT NULL,
	project_column pg_catalog.name,
	target_key_column pg_catalog.name NOT NULL,
	embedding_column pg_catalog.name NOT NULL,
	checksum_column pg_catalog.name NOT NULL,
	model_column pg_catalog.name NOT NULL,
	target_project_column pg_catalog.name,
	model pg_catalog.text
);
COMMENT ON TABLE clip_watches IS 'the watched tables; written by clip_watch and clip_unwatch';
COMMENT ON COLUMN clip_watches.source IS 'the table with the photos';
COMMENT ON COLUMN clip_watches.target IS 'the table with their embeddings; a table takes those of one source';
COMMENT ON COLUMN clip_watches.mode IS 'sync: embedded in the transaction that writes the photo; async: by the queue after it';
COMMENT ON COLUMN clip_watches.project_column IS 'NULL where no project is carried over';
COMMENT ON COLUMN clip_watches.model IS 'the one model whose vectors the target holds; NULL before there is one';
SELECT pg_catalog.pg_extension_config_dump('clip_watches', '');

-- Only its functions write to it: who may write to a table may also lock it against the triggers of all others. All read
-- it, for a dump of the database by its owner has to; what it says, the catalogs tell everybody of any trigger.
GRANT SELECT ON clip_watches TO PUBLIC;

CREATE FUNCTION clip_register_watch(
	source pg_catalog.regclass, target pg_catalog.regclass, mode pg_catalog.text, image_column pg_catalog.name,
	key_column pg_catalog.name, project_column pg_catalog.name, target_key_column pg_catalog.name,
	embedding_column pg_catalog.name, checksum_column pg_catalog.name, model_column pg_catalog.name,
	target_project_column pg_catalog.name, model pg_catalog.text
) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_register_watch' LANGUAGE C;
COMMENT ON FUNCTION clip_register_watch(
	pg_catalog.regclass, pg_catalog.regclass, pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.name,
	pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.text) IS
	'writes the row of a watch for the owner of both tables; called by clip_watch';

CREATE FUNCTION clip_unregister_watch(source pg_catalog.regclass) RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'clip_unregister_watch' LANGUAGE C;
COMMENT ON FUNCTION clip_unregister_watch(pg_catalog.regclass) IS
	'deletes the row of a watch for the owner of the source; called by clip_unwatch';

CREATE FUNCTION clip_set_watch_model(source pg_catalog.regclass, model pg_catalog.text) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_set_watch_model' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_set_watch_model(pg_catalog.regclass, pg_catalog.text) IS
	'writes down which model made the vectors of a target, for the owner of the source; called by clip_migrate';

CREATE FUNCTION clip_fill_image_embeddings() RETURNS trigger
	AS 'MODULE_PATHNAME', 'clip_fill_image_embeddings' LANGUAGE C;
COMMENT ON FUNCTION clip_fill_image_embeddings() IS
	'trigger function that keeps the embeddings of a watched table; AFTER INSERT, UPDATE, DELETE or TRUNCATE, FOR EACH STATEMENT';

CREATE FUNCTION clip_watch(
	source pg_catalog.regclass,
	target pg_catalog.text DEFAULT 'image_embeddings',
	mode pg_catalog.text DEFAULT 'sync',
	image_column pg_catalog.name DEFAULT 'image',
	key_column pg_catalog.name DEFAULT NULL,
	project_column pg_catalog.name DEFAULT NULL,
	target_key_column pg_catalog.name DEFAULT 'image_id',
	embedding_column pg_catalog.name DEFAULT 'embedding',
	checksum_column pg_catalog.name DEFAULT 'checksum',
	model_column pg_catalog.name DEFAULT 'model',
	target_project_column pg_catalog.name DEFAULT 'project'
) RETURNS pg_catalog.regclass
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	-- The parameters under names that no column of a catalog has.
	p_source CONSTANT regclass := clip_watch.source;
	p_mode CONSTANT text := clip_watch.mode;
	p_image CONSTANT name := clip_watch.image_column;
	p_key name := clip_watch.key_column;
	p_project name := clip_watch.project_column;
	p_target_key CONSTANT name := clip_watch.target_key_column;
	p_embedding CONSTANT name := clip_watch.embedding_column;
	p_checksum CONSTANT name := clip_watch.checksum_column;
	p_model CONSTANT name := clip_watch.model_column;
	p_target_project name := clip_watch.target_project_column;
	-- Vector's schema and ours, wherever they were installed.
	vector_schema CONSTANT name := (
		SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
		WHERE e.extname = 'vector');
	vector_type CONSTANT regtype := format('%I.vector', vector_schema)::regtype;
	source_class pg_class;
	source_schema name;
	target_name text[];
	target_table regclass;
	key_type text;
	project_type text;
	image_type regtype;
	missing text;
	held text;
	also_held text;
BEGIN
	SELECT * INTO source_class FROM pg_class WHERE oid = p_source;
	IF p_source IS NULL OR NOT FOUND THEN
		RAISE EXCEPTION 'the table to watch must be named' USING ERRCODE = 'undefined_table';
	END IF;
	IF source_class.relkind NOT IN ('r', 'p') THEN
		RAISE EXCEPTION '% is not a table', p_source USING ERRCODE = 'wrong_object_type';
	END IF;
	IF NOT pg_has_role(source_class.relowner, 'USAGE') THEN
		RAISE EXCEPTION 'must be owner of table %', p_source USING ERRCODE = 'insufficient_privilege';
	END IF;
	IF p_mode IS NULL OR p_mode NOT IN ('sync', 'async') THEN
		RAISE EXCEPTION 'mode "%" is not known', p_mode
			USING ERRCODE = 'invalid_parameter_value', HINT = 'The modes are ''sync'' and ''async''.';
	END IF;
	source_schema := (SELECT nspname FROM pg_namespace WHERE oid = source_class.relnamespace);

	-- The columns of the source.
	image_type := (
		SELECT atttypid FROM pg_attribute
		WHERE attrelid = p_source AND attname = p_image AND attnum > 0 AND NOT attisdropped);
	IF image_type IS NULL THEN
		RAISE EXCEPTION 'column "%" of table % does not exist', p_image, p_source
			USING ERRCODE = 'undefined_column', HINT = 'Name the column of the photos with image_column => ''…''.';
	END IF;
	IF image_type <> 'bytea'::regtype THEN
		RAISE EXCEPTION 'column "%" of table % is of type %, not bytea', p_image, p_source, image_type
			USING ERRCODE = 'datatype_mismatch';
	END IF;
	IF p_key IS NULL THEN
		SELECT attname INTO p_key
		FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
		WHERE indrelid = p_source AND indisprimary AND indnkeyatts = 1;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'table % has no primary key of one column', p_source
				USING ERRCODE = 'undefined_column', HINT = 'Name a unique column with key_column => ''…''.';
		END IF;
	END IF;
	key_type := (
		SELECT format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = p_source AND attname = p_key AND attnum > 0 AND NOT attisdropped);
	IF key_type IS NULL THEN
		RAISE EXCEPTION 'column "%" of table % does not exist', p_key, p_source USING ERRCODE = 'undefined_column';
	END IF;
	project_type := (
		SELECT format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = p_source AND attname = coalesce(p_project, 'project') AND attnum > 0 AND NOT attisdropped);
	IF project_type IS NOT NULL THEN
		p_project := coalesce(p_project, 'project');
	ELSIF p_project IS NOT NULL THEN
		RAISE EXCEPTION 'column "%" of table % does not exist', p_project, p_source USING ERRCODE = 'undefined_column';
	END IF;

	-- The target, in the source's schema unless another is named.
	target_name := parse_ident(clip_watch.target);
	IF cardinality(target_name) = 1 THEN
		target_name := ARRAY[source_schema::text, target_name[1]];
	ELSIF cardinality(target_name) <> 2 THEN
		RAISE EXCEPTION '"%" is not the name of a table', clip_watch.target USING ERRCODE = 'invalid_name';
	END IF;
	target_table := to_regclass(format('%I.%I', target_name[1], target_name[2]));
	IF target_table IS NULL THEN
		EXECUTE format(
			'CREATE TABLE %I.%I ('
				'id uuid PRIMARY KEY DEFAULT gen_random_uuid(), '
				'%I %s NOT NULL UNIQUE, '
				'%I %I.vector(%s) NOT NULL, '
				'%I bytea NOT NULL, '
				'%I %s, '
				'%I text NOT NULL, '
				'created_at timestamptz NOT NULL DEFAULT now())',
			target_name[1], target_name[2], p_target_key, key_type, p_embedding, vector_schema,
			@extschema@.clip_model_dimensions(current_setting('clip.model')), p_checksum,
			coalesce(p_target_project, 'project'), coalesce(project_type, 'text'), p_model);
		target_table := format('%I.%I', target_name[1], target_name[2])::regclass;
		EXECUTE format('CREATE INDEX ON %s USING hnsw (%I %I.vector_cosine_ops)', target_table, p_embedding, vector_schema);
		EXECUTE format('CREATE INDEX ON %s (%I)', target_table, p_checksum);
		EXECUTE format(
			'COMMENT ON TABLE %s IS %L', target_table, format('embeddings of the photos in %s, kept by clip_watch', p_source));
		p_target_project := coalesce(p_target_project, 'project');
	ELSE
		IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = target_table), 'USAGE') THEN
			RAISE EXCEPTION 'must be owner of table %', target_table USING ERRCODE = 'insufficient_privilege';
		END IF;
		SELECT string_agg(format('%s %s', wanted.name, wanted.type), ', ') INTO missing
		FROM (VALUES
			(p_target_key, NULL::regtype), (p_embedding, vector_type), (p_checksum, 'bytea'::regtype),
			(p_model, 'text'::regtype)
		) AS wanted (name, type)
		WHERE NOT EXISTS (
			SELECT FROM pg_attribute
			WHERE attrelid = target_table AND attname = wanted.name AND attnum > 0 AND NOT attisdropped
				AND (wanted.type IS NULL OR atttypid = wanted.type));
		IF missing IS NOT NULL THEN
			RAISE EXCEPTION 'table % lacks columns that clip_watch fills', target_table
				USING ERRCODE = 'undefined_column', DETAIL = format('Missing: %s.', missing),
				HINT = 'Add them, or name the columns that stand for them, as embedding_column => ''…''.';
		END IF;
		IF NOT EXISTS (
			SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
			WHERE indrelid = target_table AND indisunique AND indimmediate AND indpred IS NULL AND indnkeyatts = 1
				AND attname = p_target_key)
		THEN
			RAISE EXCEPTION 'column "%" of table % is not unique', p_target_key, target_table
				USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = format('CREATE UNIQUE INDEX ON %s (%I)', target_table, p_target_key);
		END IF;
		IF NOT EXISTS (
			SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
			WHERE indrelid = target_table AND attname = p_checksum)
		THEN
			RAISE NOTICE 'table % has no index on "%": each photo will be looked for by a scan', target_table, p_checksum
				USING HINT = format('CREATE INDEX ON %s (%I)', target_table, p_checksum);
		END IF;
		IF NOT EXISTS (
			SELECT FROM pg_attribute
			WHERE attrelid = target_table AND attname = p_target_project AND attnum > 0 AND NOT attisdropped)
		THEN
			IF clip_watch.project_column IS NOT NULL THEN
				RAISE EXCEPTION 'column "%" of table % does not exist', p_target_project, target_table
					USING ERRCODE = 'undefined_column';
			END IF;
			p_project := NULL;
		END IF;
	END IF;
	IF p_project IS NULL THEN
		p_target_project := NULL;
	END IF;
	EXECUTE format('SELECT min(%I), max(%I) FROM %s', p_model, p_model, target_table) INTO held, also_held;
	IF held <> also_held THEN
		RAISE EXCEPTION 'table % holds vectors of model % and of model %', target_table, held, also_held
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Delete those of one of them.';
	END IF;

	BEGIN
		PERFORM @extschema@.clip_register_watch(
			p_source, target_table, p_mode, p_image, p_key, p_project,
			p_target_key, p_embedding, p_checksum, p_model, p_target_project, held);
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION 'table % takes the embeddings of another table already', target_table
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Name a target of its own with target => ''…''.';
	END;

	PERFORM @extschema@.clip_drop_watch_triggers(p_source);
	EXECUTE format(
		'CREATE TRIGGER clip_watch_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
			'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings()', p_source);
	EXECUTE format(
		'CREATE TRIGGER clip_watch_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
			'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings()', p_source);
	EXECUTE format(
		'CREATE TRIGGER clip_watch_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
			'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings()', p_source);
	EXECUTE format(
		'CREATE TRIGGER clip_watch_truncate AFTER TRUNCATE ON %s '
			'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings()', p_source);
	RETURN target_table;
END
$function$;
COMMENT ON FUNCTION clip_watch(
	pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.name,
	pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name) IS
	'from now on embeds the photos of a table into another one, which it makes where it is missing; returns that one';

CREATE FUNCTION clip_unwatch(source pg_catalog.regclass) RETURNS pg_catalog.void
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	p_source CONSTANT regclass := clip_unwatch.source;
BEGIN
	IF NOT @extschema@.clip_unregister_watch(p_source) THEN
		RAISE EXCEPTION 'table % is not watched', p_source USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	PERFORM @extschema@.clip_drop_watch_triggers(p_source);
END
$function$;
COMMENT ON FUNCTION clip_unwatch(pg_catalog.regclass) IS
	'embeds the photos of a table no longer; what is embedded stays';

CREATE FUNCTION clip_drop_watch_triggers(source pg_catalog.regclass) RETURNS pg_catalog.void
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	event text;
BEGIN
	FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
		IF EXISTS (
			SELECT FROM pg_trigger
			WHERE tgrelid = clip_drop_watch_triggers.source AND tgname = 'clip_watch_' || event)
		THEN
			EXECUTE format('DROP TRIGGER %I ON %s', 'clip_watch_' || event, clip_drop_watch_triggers.source);
		END IF;
	END LOOP;
END
$function$;
COMMENT ON FUNCTION clip_drop_watch_triggers(pg_catalog.regclass) IS
	'drops the triggers that clip_watch made; called by clip_watch and clip_unwatch';

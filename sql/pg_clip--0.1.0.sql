\echo Use "CREATE EXTENSION pg_clip" to load this file. \quit

-- Every name below is written with its schema: what stands in the schemas of a search_path cannot stand in for it.
-- Names without one are created in the extension's own schema, which CREATE EXTENSION puts first.

-- Embedding. API: public.

-- STABLE: the model that clip.model names can change between statements, not within one.
-- The cost is that of an inference in units of cpu_operator_cost: the planner prefers an index scan, which calls the
-- function once, to a plan that might call it for each row.

CREATE FUNCTION clip_embed_text(query pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_text' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_text(pg_catalog.text) IS
	'embeds a text with the model that clip.model names; the vector has length 1';

CREATE FUNCTION clip_embed_image(image pg_catalog.bytea) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_image' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_image(pg_catalog.bytea) IS
	'embeds a JPEG, PNG, WebP, GIF or BMP image with the model that clip.model names; the vector has length 1';

CREATE FUNCTION clip_embed_texts(queries pg_catalog.text[]) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_texts' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_texts(pg_catalog.text[]) IS
	'embeds many texts in one round trip; keeps order, shape and NULLs';

CREATE FUNCTION clip_embed_images(images pg_catalog.bytea[]) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_images' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_images(pg_catalog.bytea[]) IS
	'embeds many images in one round trip; keeps order, shape and NULLs';

-- IMMUTABLE with a model by name: for generated columns and index expressions, which hold what a model once said.
-- Who replaces the files of an installed model by others has to rebuild them.

CREATE FUNCTION clip_embed_text(query pg_catalog.text, model pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_text(pg_catalog.text, pg_catalog.text) IS
	'embeds a text with the model of this name; the vector has length 1';

CREATE FUNCTION clip_embed_image(image pg_catalog.bytea, model pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_image' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_image(pg_catalog.bytea, pg_catalog.text) IS
	'embeds a JPEG, PNG, WebP, GIF or BMP image with the model of this name; the vector has length 1';

CREATE FUNCTION clip_embed_texts(queries pg_catalog.text[], model pg_catalog.text) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_texts' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_texts(pg_catalog.text[], pg_catalog.text) IS
	'embeds many texts with the model of this name in one round trip; keeps order, shape and NULLs';

CREATE FUNCTION clip_embed_images(images pg_catalog.bytea[], model pg_catalog.text) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_images' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_images(pg_catalog.bytea[], pg_catalog.text) IS
	'embeds many images with the model of this name in one round trip; keeps order, shape and NULLs';

-- A type of the same name that somebody left in our schema is not pgvector's.
DO $do$
BEGIN
	IF NOT EXISTS (
		SELECT FROM pg_catalog.pg_proc AS embed
		JOIN pg_catalog.pg_depend AS member ON member.objid OPERATOR(pg_catalog.=) embed.prorettype
		JOIN pg_catalog.pg_extension AS extension ON extension.oid OPERATOR(pg_catalog.=) member.refobjid
		WHERE embed.oid OPERATOR(pg_catalog.=) '@extschema@.clip_embed_text(pg_catalog.text)'::pg_catalog.regprocedure
			AND member.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
			AND member.deptype OPERATOR(pg_catalog.=) 'e'
			AND extension.extname OPERATOR(pg_catalog.=) 'vector')
	THEN
		RAISE EXCEPTION 'type "vector" in schema "@extschema@" is not the one of pgvector'
			USING ERRCODE = 'undefined_object', HINT = 'Drop it, or create pg_clip in another schema.';
	END IF;
END
$do$;

-- Search. API: public.

-- The labels' embeddings and the image's are compared by their dot product, over real[]: the operators of pgvector are
-- in a schema that is not known here. Both have length 1, so it is their cosine similarity.
-- 100 is the scale of CLIP's logits: trained models have reached the bound that Radford et al. (2021), section 2.5, set.

CREATE FUNCTION clip_classify(
	image pg_catalog.bytea,
	labels pg_catalog.text[],
	template pg_catalog.text DEFAULT 'a photo of {}'
) RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 1000000 ROWS 10
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	p_labels CONSTANT text[] := clip_classify.labels;
	p_template CONSTANT text := clip_classify.template;
	captions text[];
	picture real[];
BEGIN
	IF EXISTS (SELECT FROM unnest(p_labels) AS given (label) WHERE given.label IS NULL) THEN
		RAISE EXCEPTION 'a label must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF strpos(p_template, '{}') = 0 THEN
		RAISE EXCEPTION 'template "%" has no place for the label', p_template
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write {} where the label goes, as in ''a photo of {}''.';
	END IF;
	IF cardinality(p_labels) = 0 THEN
		RETURN;
	END IF;
	captions := ARRAY(
		SELECT replace(p_template, '{}', given.label)
		FROM unnest(p_labels) WITH ORDINALITY AS given (label, place) ORDER BY given.place);
	picture := @extschema@.clip_embed_image(clip_classify.image)::real[];
	RETURN QUERY
		WITH logits AS (
			SELECT
				given.label,
				given.place,
				100 * (
					SELECT sum(pair.one::float8 * pair.other)
					FROM unnest(picture, given.embedding::real[]) AS pair (one, other)) AS logit
			-- In a SELECT of its own: the planner would call it to guess how many rows unnest() will return.
			FROM unnest(p_labels, (SELECT @extschema@.clip_embed_texts(captions)))
				WITH ORDINALITY AS given (label, embedding, place)
		), weights AS (
			-- The largest is taken off all of them, which changes no share and keeps exp() in its range.
			SELECT label, place, exp(logit - max(logit) OVER ()) AS weight FROM logits
		)
		SELECT label, weight / sum(weight) OVER () AS probability FROM weights ORDER BY weight DESC, place;
END
$function$;
COMMENT ON FUNCTION clip_classify(pg_catalog.bytea, pg_catalog.text[], pg_catalog.text) IS
	'which of the labels an image shows, the likeliest first, with probabilities that add up to 1; {} in the template stands for the label';

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

-- The queue of watches in async mode. API: private.

-- Written by the triggers and the queue worker, as the owner of this table: nobody else may write to it. Whoever could
-- attach a trigger to it would have it run as the owner. The owner of the database reads it, to dump it.
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
COMMENT ON COLUMN clip_queue.claimed IS 'whether the queue worker is at work on it';
COMMENT ON COLUMN clip_queue.suspect IS 'whether it is embedded alone, because it was in a batch that did not come back';
COMMENT ON COLUMN clip_queue.dead IS 'whether it is tried no more; clip_retry revives it';
SELECT pg_catalog.pg_extension_config_dump('clip_queue', '');
REVOKE ALL ON clip_queue FROM PUBLIC;
GRANT SELECT ON clip_queue TO pg_database_owner;

CREATE INDEX clip_queue_due ON clip_queue (run_at) WHERE NOT dead;
COMMENT ON INDEX clip_queue_due IS 'the order in which jobs are claimed';

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
COMMENT ON VIEW clip_failures IS 'photos that the queue could not embed, for who owns their table';
COMMENT ON COLUMN clip_failures.key IS 'the photo''s key as text';
COMMENT ON COLUMN clip_failures.retry_at IS 'when it is tried again; NULL where it is not';
COMMENT ON COLUMN clip_failures.dead IS 'whether it is tried no more, unless clip_retry is called or the photo changes';
GRANT SELECT ON clip_failures TO PUBLIC;

CREATE FUNCTION clip_retry(source pg_catalog.regclass DEFAULT NULL, key pg_catalog.text DEFAULT NULL)
	RETURNS pg_catalog.int8
	AS 'MODULE_PATHNAME', 'clip_retry' LANGUAGE C;
COMMENT ON FUNCTION clip_retry(pg_catalog.regclass, pg_catalog.text) IS
	'has photos of clip_failures embedded again: one, those of a table, or all of tables of the caller; returns how many';

-- The counts read the photos' table and the target with the rights of the caller, but no photo.
CREATE FUNCTION clip_count_photos() RETURNS TABLE (
	source pg_catalog.regclass, target pg_catalog.regclass, mode pg_catalog.text, model pg_catalog.text,
	photos pg_catalog.int8, embedded pg_catalog.int8, missing pg_catalog.int8, stale pg_catalog.int8
)
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	watch record;
BEGIN
	FOR watch IN
		SELECT w.*, s.relname IS NOT NULL AND t.relname IS NOT NULL AS is_there
		FROM @extschema@.clip_watches AS w
		LEFT JOIN pg_class AS s ON s.oid = w.source
		LEFT JOIN pg_class AS t ON t.oid = w.target
		WHERE s.oid IS NULL OR pg_has_role(s.relowner, 'USAGE')
	LOOP
		source := watch.source;
		target := watch.target;
		mode := watch.mode;
		model := watch.model;
		photos := NULL;
		embedded := NULL;
		missing := NULL;
		stale := NULL;
		BEGIN
			IF watch.is_there THEN
				EXECUTE format(
					'SELECT count(*), count(t.%2$I), count(*) - count(t.%2$I), '
						'count(*) FILTER (WHERE t.%3$I IS DISTINCT FROM $1 AND t.%2$I IS NOT NULL) '
					'FROM %4$s AS s LEFT JOIN %5$s AS t ON t.%2$I = s.%1$I WHERE s.%6$I IS NOT NULL',
					watch.key_column, watch.target_key_column, watch.model_column,
					watch.source, watch.target, watch.image_column)
					INTO photos, embedded, missing, stale USING watch.model;
			END IF;
		EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
			NULL;
		END;
		RETURN NEXT;
	END LOOP;
END
$function$;
COMMENT ON FUNCTION clip_count_photos() IS 'counts the photos of watched tables; read it through clip_coverage';

CREATE VIEW clip_coverage AS
	SELECT
		watch.source,
		watch.target,
		watch.mode,
		watch.model,
		watch.photos,
		watch.embedded,
		watch.missing,
		watch.stale,
		jobs.queued,
		jobs.failed,
		jobs.oldest_waiting
	FROM clip_count_photos() AS watch
	CROSS JOIN LATERAL (
		SELECT
			pg_catalog.count(*) FILTER (WHERE NOT job.dead) AS queued,
			pg_catalog.count(*) FILTER (WHERE job.dead) AS failed,
			pg_catalog.min(job.enqueued_at) FILTER (WHERE NOT job.dead) AS oldest_waiting
		FROM clip_queue AS job
		WHERE job.source OPERATOR(pg_catalog.=) watch.source::pg_catalog.oid
	) AS jobs;
COMMENT ON VIEW clip_coverage IS 'one row a watched table, for its owner: how many of its photos are embedded';
COMMENT ON COLUMN clip_coverage.model IS 'the model that made the vectors; NULL before there is one';
COMMENT ON COLUMN clip_coverage.photos IS 'rows with a photo; NULL, as the next three, where a table or a column is gone';
COMMENT ON COLUMN clip_coverage.embedded IS 'photos that have a vector, an outdated one included';
COMMENT ON COLUMN clip_coverage.missing IS 'photos that have none';
COMMENT ON COLUMN clip_coverage.stale IS 'photos whose vector is of another model';
COMMENT ON COLUMN clip_coverage.queued IS 'photos that wait to be embedded';
COMMENT ON COLUMN clip_coverage.failed IS 'photos that the queue has given up; clip_failures says why';
COMMENT ON COLUMN clip_coverage.oldest_waiting IS 'since when the oldest of the queued photos waits';
GRANT SELECT ON clip_coverage TO PUBLIC;

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

-- Monitoring.

-- API: private.
CREATE FUNCTION clip_embedder_status() RETURNS pg_catalog.text
	AS 'MODULE_PATHNAME', 'clip_embedder_status' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION clip_embedder_status() IS 'the status report of the embedder as JSON; read it through clip_status';

-- API: public.
CREATE VIEW clip_status AS
	SELECT
		report.state,
		report.error,
		report.pid,
		pg_catalog.to_timestamp(report.started_at) AS started_at,
		report.restarts,
		report.version,
		report.onnxruntime,
		report.execution_provider,
		report.threads,
		report.resident_bytes,
		report.sandbox,
		report.peak_resident_bytes,
		report.models,
		report.text_requests,
		report.text_cache_hits,
		report.text_inferences,
		report.image_requests,
		report.image_inferences,
		report.image_batches,
		report.failures
	FROM pg_catalog.jsonb_to_record(clip_embedder_status()::pg_catalog.jsonb) AS report (
		state pg_catalog.text,
		error pg_catalog.text,
		pid pg_catalog.int4,
		started_at pg_catalog.float8,
		restarts pg_catalog.int8,
		version pg_catalog.text,
		onnxruntime pg_catalog.text,
		execution_provider pg_catalog.text,
		threads pg_catalog.int4,
		resident_bytes pg_catalog.int8,
		sandbox pg_catalog.jsonb,
		peak_resident_bytes pg_catalog.int8,
		models pg_catalog.jsonb,
		text_requests pg_catalog.int8,
		text_cache_hits pg_catalog.int8,
		text_inferences pg_catalog.int8,
		image_requests pg_catalog.int8,
		image_inferences pg_catalog.int8,
		image_batches pg_catalog.int8,
		failures pg_catalog.int8
	);
COMMENT ON VIEW clip_status IS 'one row: the embedder, its models, and what it has done since it started';
GRANT SELECT ON clip_status TO PUBLIC;

-- API: public.
CREATE VIEW clip_stats AS
	SELECT
		stats.kind,
		stats.model,
		stats.priority,
		stats.requests,
		stats.answers,
		stats.errors,
		stats.abandoned,
		stats.cache_hits,
		stats.inferences,
		stats.batches,
		stats.image_bytes,
		stats.wait_p50_ms,
		stats.wait_p95_ms,
		stats.wait_p99_ms,
		stats.decode_p50_ms,
		stats.decode_p95_ms,
		stats.decode_p99_ms,
		stats.inference_p50_ms,
		stats.inference_p95_ms,
		stats.inference_p99_ms,
		stats.total_p50_ms,
		stats.total_p95_ms,
		stats.total_p99_ms,
		CASE WHEN stats.batches OPERATOR(pg_catalog.>) 0
			THEN stats.inferences::pg_catalog.float8 OPERATOR(pg_catalog./) stats.batches::pg_catalog.float8
		END AS mean_batch,
		stats.errors_by_sqlstate,
		stats.batch_sizes
	FROM pg_catalog.jsonb_to_recordset(clip_embedder_status()::pg_catalog.jsonb OPERATOR(pg_catalog.->) 'statistics') AS stats (
		kind pg_catalog.text,
		model pg_catalog.text,
		priority pg_catalog.text,
		requests pg_catalog.int8,
		answers pg_catalog.int8,
		errors pg_catalog.int8,
		abandoned pg_catalog.int8,
		cache_hits pg_catalog.int8,
		inferences pg_catalog.int8,
		batches pg_catalog.int8,
		image_bytes pg_catalog.int8,
		wait_p50_ms pg_catalog.float8,
		wait_p95_ms pg_catalog.float8,
		wait_p99_ms pg_catalog.float8,
		decode_p50_ms pg_catalog.float8,
		decode_p95_ms pg_catalog.float8,
		decode_p99_ms pg_catalog.float8,
		inference_p50_ms pg_catalog.float8,
		inference_p95_ms pg_catalog.float8,
		inference_p99_ms pg_catalog.float8,
		total_p50_ms pg_catalog.float8,
		total_p95_ms pg_catalog.float8,
		total_p99_ms pg_catalog.float8,
		errors_by_sqlstate pg_catalog.jsonb,
		batch_sizes pg_catalog.jsonb
	);
COMMENT ON VIEW clip_stats IS 'what the embedder has done since it started, by kind, model and priority; counters only grow, times are those of the last 5 to 10 minutes';
COMMENT ON COLUMN clip_stats.kind IS 'what was embedded: text or image';
COMMENT ON COLUMN clip_stats.model IS 'the model; NULL for requests that named no model that was used';
COMMENT ON COLUMN clip_stats.priority IS 'interactive, or bulk: images that stand back behind interactive ones';
COMMENT ON COLUMN clip_stats.requests IS 'requests taken on';
COMMENT ON COLUMN clip_stats.answers IS 'requests answered with an embedding';
COMMENT ON COLUMN clip_stats.errors IS 'requests answered with an error';
COMMENT ON COLUMN clip_stats.abandoned IS 'requests whose client was gone before the answer: cancelled, timed out, disconnected';
COMMENT ON COLUMN clip_stats.cache_hits IS 'texts answered from the cache, or together with an equal text, without an inference';
COMMENT ON COLUMN clip_stats.inferences IS 'inputs that went through the network';
COMMENT ON COLUMN clip_stats.batches IS 'runs of the network';
COMMENT ON COLUMN clip_stats.image_bytes IS 'bytes of the images that were decoded, or refused by a decoder';
COMMENT ON COLUMN clip_stats.wait_p50_ms IS 'milliseconds, median: waiting for a decoder and for the network, and for the model where it was being loaded';
COMMENT ON COLUMN clip_stats.wait_p95_ms IS 'milliseconds, 95th percentile: waiting for a decoder and for the network, and for the model where it was being loaded';
COMMENT ON COLUMN clip_stats.wait_p99_ms IS 'milliseconds, 99th percentile: waiting for a decoder and for the network, and for the model where it was being loaded';
COMMENT ON COLUMN clip_stats.decode_p50_ms IS 'milliseconds, median: decoding and scaling an image; NULL for texts';
COMMENT ON COLUMN clip_stats.decode_p95_ms IS 'milliseconds, 95th percentile: decoding and scaling an image; NULL for texts';
COMMENT ON COLUMN clip_stats.decode_p99_ms IS 'milliseconds, 99th percentile: decoding and scaling an image; NULL for texts';
COMMENT ON COLUMN clip_stats.inference_p50_ms IS 'milliseconds, median: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.inference_p95_ms IS 'milliseconds, 95th percentile: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.inference_p99_ms IS 'milliseconds, 99th percentile: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.total_p50_ms IS 'milliseconds, median: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.total_p95_ms IS 'milliseconds, 95th percentile: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.total_p99_ms IS 'milliseconds, 99th percentile: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.mean_batch IS 'inputs of a run of the network, on average';
COMMENT ON COLUMN clip_stats.errors_by_sqlstate IS 'errors by their SQLSTATE';
COMMENT ON COLUMN clip_stats.batch_sizes IS 'runs of the network by their number of inputs';
GRANT SELECT ON clip_stats TO PUBLIC;

-- Models.

-- API: public.
CREATE VIEW clip_models AS
	SELECT
		installed.name,
		loaded.fingerprint,
		loaded.dimensions,
		loaded.image_size,
		loaded.context_length,
		loaded.name IS NOT NULL AS loaded,
		installed.error,
		loaded.memory_bytes,
		loaded.unpadded_text,
		loaded.image_batch,
		loaded.text_batch,
		pg_catalog.to_timestamp(loaded.last_used_at) AS last_used_at
	FROM pg_catalog.jsonb_to_record(clip_embedder_status()::pg_catalog.jsonb) AS report (
		installed pg_catalog.jsonb,
		models pg_catalog.jsonb
	)
	CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(report.installed) AS installed (
		name pg_catalog.text,
		error pg_catalog.text
	)
	LEFT JOIN LATERAL pg_catalog.jsonb_to_recordset(report.models) AS loaded (
		name pg_catalog.text,
		fingerprint pg_catalog.text,
		dimensions pg_catalog.int4,
		image_size pg_catalog.int4,
		context_length pg_catalog.int4,
		memory_bytes pg_catalog.int8,
		unpadded_text pg_catalog.bool,
		image_batch pg_catalog.int4,
		text_batch pg_catalog.int4,
		last_used_at pg_catalog.float8
	) ON loaded.name OPERATOR(pg_catalog.=) installed.name;
COMMENT ON VIEW clip_models IS
	'one row for each installed model; what is known only once a model is loaded is NULL before';
GRANT SELECT ON clip_models TO PUBLIC;

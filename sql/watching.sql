-- Watching a table. API: private, but for clip_watch, clip_unwatch and clip_fill_image_embeddings.

-- A row says where the photos of a table are embedded to. Source and target have one owner, and all work on them is
-- done as that owner; clip_watch writes a row for a role that has the rights of that owner.
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
	model pg_catalog.text,
	by_reference pg_catalog.bool NOT NULL DEFAULT false CHECK (NOT by_reference OR mode OPERATOR(pg_catalog.=) 'async'),
	replicated pg_catalog.bool NOT NULL DEFAULT false CHECK (NOT replicated OR mode OPERATOR(pg_catalog.=) 'async')
);
COMMENT ON TABLE clip_watches IS 'the watched tables; written by clip_watch and clip_unwatch';
COMMENT ON COLUMN clip_watches.source IS 'the table with the photos';
COMMENT ON COLUMN clip_watches.target IS 'the table with their embeddings; a table takes those of one source';
COMMENT ON COLUMN clip_watches.mode IS 'sync: embedded in the transaction that writes the photo; async: by the queue after it';
COMMENT ON COLUMN clip_watches.image_column IS 'the column with the photos, or with their references';
COMMENT ON COLUMN clip_watches.by_reference IS 'whether the column says where a photo lies; then a feeder brings its bytes';
COMMENT ON COLUMN clip_watches.replicated IS 'whether what logical replication applies is embedded too';
COMMENT ON COLUMN clip_watches.project_column IS 'NULL where no project is carried over';
COMMENT ON COLUMN clip_watches.model IS 'the one model whose vectors the target holds; NULL before there is one';
SELECT pg_catalog.pg_extension_config_dump('clip_watches', '');

-- Only the extension's functions write to it: a role that may write to a table may also lock it against the triggers of
-- all others. All roles may read it: the owner of the database has to, for a dump, and the catalogs show any role as much
-- of any trigger.
GRANT SELECT ON clip_watches TO PUBLIC;

-- A dump holds no settings, and so not which model the database embeds with.
CREATE TABLE clip_database_model (
	is_only pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (is_only),
	model pg_catalog.text NOT NULL
);
COMMENT ON TABLE clip_database_model IS
	'the model that embeds where nothing sets clip.model; written by clip_watch and clip_migrate for the owner of the database';
COMMENT ON COLUMN clip_database_model.is_only IS 'keeps it to one row';
SELECT pg_catalog.pg_extension_config_dump('clip_database_model', '');
-- For pg_dump by the owner of the database.
GRANT SELECT ON clip_database_model TO pg_database_owner;

CREATE FUNCTION clip_fill_image_embeddings() RETURNS trigger
	AS 'MODULE_PATHNAME', 'clip_fill_image_embeddings' LANGUAGE C;
COMMENT ON FUNCTION clip_fill_image_embeddings() IS
	'trigger function that keeps the embeddings of a watched table; AFTER INSERT, UPDATE, DELETE or TRUNCATE, FOR EACH STATEMENT';

CREATE FUNCTION clip_watch(
	source pg_catalog.regclass,
	target pg_catalog.text DEFAULT 'image_embeddings',
	mode pg_catalog.text DEFAULT NULL,
	image_column pg_catalog.name DEFAULT 'image',
	key_column pg_catalog.name DEFAULT NULL,
	project_column pg_catalog.name DEFAULT NULL,
	target_key_column pg_catalog.name DEFAULT 'image_id',
	embedding_column pg_catalog.name DEFAULT 'embedding',
	checksum_column pg_catalog.name DEFAULT 'checksum',
	model_column pg_catalog.name DEFAULT 'model',
	target_project_column pg_catalog.name DEFAULT 'project',
	reference_column pg_catalog.name DEFAULT NULL,
	storage pg_catalog.text DEFAULT NULL,
	replicated pg_catalog.bool DEFAULT false
) RETURNS pg_catalog.regclass
	AS 'MODULE_PATHNAME', 'clip_watch' LANGUAGE C;
COMMENT ON FUNCTION clip_watch(
	pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.name,
	pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name,
	pg_catalog.text, pg_catalog.bool) IS
	'from now on embeds the photos of a table into another one, which it makes where it is missing; returns that one';

CREATE FUNCTION clip_unwatch(source pg_catalog.regclass) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_unwatch' LANGUAGE C;
COMMENT ON FUNCTION clip_unwatch(pg_catalog.regclass) IS
	'embeds the photos of a table no longer; what is embedded stays';

-- Partitions come and go. API: private.

CREATE FUNCTION clip_watch_partitions(event pg_catalog.text) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_watch_partitions' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION clip_watch_partitions(pg_catalog.text) IS
	'brings the triggers of partitions of watched tables to what they have to be; for clip_follow_partitions, and an error elsewhere';

CREATE FUNCTION clip_follow_partitions() RETURNS event_trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	-- The schema may have been renamed.
	own_schema CONSTANT name := (
		SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_clip');
	is_concerned bool;
BEGIN
	IF own_schema IS NOT NULL THEN
		EXECUTE format(
			'SELECT EXISTS (SELECT FROM %I.clip_watches JOIN pg_class ON pg_class.oid = source AND relkind = ''p'')', own_schema)
			INTO is_concerned;
	END IF;
	IF is_concerned THEN
		EXECUTE format('SELECT %I.clip_watch_partitions(%L::text)', own_schema, tg_event);
	END IF;
EXCEPTION WHEN OTHERS THEN
	RAISE WARNING 'pg_clip did not follow the partitions of watched tables: %', SQLERRM;
END
$function$;
COMMENT ON FUNCTION clip_follow_partitions() IS
	'event trigger function that gives the partitions of watched tables their triggers, and takes them away again';
REVOKE ALL ON FUNCTION clip_follow_partitions() FROM PUBLIC;

CREATE EVENT TRIGGER clip_partitions_altered ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
	EXECUTE FUNCTION clip_follow_partitions();
COMMENT ON EVENT TRIGGER clip_partitions_altered IS 'follows partitions that come, and those that are detached';
CREATE EVENT TRIGGER clip_partitions_dropped ON sql_drop WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED')
	EXECUTE FUNCTION clip_follow_partitions();
COMMENT ON EVENT TRIGGER clip_partitions_dropped IS 'follows partitions that are dropped';

-- Triggers that are fired for replication. API: private.

-- ENABLE TRIGGER alone makes any trigger one for local writes, and so does a restore of data with
-- --disable-triggers. Nothing is asked of the list of watches, which may be restored later. The library is not
-- called.
CREATE FUNCTION clip_keep_triggers_enabled() RETURNS event_trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	altered record;
BEGIN
	FOR altered IN
		SELECT tgrelid::regclass AS relation, string_agg(format('ENABLE %s TRIGGER %I', made.how, tgname), ', ') AS actions
		FROM (SELECT DISTINCT objid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass) AS command
		JOIN pg_trigger ON tgrelid = command.objid AND tgenabled = 'O'
		JOIN (VALUES
			('clip_watch_applied'::name, 'REPLICA'),
			('clip_watch_applied_truncate', 'REPLICA'),
			('clip_migration', 'ALWAYS'),
			('clip_migration_gap', 'ALWAYS')
		) AS made (name, how) ON made.name = tgname
		WHERE EXISTS (
			SELECT FROM pg_depend JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'pg_clip'
			WHERE classid = 'pg_proc'::regclass AND objid = tgfoid
				AND refclassid = 'pg_extension'::regclass AND deptype = 'e')
		GROUP BY tgrelid
	LOOP
		EXECUTE format('ALTER TABLE %s %s', altered.relation, altered.actions);
	END LOOP;
EXCEPTION WHEN OTHERS THEN
	RAISE WARNING 'pg_clip did not enable its triggers for replication: %', SQLERRM;
END
$function$;
COMMENT ON FUNCTION clip_keep_triggers_enabled() IS
	'event trigger function that has triggers of pg_clip fired for replication again, where ENABLE TRIGGER has them fired for local writes alone';
REVOKE ALL ON FUNCTION clip_keep_triggers_enabled() FROM PUBLIC;

CREATE EVENT TRIGGER clip_triggers_enabled ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
	EXECUTE FUNCTION clip_keep_triggers_enabled();
COMMENT ON EVENT TRIGGER clip_triggers_enabled IS 'keeps triggers of pg_clip enabled for replication';

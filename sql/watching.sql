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

CREATE FUNCTION clip_is_filled(target pg_catalog.regclass) RETURNS pg_catalog.bool
	AS 'MODULE_PATHNAME', 'clip_is_filled' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION clip_is_filled(pg_catalog.regclass) IS
	'whether a subscription fills a table of embeddings, so that its watch rests; read it through clip_coverage';

-- Partitions come and go. API: private.

-- In pg_catalog, where every role can call it: the event trigger runs as the role that gives the command, which need have no
-- right on the schema of the extension. It does nothing outside of an event trigger.
CREATE FUNCTION pg_catalog.clip_watch_partitions(event pg_catalog.text) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_watch_partitions' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION pg_catalog.clip_watch_partitions(pg_catalog.text) IS
	'brings the triggers of partitions of watched tables to what they have to be; for clip_follow_partitions, and an error elsewhere';

-- Only catalogs are asked whether a command concerns a watched table, and no subtransaction is begun for one that does not.
CREATE FUNCTION clip_follow_partitions() RETURNS event_trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	is_concerned bool;
BEGIN
	IF tg_event = 'sql_drop' THEN
		is_concerned := EXISTS (
			SELECT FROM pg_event_trigger_dropped_objects()
			WHERE object_type = 'trigger' AND 'clip_watch_delete' = ANY (address_names));
	ELSE
		is_concerned := EXISTS (
			SELECT FROM pg_event_trigger_ddl_commands() AS command
			JOIN pg_class AS class ON class.oid = command.objid AND (class.relispartition OR class.relkind = 'p')
			CROSS JOIN LATERAL pg_partition_ancestors(class.oid) AS whole
			JOIN pg_trigger ON tgrelid = whole.relid AND tgname = 'clip_watch_delete'
			JOIN pg_depend ON pg_depend.classid = 'pg_proc'::regclass AND pg_depend.objid = tgfoid
				AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
			JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'pg_clip'
			WHERE command.classid = 'pg_class'::regclass);
	END IF;
	IF is_concerned THEN
		BEGIN
			PERFORM clip_watch_partitions(tg_event);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'pg_clip did not follow the partitions of watched tables: %', SQLERRM;
		END;
	END IF;
END
$function$;
COMMENT ON FUNCTION clip_follow_partitions() IS
	'event trigger function that gives the partitions of watched tables their triggers, and takes them away again';
REVOKE ALL ON FUNCTION clip_follow_partitions() FROM PUBLIC;

CREATE EVENT TRIGGER clip_partitions_altered ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
	EXECUTE FUNCTION clip_follow_partitions();
COMMENT ON EVENT TRIGGER clip_partitions_altered IS 'follows partitions that come, and those that are detached';
-- Of every command: a table goes with a schema, a role, an extension, an access method.
CREATE EVENT TRIGGER clip_partitions_dropped ON sql_drop EXECUTE FUNCTION clip_follow_partitions();
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
		BEGIN
			EXECUTE format('ALTER TABLE %s %s', altered.relation, altered.actions);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'pg_clip did not enable its triggers for replication: %', SQLERRM;
		END;
	END LOOP;
END
$function$;
COMMENT ON FUNCTION clip_keep_triggers_enabled() IS
	'event trigger function that has triggers of pg_clip fired for replication again, where ENABLE TRIGGER has them fired for local writes alone';
REVOKE ALL ON FUNCTION clip_keep_triggers_enabled() FROM PUBLIC;

CREATE EVENT TRIGGER clip_triggers_enabled ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
	EXECUTE FUNCTION clip_keep_triggers_enabled();
COMMENT ON EVENT TRIGGER clip_triggers_enabled IS 'keeps triggers of pg_clip enabled for replication';

-- Tools that replicate commands, and restores of data, give them with session_replication_role = replica.
DO $do$
BEGIN
	ALTER EVENT TRIGGER clip_partitions_altered ENABLE ALWAYS;
	ALTER EVENT TRIGGER clip_partitions_dropped ENABLE ALWAYS;
	ALTER EVENT TRIGGER clip_triggers_enabled ENABLE ALWAYS;
END
$do$;

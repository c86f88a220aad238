-- Moving a target to another model while it stays searchable.

-- API: private.
CREATE FUNCTION clip_forget_next_embedding() RETURNS trigger
	LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
	RETURN jsonb_populate_record(NEW, '{"clip_next_embedding": null}');
END
$function$;
COMMENT ON FUNCTION clip_forget_next_embedding() IS
	'trigger function: a write to a row''s embedding takes away the one that clip_migrate made of the bytes before';

CREATE TABLE clip_migration_gaps (
	target pg_catalog.regclass NOT NULL,
	transaction pg_catalog.xid8 NOT NULL,
	PRIMARY KEY (target, transaction)
);
COMMENT ON TABLE clip_migration_gaps IS
	'transactions that wrote to a target that is being migrated, and left a row without a vector of the new model';
REVOKE ALL ON clip_migration_gaps FROM PUBLIC;

CREATE FUNCTION clip_note_gap() RETURNS trigger
	AS 'MODULE_PATHNAME', 'clip_note_gap' LANGUAGE C;
COMMENT ON FUNCTION clip_note_gap() IS
	'trigger function: writes down that a row has no vector of the new model, for clip_migrate to look for it';

CREATE FUNCTION clip_count_migrated(
	target pg_catalog.regclass, OUT done pg_catalog.int8, OUT total pg_catalog.int8
)
	AS 'MODULE_PATHNAME', 'clip_count_migrated' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_count_migrated(pg_catalog.regclass) IS
	'how many rows of a target have a vector of the new model; read it through clip_migrations';

-- API: public.
CREATE VIEW clip_migrations WITH (security_barrier) AS
	SELECT watch.target, watch.model AS from_model,
		pg_catalog.split_part(arguments.arguments, E'\\000', 2) AS to_model, progress.done, progress.total
	FROM clip_watches AS watch
	JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) watch.target::pg_catalog.oid
		AND (
			pg_catalog.pg_has_role(class.relowner, 'USAGE')
			OR pg_catalog.pg_has_role('pg_read_all_stats'::pg_catalog.name, 'USAGE'))
	JOIN pg_catalog.pg_trigger AS trigger ON trigger.tgrelid OPERATOR(pg_catalog.=) class.oid
		AND trigger.tgname OPERATOR(pg_catalog.=) 'clip_migration'::pg_catalog.name
		AND trigger.tgfoid OPERATOR(pg_catalog.=)
			'@extschema@.clip_forget_next_embedding()'::pg_catalog.regprocedure::pg_catalog.oid
	CROSS JOIN LATERAL pg_catalog.encode(trigger.tgargs, 'escape') AS arguments (arguments)
	CROSS JOIN LATERAL clip_count_migrated(watch.target) AS progress;
COMMENT ON VIEW clip_migrations IS 'the tables that are being moved to another model, for their owner and for members of pg_monitor';
COMMENT ON COLUMN clip_migrations.done IS 'rows with a vector of the new model; NULL, as the next, where a table cannot be read';
COMMENT ON COLUMN clip_migrations.total IS 'rows with a vector';
GRANT SELECT ON clip_migrations TO PUBLIC;

CREATE PROCEDURE clip_migrate(
	target pg_catalog.regclass, model pg_catalog.text, set_default pg_catalog.bool DEFAULT true,
	storage pg_catalog.text DEFAULT NULL
)
	AS 'MODULE_PATHNAME', 'clip_migrate' LANGUAGE C;
COMMENT ON PROCEDURE clip_migrate(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool, pg_catalog.text) IS
	'moves a target to another model, or its vectors to another type, while it stays searchable; goes on where an earlier call ended';

CREATE FUNCTION clip_abandon_migration(target pg_catalog.regclass) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_abandon_migration' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_abandon_migration(pg_catalog.regclass) IS
	'takes back what clip_migrate has prepared; the table stays with its model';

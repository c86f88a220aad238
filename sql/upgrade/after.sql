-- Objects that the release before has left, or let users make, and that this one does not have.
--
-- No function of the library is called here: on the way to a later release the library is that one's, and refuses
-- an extension of this version. No table of a user is read: it could have a policy of that user's. A WARNING names
-- each watch that does not fit the rules of this release: no photo is lost, the queue keeps them.

ALTER TABLE clip_backfill_notes DROP COLUMN looked_at, DROP COLUMN waiting;

DROP FUNCTION clip_watch(
	pg_catalog.regclass, pg_catalog.text, pg_catalog.text, pg_catalog.name, pg_catalog.name, pg_catalog.name,
	pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name, pg_catalog.name);
DROP FUNCTION clip_count_photos();
DROP FUNCTION clip_embedder_status();
DROP PROCEDURE clip_backfill(pg_catalog.regclass, pg_catalog.bool);
DROP PROCEDURE clip_migrate(pg_catalog.regclass, pg_catalog.text, pg_catalog.bool);
DROP FUNCTION
	clip_announce_migration, clip_await_transactions, clip_await_users, clip_begin_backfill, clip_check_left_over,
	clip_check_migration, clip_count_jobs, clip_drop_watch_triggers, clip_end_backfill, clip_enqueue_missing,
	clip_find_missing, clip_hold, clip_indexes_on, clip_let_go, clip_migrate_batch, clip_migration_of,
	clip_migration_progress, clip_model_dimensions, clip_model_identity, clip_note_backfill, clip_prepare_migration,
	clip_register_watch, clip_set_watch_model, clip_snapshot_holders, clip_switch_model, clip_unregister_watch, clip_wait,
	clip_wait_without_writers;

-- Partitions of watched tables have triggers of their own now.
DO $do$
DECLARE
	path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
	part record;
	made record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	FOR part IN
		SELECT tree.relid, watch.source, watch.key_column, member.relkind
		FROM @extschema@.clip_watches AS watch
		JOIN pg_class AS class ON class.oid = watch.source AND class.relkind = 'p'
		CROSS JOIN LATERAL pg_partition_tree(watch.source) AS tree
		JOIN pg_class AS member ON member.oid = tree.relid AND member.relkind IN ('r', 'p')
		WHERE tree.relid <> watch.source
			AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = tree.relid AND tgname = 'clip_watch_delete')
	LOOP
		FOR made IN
			SELECT * FROM (VALUES
				('insert', 'REFERENCING NEW TABLE AS new_rows'),
				('update', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'),
				('delete', 'REFERENCING OLD TABLE AS old_rows'),
				('truncate', '')
			) AS made (event, rows)
		LOOP
			EXECUTE format(
				'CREATE TRIGGER clip_watch_%1$s AFTER %1$s ON %2$s %3$s '
					'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings()',
				made.event, part.relid, made.rows);
		END LOOP;
		-- A MERGE that moves a row to another partition fires no statement trigger for it there.
		IF part.relkind = 'r' THEN
			FOR made IN
				SELECT * FROM (VALUES ('away', 'DELETE'), ('here', 'INSERT')) AS made (direction, event)
			LOOP
				EXECUTE format(
					'CREATE TRIGGER clip_watch_moved_%s AFTER %s ON %s '
						'FOR EACH ROW EXECUTE FUNCTION @extschema@.clip_fill_image_embeddings(%L)',
					made.direction, made.event, part.relid, 'moved_key=' || part.key_column);
			END LOOP;
		END IF;
		RAISE WARNING 'photos that were written to partition % by its own name have no embedding yet', part.relid
			USING HINT = format('CALL clip_backfill(%L)', part.source::text);
	END LOOP;
	PERFORM set_config('search_path', path, true);
END
$do$;

-- A migration's trigger keeps a second vector that is written together with the first one.
DO $do$
DECLARE
	path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
	migration record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	FOR migration IN
		SELECT watch.target, watch.embedding_column AS embedding, split_part(arguments, E'\\000', 1) AS model,
			split_part(arguments, E'\\000', 2) AS identity
		FROM @extschema@.clip_watches AS watch
		JOIN pg_trigger ON tgrelid = watch.target AND tgname = 'clip_migration'
			AND tgfoid = '@extschema@.clip_forget_next_embedding()'::regprocedure
		CROSS JOIN LATERAL encode(tgargs, 'escape') AS arguments
	LOOP
		EXECUTE format('DROP TRIGGER clip_migration ON %s', migration.target);
		EXECUTE format(
			'CREATE TRIGGER clip_migration BEFORE UPDATE OF %1$I ON %2$s FOR EACH ROW '
				'WHEN (record_image_ne(ROW(NEW.%1$I), ROW(OLD.%1$I)) '
				'AND record_image_eq(ROW(NEW.clip_next_embedding), ROW(OLD.clip_next_embedding))) '
				'EXECUTE FUNCTION @extschema@.clip_forget_next_embedding(%3$L, %4$L)',
			migration.embedding, migration.target, migration.model, migration.identity);
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER clip_migration', migration.target);
	END LOOP;
	PERFORM set_config('search_path', path, true);
END
$do$;

-- The model that counts where nothing sets clip.model is written down now: the one that is set for the database, or
-- else the one that made the vectors, if it is one.
DO $do$
DECLARE
	path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	INSERT INTO @extschema@.clip_database_model (model)
	SELECT coalesce(chosen.model, held.model)
	FROM (
		SELECT min(substr(entry, strpos(entry, '=') + 1)) AS model
		FROM pg_db_role_setting, unnest(setconfig) AS entry
		WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND lower(split_part(entry, '=', 1)) = 'clip.model'
	) AS chosen, (
		SELECT CASE WHEN min(name) = max(name) THEN min(name) END AS model
		FROM @extschema@.clip_watches AS watch
		CROSS JOIN LATERAL regexp_replace(watch.model, '@[^@]*$', '') AS name
		WHERE watch.model IS NOT NULL
	) AS held
	WHERE coalesce(chosen.model, held.model) IS NOT NULL;
	PERFORM set_config('search_path', path, true);
END
$do$;

-- Watches of the release before that clip_watch refuses now.
DO $do$
DECLARE
	path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
	watch record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	FOR watch IN
		SELECT w.*, source_class.relowner AS source_owner, target_class.relowner AS target_owner,
			key.attnum AS key_number, key.atttypid AS key_type, target_key.atttypid AS target_key_type,
			key.attcollation AS key_collation, target_key.attcollation AS target_key_collation,
			project.atttypid AS project_type, target_project.atttypid AS target_project_type,
			(SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
				WHERE attrelid = w.source AND attname IN (w.image_column, w.key_column, w.project_column)
					AND attnum > 0 AND attgenerated = 'v') AS virtual_columns
		FROM @extschema@.clip_watches AS w
		JOIN pg_class AS source_class ON source_class.oid = w.source
		JOIN pg_class AS target_class ON target_class.oid = w.target
		LEFT JOIN pg_attribute AS key ON key.attrelid = w.source AND key.attname = w.key_column
		LEFT JOIN pg_attribute AS target_key ON target_key.attrelid = w.target AND target_key.attname = w.target_key_column
		LEFT JOIN pg_attribute AS project ON project.attrelid = w.source AND project.attname = w.project_column
		LEFT JOIN pg_attribute AS target_project
			ON target_project.attrelid = w.target AND target_project.attname = w.target_project_column
	LOOP
		IF watch.source::oid = watch.target::oid THEN
			RAISE WARNING 'table % takes the embeddings of its own photos, which are not embedded any more', watch.source
				USING HINT = format(
					'SELECT clip_unwatch(%1$L), then SELECT clip_watch(%1$L, target => ''...'') with another table.',
					watch.source::text);
			CONTINUE;
		END IF;
		IF watch.source_owner <> watch.target_owner THEN
			RAISE WARNING 'table % and its target % have different owners: photos are not embedded until they have one',
					watch.source, watch.target
				USING HINT = format('ALTER TABLE %s OWNER TO %I', watch.target, pg_get_userbyid(watch.source_owner));
		END IF;
		IF watch.key_type <> watch.target_key_type THEN
			RAISE WARNING 'column "%" of table % is of type %, and column "%" of its target % of type %: photos are not embedded until they are of one',
					watch.key_column, watch.source, watch.key_type::regtype,
					watch.target_key_column, watch.target, watch.target_key_type::regtype
				USING HINT = format(
					'ALTER TABLE %s ALTER COLUMN %I TYPE %s', watch.target, watch.target_key_column, watch.key_type::regtype);
		END IF;
		IF watch.key_type = watch.target_key_type AND watch.key_collation <> watch.target_key_collation THEN
			RAISE WARNING 'column "%" of table % and column "%" of its target % differ in their collation: photos are not embedded until they are of one',
					watch.key_column, watch.source, watch.target_key_column, watch.target
				USING HINT = format(
					'ALTER TABLE %s ALTER COLUMN %I TYPE %s COLLATE %s', watch.target, watch.target_key_column,
					watch.key_type::regtype, watch.key_collation::regcollation);
		END IF;
		IF watch.project_type <> watch.target_project_type THEN
			RAISE WARNING 'column "%" of table % is of type %, and column "%" of its target % of type %: photos are not embedded until they are of one',
					watch.project_column, watch.source, watch.project_type::regtype,
					watch.target_project_column, watch.target, watch.target_project_type::regtype
				USING HINT = format(
					'ALTER TABLE %s ALTER COLUMN %I TYPE %s',
					watch.target, watch.target_project_column, watch.project_type::regtype);
		END IF;
		IF NOT EXISTS (
			SELECT FROM pg_index
			JOIN pg_opclass AS class ON class.oid = indclass[0]
			JOIN pg_amop AS equal ON equal.amopfamily = class.opcfamily AND equal.amopstrategy = 3
				AND equal.amoplefttype = class.opcintype AND equal.amoprighttype = class.opcintype
			WHERE indrelid = watch.source AND indkey[0] = watch.key_number AND indnkeyatts = 1
				AND indisunique AND indisvalid AND indpred IS NULL
				-- What is equal to the type is equal to the index, and the other way round.
				AND EXISTS (
					SELECT FROM pg_opclass AS own
					JOIN pg_amop ON amopfamily = own.opcfamily AND amopstrategy = 3 AND amopopr = equal.amopopr
					WHERE own.opcdefault AND own.opcmethod = class.opcmethod)
				AND (indcollation[0] = watch.key_collation
					OR (SELECT bool_and(collisdeterministic) FROM pg_collation
						WHERE pg_collation.oid IN (indcollation[0], watch.key_collation))))
		THEN
			RAISE WARNING 'column "%" of table % is not unique: photos are not embedded until it is',
					watch.key_column, watch.source
				USING HINT = format('ALTER TABLE %s ADD UNIQUE (%I)', watch.source, watch.key_column);
		END IF;
		IF watch.virtual_columns IS NOT NULL THEN
			RAISE WARNING 'columns % of table % are virtual generated columns: photos are not embedded until they are stored',
					watch.virtual_columns, watch.source
				USING HINT = 'Generate them STORED.';
		END IF;
	END LOOP;
	PERFORM set_config('search_path', path, true);
END
$do$;

-- The server may still run the library of an earlier release: it has the file that it loaded at its start. A later one
-- has all that this release names.
DO $do$
DECLARE
	library pg_catalog.text;
BEGIN
	BEGIN
		CREATE FUNCTION clip_library_version() RETURNS pg_catalog.text AS 'MODULE_PATHNAME', 'clip_library_version' LANGUAGE C;
		library := clip_library_version();
		DROP FUNCTION clip_library_version();
	EXCEPTION WHEN undefined_function THEN
		NULL;
	END;
	IF library IS NULL
		OR pg_catalog.string_to_array(library, '.')::pg_catalog.int4[]
			OPERATOR(pg_catalog.<) pg_catalog.string_to_array('@version@', '.')::pg_catalog.int4[]
	THEN
		RAISE EXCEPTION 'the library that the server has loaded is of version %, and this is the SQL of version @version@',
				COALESCE(library, '0.1.0')
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'Restart the server. If that does not help, install the library of version @version@.';
	END IF;
END
$do$;

\echo Use "CREATE EXTENSION pg_clip" to load this file. \quit

-- Every name below is written with its schema: no object in a schema of a search_path can stand in for it. Names
-- without one are created in the extension's own schema, which CREATE EXTENSION puts first.

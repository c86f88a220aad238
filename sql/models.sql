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
	FROM pg_catalog.jsonb_to_record(clip_embedder_status(true)::pg_catalog.jsonb) AS report (
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

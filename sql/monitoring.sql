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

-- Monitoring.

-- API: private.
CREATE FUNCTION clip_embedder_status(says_why pg_catalog.bool) RETURNS pg_catalog.text
	AS 'MODULE_PATHNAME', 'clip_embedder_status' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION clip_embedder_status(pg_catalog.bool) IS
	'the status report of the embedder as JSON, and a notice where there is none and the report has no place for the reason; read it through clip_status';

-- API: public.
CREATE VIEW clip_status AS
	SELECT
		report.state,
		coalesce(report.error, CASE WHEN report.library IS DISTINCT FROM extension.extversion THEN
			pg_catalog.format('the extension is of release %s and its library of %s: photos wait in the queue until they are'
				' the same (ALTER EXTENSION pg_clip UPDATE, or install the other release)', extension.extversion, report.library)
		END) AS error,
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
	FROM pg_catalog.jsonb_to_record(clip_embedder_status(false)::pg_catalog.jsonb) AS report (
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
		failures pg_catalog.int8,
		library pg_catalog.text
	)
	CROSS JOIN (SELECT extversion COLLATE pg_catalog."default" AS extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_clip') AS extension;
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
		stats.batch_sizes,
		stats.resize_p50_ms,
		stats.resize_p95_ms,
		stats.resize_p99_ms,
		stats.tokenize_p50_ms,
		stats.tokenize_p95_ms,
		stats.tokenize_p99_ms,
		stats.answer_p50_ms,
		stats.answer_p95_ms,
		stats.answer_p99_ms
	FROM pg_catalog.jsonb_to_recordset(clip_embedder_status(true)::pg_catalog.jsonb OPERATOR(pg_catalog.->) 'statistics') AS stats (
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
		resize_p50_ms pg_catalog.float8,
		resize_p95_ms pg_catalog.float8,
		resize_p99_ms pg_catalog.float8,
		tokenize_p50_ms pg_catalog.float8,
		tokenize_p95_ms pg_catalog.float8,
		tokenize_p99_ms pg_catalog.float8,
		inference_p50_ms pg_catalog.float8,
		inference_p95_ms pg_catalog.float8,
		inference_p99_ms pg_catalog.float8,
		answer_p50_ms pg_catalog.float8,
		answer_p95_ms pg_catalog.float8,
		answer_p99_ms pg_catalog.float8,
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
COMMENT ON COLUMN clip_stats.decode_p50_ms IS 'milliseconds, median: decoding an image; NULL for texts';
COMMENT ON COLUMN clip_stats.decode_p95_ms IS 'milliseconds, 95th percentile: decoding an image; NULL for texts';
COMMENT ON COLUMN clip_stats.decode_p99_ms IS 'milliseconds, 99th percentile: decoding an image; NULL for texts';
COMMENT ON COLUMN clip_stats.resize_p50_ms IS 'milliseconds, median: resizing a decoded image to what the network takes; NULL for texts';
COMMENT ON COLUMN clip_stats.resize_p95_ms IS 'milliseconds, 95th percentile: resizing a decoded image to what the network takes; NULL for texts';
COMMENT ON COLUMN clip_stats.resize_p99_ms IS 'milliseconds, 99th percentile: resizing a decoded image to what the network takes; NULL for texts';
COMMENT ON COLUMN clip_stats.tokenize_p50_ms IS 'milliseconds, median: making a text token ids; NULL for images';
COMMENT ON COLUMN clip_stats.tokenize_p95_ms IS 'milliseconds, 95th percentile: making a text token ids; NULL for images';
COMMENT ON COLUMN clip_stats.tokenize_p99_ms IS 'milliseconds, 99th percentile: making a text token ids; NULL for images';
COMMENT ON COLUMN clip_stats.inference_p50_ms IS 'milliseconds, median: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.inference_p95_ms IS 'milliseconds, 95th percentile: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.inference_p99_ms IS 'milliseconds, 99th percentile: the run of the network that a request was part of';
COMMENT ON COLUMN clip_stats.answer_p50_ms IS 'milliseconds, median: from an answer that is ready until it is written; the answers to one connection keep their order';
COMMENT ON COLUMN clip_stats.answer_p95_ms IS 'milliseconds, 95th percentile: from an answer that is ready until it is written; the answers to one connection keep their order';
COMMENT ON COLUMN clip_stats.answer_p99_ms IS 'milliseconds, 99th percentile: from an answer that is ready until it is written; the answers to one connection keep their order';
COMMENT ON COLUMN clip_stats.total_p50_ms IS 'milliseconds, median: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.total_p95_ms IS 'milliseconds, 95th percentile: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.total_p99_ms IS 'milliseconds, 99th percentile: the way from a request to its answer inside the embedder, errors included';
COMMENT ON COLUMN clip_stats.mean_batch IS 'inputs of a run of the network, on average';
COMMENT ON COLUMN clip_stats.errors_by_sqlstate IS 'errors by their SQLSTATE';
COMMENT ON COLUMN clip_stats.batch_sizes IS 'runs of the network by their number of inputs';
GRANT SELECT ON clip_stats TO PUBLIC;

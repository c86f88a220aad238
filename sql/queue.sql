-- The queue of watches in async mode. API: private.

-- Written by the triggers and the queue worker, as the owner of this table: nobody else has a right on it. Whoever
-- could attach a trigger to it would have it run as the owner.
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

CREATE INDEX clip_queue_due ON clip_queue (run_at) WHERE NOT dead;
COMMENT ON INDEX clip_queue_due IS 'the order in which jobs are claimed';

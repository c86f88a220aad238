-- Changes that the functions and views of this release need to find. A view that names a column keeps it from being
-- dropped until the view is replaced: that is left to the end.

-- How far calls were that ended with the last server.
DELETE FROM clip_backfill_notes;
ALTER TABLE clip_backfill_notes ADD COLUMN done pg_catalog.int8 NOT NULL, ADD COLUMN building pg_catalog.regclass;

ALTER TABLE clip_watches
	ADD COLUMN by_reference pg_catalog.bool NOT NULL DEFAULT false
	CHECK (NOT by_reference OR mode OPERATOR(pg_catalog.=) 'async'),
	ADD COLUMN replicated pg_catalog.bool NOT NULL DEFAULT false
	CHECK (NOT replicated OR mode OPERATOR(pg_catalog.=) 'async');

ALTER TABLE clip_queue
	ADD COLUMN slow pg_catalog.bool NOT NULL DEFAULT false,
	ADD COLUMN changed pg_catalog.bool NOT NULL DEFAULT true;
DROP INDEX clip_queue_due;

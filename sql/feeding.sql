-- Tables of references, whose photos a feeder brings: a program beside the server, pg_clip_feeder.

-- API: private, but for reading.

-- Roles are those of the cluster, and a dump of a database may be restored without them: it leaves these rows out.
CREATE TABLE clip_feeders (
	source pg_catalog.regclass NOT NULL REFERENCES clip_watches (source) ON DELETE CASCADE,
	feeder pg_catalog.regrole NOT NULL,
	PRIMARY KEY (source, feeder)
);
COMMENT ON TABLE clip_feeders IS 'the roles that may feed tables of references; written by clip_grant_feeder and clip_revoke_feeder';
COMMENT ON COLUMN clip_feeders.source IS 'a watched table with references';
COMMENT ON COLUMN clip_feeders.feeder IS 'a role that brings the bytes of its photos; it needs no other right on the table or its target';
GRANT SELECT ON clip_feeders TO PUBLIC;

-- API: public.

CREATE FUNCTION clip_grant_feeder(source pg_catalog.regclass, feeder pg_catalog.regrole) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_grant_feeder' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_grant_feeder(pg_catalog.regclass, pg_catalog.regrole) IS
	'lets a role bring the bytes of the photos that a watched table of yours refers to, and do nothing else with it';

CREATE FUNCTION clip_revoke_feeder(source pg_catalog.regclass, feeder pg_catalog.regrole) RETURNS pg_catalog.void
	AS 'MODULE_PATHNAME', 'clip_revoke_feeder' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_revoke_feeder(pg_catalog.regclass, pg_catalog.regrole) IS
	'takes back what clip_grant_feeder gave';

-- Called by pg_clip_feeder.

CREATE FUNCTION clip_claim_references(
	source pg_catalog.regclass, most pg_catalog.int4, lease pg_catalog.float8
) RETURNS TABLE (key pg_catalog.text, generation pg_catalog.text, reference pg_catalog.text)
	AS 'MODULE_PATHNAME', 'clip_claim_references' LANGUAGE C STRICT ROWS 16;
COMMENT ON FUNCTION clip_claim_references(pg_catalog.regclass, pg_catalog.int4, pg_catalog.float8) IS
	'claims photos of a table of references for so many seconds; for roles that clip_grant_feeder names';

CREATE FUNCTION clip_count_references(
	source pg_catalog.regclass, OUT waiting pg_catalog.int8, OUT max_image_bytes pg_catalog.int8
)
	AS 'MODULE_PATHNAME', 'clip_count_references' LANGUAGE C STRICT;
COMMENT ON FUNCTION clip_count_references(pg_catalog.regclass) IS
	'counts the photos of a table of references that are to be embedded, claimed ones included, and tells clip.max_image_bytes; for roles that clip_grant_feeder names';

CREATE PROCEDURE clip_feed(
	source pg_catalog.regclass,
	keys pg_catalog.text[],
	generations pg_catalog.text[],
	reference_list pg_catalog.text[],
	images pg_catalog.bytea[],
	reasons pg_catalog.text[],
	messages pg_catalog.text[],
	INOUT outcomes pg_catalog.text[] DEFAULT NULL
)
	AS 'MODULE_PATHNAME', 'clip_feed' LANGUAGE C;
COMMENT ON PROCEDURE clip_feed(
	pg_catalog.regclass, pg_catalog.text[], pg_catalog.text[], pg_catalog.text[], pg_catalog.bytea[], pg_catalog.text[],
	pg_catalog.text[], pg_catalog.text[]) IS
	'embeds the bytes of claimed photos, or writes down why there are none, and ends their jobs; for roles that clip_grant_feeder names';

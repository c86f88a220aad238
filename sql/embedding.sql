-- Embedding. API: public.

-- STABLE: the model that clip.model names can change between statements, not within one.
-- The cost is that of an inference in units of cpu_operator_cost: the planner prefers an index scan, which calls the
-- function once, to a plan that might call it for each row.

CREATE FUNCTION clip_embed_text(query pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_text' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_text(pg_catalog.text) IS
	'embeds a text with the model that clip.model names; the vector has length 1';

CREATE FUNCTION clip_embed_image(image pg_catalog.bytea) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_image' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_image(pg_catalog.bytea) IS
	'embeds a JPEG, PNG, WebP, GIF, HEIC, AVIF, TIFF or BMP image with the model that clip.model names; the vector has length 1';

CREATE FUNCTION clip_embed_texts(queries pg_catalog.text[]) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_texts' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_texts(pg_catalog.text[]) IS
	'embeds many texts in one round trip; keeps order, shape and NULLs';

CREATE FUNCTION clip_embed_images(images pg_catalog.bytea[]) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_images' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_images(pg_catalog.bytea[]) IS
	'embeds many images in one round trip; keeps order, shape and NULLs';

-- IMMUTABLE with a model by name: for generated columns and index expressions, which hold a model's earlier
-- vectors. An administrator that replaces the files of an installed model by others has to rebuild them.

CREATE FUNCTION clip_embed_text(query pg_catalog.text, model pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_text(pg_catalog.text, pg_catalog.text) IS
	'embeds a text with the model of this name; the vector has length 1';

CREATE FUNCTION clip_embed_image(image pg_catalog.bytea, model pg_catalog.text) RETURNS vector
	AS 'MODULE_PATHNAME', 'clip_embed_image' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_image(pg_catalog.bytea, pg_catalog.text) IS
	'embeds a JPEG, PNG, WebP, GIF, HEIC, AVIF, TIFF or BMP image with the model of this name; the vector has length 1';

CREATE FUNCTION clip_embed_texts(queries pg_catalog.text[], model pg_catalog.text) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_texts' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_texts(pg_catalog.text[], pg_catalog.text) IS
	'embeds many texts with the model of this name in one round trip; keeps order, shape and NULLs';

CREATE FUNCTION clip_embed_images(images pg_catalog.bytea[], model pg_catalog.text) RETURNS vector[]
	AS 'MODULE_PATHNAME', 'clip_embed_images' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION clip_embed_images(pg_catalog.bytea[], pg_catalog.text) IS
	'embeds many images with the model of this name in one round trip; keeps order, shape and NULLs';

-- For an application that keeps a photo's bytes elsewhere. STABLE: it looks into the target.

CREATE FUNCTION clip_embedding_row(
	image pg_catalog.bytea,
	target pg_catalog.regclass DEFAULT NULL,
	embedding_column pg_catalog.name DEFAULT 'embedding',
	checksum_column pg_catalog.name DEFAULT 'checksum',
	model_column pg_catalog.name DEFAULT 'model',
	OUT embedding vector,
	OUT checksum pg_catalog.bytea,
	OUT model pg_catalog.text
)
	AS 'MODULE_PATHNAME', 'clip_embedding_row' LANGUAGE C STABLE COST 1000000;
COMMENT ON FUNCTION clip_embedding_row(
	pg_catalog.bytea, pg_catalog.regclass, pg_catalog.name, pg_catalog.name, pg_catalog.name) IS
	'the vector, checksum and model that a watch would write for an image; copies the vector that the same bytes have in the target';

-- A type of the same name that another role left in our schema is not pgvector's.
DO $do$
BEGIN
	IF NOT EXISTS (
		SELECT FROM pg_catalog.pg_proc AS embed
		JOIN pg_catalog.pg_depend AS member ON member.objid OPERATOR(pg_catalog.=) embed.prorettype
		JOIN pg_catalog.pg_extension AS extension ON extension.oid OPERATOR(pg_catalog.=) member.refobjid
		WHERE embed.oid OPERATOR(pg_catalog.=) '@extschema@.clip_embed_text(pg_catalog.text)'::pg_catalog.regprocedure
			AND member.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
			AND member.deptype OPERATOR(pg_catalog.=) 'e'
			AND extension.extname OPERATOR(pg_catalog.=) 'vector')
	THEN
		RAISE EXCEPTION 'type "vector" in schema "@extschema@" is not the one of pgvector'
			USING ERRCODE = 'undefined_object', HINT = 'Drop it, or create pg_clip in another schema.';
	END IF;
END
$do$;

-- Search. API: public.

-- It names objects of PostgreSQL alone.
CREATE FUNCTION clip_captions(labels pg_catalog.text[], template pg_catalog.text)
	RETURNS pg_catalog.text[]
	LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
	IF EXISTS (SELECT FROM unnest(labels) AS given (label) WHERE given.label IS NULL) THEN
		RAISE EXCEPTION 'a label must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF strpos(template, '{}') = 0 THEN
		RAISE EXCEPTION 'template "%" has no place for the label', template
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write {} where the label goes, as in ''a photo of {}''.';
	END IF;
	RETURN ARRAY(
		SELECT replace(template, '{}', given.label)
		FROM unnest(labels) WITH ORDINALITY AS given (label, place) ORDER BY given.place);
END
$function$;
COMMENT ON FUNCTION clip_captions(pg_catalog.text[], pg_catalog.text) IS
	'the template with each of the labels, for clip_classify';
-- Its roles call it, whatever the default privileges are.
GRANT EXECUTE ON FUNCTION clip_captions(pg_catalog.text[], pg_catalog.text) TO PUBLIC;

-- The labels' embeddings and the image's are compared by their dot product, over real[]: the operators of pgvector are
-- in a schema that is not known here. Both have length 1, so it is their cosine similarity.
-- 100 is the scale of CLIP's logits: trained models have reached the bound that Radford et al. (2021), section 2.5, set.
-- The body is parsed here and now: it calls the functions of this extension whatever their schema is called later.
CREATE FUNCTION clip_classify(
	image pg_catalog.bytea,
	labels pg_catalog.text[],
	template pg_catalog.text DEFAULT 'a photo of {}'
) RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
	LANGUAGE sql STABLE STRICT PARALLEL SAFE COST 1000000 ROWS 10
	SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH captions AS MATERIALIZED (
		SELECT clip_captions(labels, template) AS texts
	), picture AS MATERIALIZED (
		-- The captions first: an error of theirs costs no inference.
		SELECT clip_embed_image(image)::pg_catalog.float4[] AS embedding
		FROM captions WHERE pg_catalog.cardinality(captions.texts) OPERATOR(pg_catalog.>) 0
	), logits AS (
		SELECT
			given.name,
			given.place,
			100::pg_catalog.float8 OPERATOR(pg_catalog.*) (
				SELECT pg_catalog.sum(pair.one::pg_catalog.float8 OPERATOR(pg_catalog.*) pair.other::pg_catalog.float8)
				FROM ROWS FROM (
					pg_catalog.unnest((SELECT picture.embedding FROM picture)),
					pg_catalog.unnest(given.embedding::pg_catalog.float4[])
				) AS pair (one, other)) AS logit
		-- In a SELECT of its own: the planner would call it to guess how many rows unnest() will return.
		FROM ROWS FROM (
			pg_catalog.unnest(labels),
			pg_catalog.unnest((SELECT clip_embed_texts(captions.texts) FROM captions))
		) WITH ORDINALITY AS given (name, embedding, place)
	), weights AS (
		-- The largest is taken off all of them, which changes no share and keeps exp() in its range.
		SELECT
			logits.name, logits.place,
			pg_catalog.exp(logits.logit OPERATOR(pg_catalog.-) pg_catalog.max(logits.logit) OVER ()) AS weight
		FROM logits
	)
	SELECT weights.name, weights.weight OPERATOR(pg_catalog./) pg_catalog.sum(weights.weight) OVER ()
	FROM weights ORDER BY weights.weight DESC, weights.place;
END;
COMMENT ON FUNCTION clip_classify(pg_catalog.bytea, pg_catalog.text[], pg_catalog.text) IS
	'which of the labels an image shows, the likeliest first, with probabilities that add up to 1; {} in the template stands for the label';

-- Search. API: public.

-- The labels' embeddings and the image's are compared by their dot product, over real[]: the operators of pgvector are
-- in a schema that is not known here. Both have length 1, so it is their cosine similarity.
-- 100 is the scale of CLIP's logits: trained models have reached the bound that Radford et al. (2021), section 2.5, set.

CREATE FUNCTION clip_classify(
	image pg_catalog.bytea,
	labels pg_catalog.text[],
	template pg_catalog.text DEFAULT 'a photo of {}'
) RETURNS TABLE (label pg_catalog.text, probability pg_catalog.float8)
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 1000000 ROWS 10
	SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
	p_labels CONSTANT text[] := clip_classify.labels;
	p_template CONSTANT text := clip_classify.template;
	captions text[];
	picture real[];
	-- Ours, wherever it was moved to.
	schema CONSTANT name := (
		SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_clip');
BEGIN
	IF EXISTS (SELECT FROM unnest(p_labels) AS given (label) WHERE given.label IS NULL) THEN
		RAISE EXCEPTION 'a label must not be NULL' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF strpos(p_template, '{}') = 0 THEN
		RAISE EXCEPTION 'template "%" has no place for the label', p_template
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write {} where the label goes, as in ''a photo of {}''.';
	END IF;
	IF cardinality(p_labels) = 0 THEN
		RETURN;
	END IF;
	captions := ARRAY(
		SELECT replace(p_template, '{}', given.label)
		FROM unnest(p_labels) WITH ORDINALITY AS given (label, place) ORDER BY given.place);
	EXECUTE format('SELECT %I.clip_embed_image($1)::real[]', schema) INTO picture USING clip_classify.image;
	RETURN QUERY EXECUTE format($query$
		WITH logits AS (
			SELECT
				given.label,
				given.place,
				100 * (
					SELECT sum(pair.one::float8 * pair.other)
					FROM unnest($1, given.embedding::real[]) AS pair (one, other)) AS logit
			-- In a SELECT of its own: the planner would call it to guess how many rows unnest() will return.
			FROM unnest($2, (SELECT %I.clip_embed_texts($3)))
				WITH ORDINALITY AS given (label, embedding, place)
		), weights AS (
			-- The largest is taken off all of them, which changes no share and keeps exp() in its range.
			SELECT label, place, exp(logit - max(logit) OVER ()) AS weight FROM logits
		)
		SELECT label, weight / sum(weight) OVER () AS probability FROM weights ORDER BY weight DESC, place
		$query$, schema) USING picture, p_labels, captions;
END
$function$;
COMMENT ON FUNCTION clip_classify(pg_catalog.bytea, pg_catalog.text[], pg_catalog.text) IS
	'which of the labels an image shows, the likeliest first, with probabilities that add up to 1; {} in the template stands for the label';

-- Photo search as an analyst does it in psql, without a right on the server's files.
-- Run in a folder of photos, with photos.tsv: for each a project, a file name and its bytes in hexadecimal digits.
--
--   psql -v words='a slice of pizza' -v photo=pizza.jpg -f photo-search.sql

CREATE TABLE customer_photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, file text, image bytea);
SELECT clip_watch('customer_photos');

\echo Many photos, and one of any size
\copy customer_photos (project, file, image) FROM 'photos.tsv'
\lo_import :photo
\set object :LASTOID
INSERT INTO customer_photos (project, file, image) VALUES ('uploads', :'photo', lo_get(:object));
\lo_unlink :object
SELECT project, count(*) FROM image_embeddings GROUP BY project ORDER BY project;

\echo By words: one statement, then one vector for several
SELECT file
FROM image_embeddings JOIN customer_photos ON customer_photos.id = image_id
ORDER BY embedding <=> clip_embed_text(:'words') LIMIT 3;

SELECT clip_embed_text(:'words') AS wanted \gset
SELECT DISTINCT ON (e.project) e.project, file
FROM image_embeddings AS e JOIN customer_photos ON customer_photos.id = image_id
ORDER BY e.project, embedding <=> :'wanted';

\echo By a photo on the disk
\set bytes `base64 -w0 < :'photo'`
SELECT file, round((1 - (embedding <=> clip_embed_image(decode(:'bytes', 'base64'))))::numeric, 2) AS similarity
FROM image_embeddings JOIN customer_photos ON customer_photos.id = image_id
ORDER BY embedding <=> clip_embed_image(decode(:'bytes', 'base64')) LIMIT 1;

\echo Labels
SELECT label FROM clip_classify(decode(:'bytes', 'base64'), ARRAY['dog', 'guitar', 'pizza']) LIMIT 1;

\echo For all connections to come, a search within a project goes on until it has enough
SELECT format('ALTER DATABASE %I SET hnsw.iterative_scan = relaxed_order', current_database()) \gexec
\connect
SHOW hnsw.iterative_scan;

\echo What the planner makes of it
SET enable_seqscan = off;
EXPLAIN (COSTS OFF)
SELECT image_id FROM image_embeddings WHERE project = 'kitchen' ORDER BY embedding <=> clip_embed_text(:'words') LIMIT 3;

\echo What is found, as a file
\copy (SELECT file FROM image_embeddings JOIN customer_photos ON customer_photos.id = image_id ORDER BY embedding <=> clip_embed_text('a guitar') LIMIT 2) TO 'found.csv' WITH (FORMAT csv, HEADER)

\echo A broken upload stores nothing
\set ON_ERROR_STOP off
INSERT INTO customer_photos (file, image) VALUES ('broken.jpg', '\xffd8ffe0');
\echo :SQLSTATE
SELECT count(*) FROM customer_photos WHERE file = 'broken.jpg';

-- CreateTable
CREATE TABLE "customer_photos" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "project" TEXT,
    "image" BYTEA,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "customer_photos_pkey" PRIMARY KEY ("id")
);

-- From here on by hand: the photos embed themselves into image_embeddings.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS pg_clip;
SELECT clip_watch('customer_photos');

-- A search within a project takes the index on project where that is small, and otherwise goes on until it has enough.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET hnsw.iterative_scan = relaxed_order', current_database());
    EXECUTE format('ALTER DATABASE %I SET hnsw.ef_search = 200', current_database());
END
$$;

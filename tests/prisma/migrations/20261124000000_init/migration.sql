-- CreateExtension
CREATE EXTENSION IF NOT EXISTS "vector";
CREATE EXTENSION IF NOT EXISTS "pg_clip";

-- CreateTable
CREATE TABLE "customer_photos" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "project" TEXT,
    "image" BYTEA,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "customer_photos_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "image_embeddings" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "image_id" UUID NOT NULL,
    "embedding" vector(512) NOT NULL,
    "checksum" BYTEA NOT NULL,
    "project" TEXT,
    "model" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(6) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "image_embeddings_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "image_embeddings_image_id_key" ON "image_embeddings"("image_id");

-- CreateIndex
CREATE INDEX "image_embeddings_checksum_idx" ON "image_embeddings"("checksum");

-- CreateIndex
CREATE INDEX "image_embeddings_project_idx" ON "image_embeddings"("project");

-- From here on by hand: what a Prisma schema has no words for.
CREATE INDEX "image_embeddings_embedding_idx" ON "image_embeddings" USING hnsw ("embedding" vector_cosine_ops);

-- A search within a project goes on until it has found enough.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET hnsw.iterative_scan = strict_order', current_database());
END
$$;

-- From now on the photos embed themselves.
SELECT clip_watch('customer_photos');

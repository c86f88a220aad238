import { defineConfig, env } from "prisma/config";

export default defineConfig({
  schema: "schema.prisma",
  migrations: { path: "migrations" },
  // Prisma Migrate would drop the HNSW index, which its schema has no words for, and the tables of the extension.
  experimental: { externalTables: true },
  tables: {
    external: [
      "public.image_embeddings",
      "public.clip_backfill_notes",
      "public.clip_database_model",
      "public.clip_feeders",
      "public.clip_indexes_to_build",
      "public.clip_migration_gaps",
      "public.clip_queue",
      "public.clip_queue_pauses",
      "public.clip_queue_rates",
      "public.clip_watches",
    ],
  },
  datasource: { url: env("DATABASE_URL") },
});

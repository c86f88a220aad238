import { defineConfig, env } from "prisma/config";

export default defineConfig({
  schema: "schema.prisma",
  migrations: { path: "migrations" },
  // Prisma Migrate would drop the HNSW index, which its schema has no words for.
  experimental: { externalTables: true },
  tables: { external: ["public.image_embeddings"] },
  datasource: { url: env("DATABASE_URL") },
});

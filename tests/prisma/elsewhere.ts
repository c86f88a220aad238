// Photos whose bytes lie elsewhere: in object storage, say, which the shop writes to itself.

import type { PrismaClient } from "./generated/client.ts";

/** Makes a photo searchable whose bytes are at hand, and are not stored in the database. */
export async function embedUpload(
  prisma: PrismaClient,
  id: string,
  image: Uint8Array,
  project: string | null = null,
): Promise<void> {
  await prisma.$executeRaw`
    INSERT INTO elsewhere_embeddings (image_id, project, embedding, checksum, model)
    SELECT ${id}::uuid, ${project}, photo.*
    FROM clip_embedding_row(${image}, 'elsewhere_embeddings') AS photo
    ON CONFLICT (image_id) DO UPDATE
    SET embedding = EXCLUDED.embedding, checksum = EXCLUDED.checksum, model = EXCLUDED.model`;
}

export interface FoundUpload {
  id: string;
  similarity: number;
}

export function searchUploads(prisma: PrismaClient, words: string, limit = 10): Promise<FoundUpload[]> {
  return prisma.$queryRaw<FoundUpload[]>`
    SELECT image_id AS id, 1 - distance AS similarity
    FROM (
      SELECT image_id, embedding <=> (SELECT clip_embed_text(${words})) AS distance
      FROM elsewhere_embeddings ORDER BY distance LIMIT ${limit}
    ) AS nearest
    ORDER BY distance`;
}

export interface StoredPhoto {
  storagePath: string;
  similarity: number;
}

/** Finds photos that a feeder has fetched. */
export function searchStored(prisma: PrismaClient, words: string, limit = 10): Promise<StoredPhoto[]> {
  return prisma.$queryRaw<StoredPhoto[]>`
    SELECT storage_path AS "storagePath", 1 - distance AS similarity
    FROM (
      SELECT image_id, embedding <=> (SELECT clip_embed_text(${words})) AS distance
      FROM stored_embeddings ORDER BY distance LIMIT ${limit}
    ) AS nearest JOIN stored_photos ON stored_photos.id = image_id
    ORDER BY distance`;
}

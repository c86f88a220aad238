// Photo search of a shop: customers upload photos, and find them by words or by another photo.

import { Prisma, type PrismaClient } from "./generated/client.ts";

export interface SearchOptions {
  /** How many photos at most. */
  limit?: number;
  /** The least cosine similarity; what is a good one differs between words and photos. */
  minSimilarity?: number;
  /** Only photos of this project. */
  project?: string;
}

export interface FoundPhoto {
  photoId: string;
  project: string | null;
  /** Cosine similarity, at most 1. */
  similarity: number;
}

/** An upload that is no photo, or one that is too large; `sqlState` tells which. */
export class RejectedPhoto extends Error {
  readonly sqlState: string;

  constructor(sqlState: string, message: string) {
    super(message);
    this.sqlState = sqlState;
  }
}

/** Stores a photo, which is found from now on, and returns its id. */
export async function insertPhoto(
  prisma: PrismaClient,
  image: Uint8Array<ArrayBuffer>,
  project?: string,
): Promise<string> {
  try {
    const photo = await prisma.customerPhoto.create({ data: { image, project }, select: { id: true } });
    return photo.id;
  } catch (error) {
    throw asRejectedPhoto(error);
  }
}

export function searchByText(
  prisma: PrismaClient,
  words: string,
  options: SearchOptions = {},
): Promise<FoundPhoto[]> {
  return nearestPhotos(prisma, Prisma.sql`(SELECT clip_embed_text(${words}))`, options);
}

export async function searchByImage(
  prisma: PrismaClient,
  image: Uint8Array,
  options: SearchOptions = {},
): Promise<FoundPhoto[]> {
  try {
    return await nearestPhotos(prisma, Prisma.sql`(SELECT clip_embed_image(${image}))`, options);
  } catch (error) {
    throw asRejectedPhoto(error);
  }
}

export interface FailedPhoto {
  photoId: string;
  sqlState: string;
  message: string;
}

/** The photos that a watch in async mode could not embed, and why; for the owner of their table. */
export function failedPhotos(prisma: PrismaClient): Promise<FailedPhoto[]> {
  return prisma.$queryRaw<FailedPhoto[]>`
    SELECT key AS "photoId", sqlstate AS "sqlState", message
    FROM clip_failures WHERE source = 'customer_photos'::regclass ORDER BY failed_at`;
}

/** How many photos wait to be embedded. */
export async function waitingPhotos(prisma: PrismaClient): Promise<number> {
  const [{ queued }] = await prisma.$queryRaw<{ queued: bigint }[]>`
    SELECT queued FROM clip_coverage WHERE source = 'customer_photos'::regclass`;
  return Number(queued);
}

function nearestPhotos(
  prisma: PrismaClient,
  wanted: Prisma.Sql,
  { limit = 10, minSimilarity = -1, project }: SearchOptions,
): Promise<FoundPhoto[]> {
  const inProject = project === undefined ? Prisma.empty : Prisma.sql`WHERE project = ${project}`;
  return prisma.$queryRaw<FoundPhoto[]>`
    SELECT image_id AS "photoId", project, 1 - distance AS similarity
    FROM (
      SELECT image_id, project, embedding <=> ${wanted} AS distance
      FROM image_embeddings ${inProject}
      ORDER BY distance LIMIT ${limit}
    ) AS nearest
    WHERE 1 - distance >= ${minSimilarity}
    ORDER BY distance + 0`;
}

/** SQLSTATEs about the upload: no pixels, no image or a broken one, a format that is refused, too large. */
const REJECTIONS = ["22023", "22P03", "0A000", "54000"];

/** What the database says against the upload, or the error itself where it is about something else. */
function asRejectedPhoto(error: unknown): unknown {
  if (error instanceof Prisma.PrismaClientKnownRequestError) {
    const adapterError = error.meta?.driverAdapterError as DriverAdapterError | undefined;
    const { originalCode = "", originalMessage = "" } = adapterError?.cause ?? {};
    if (REJECTIONS.includes(originalCode)) {
      return new RejectedPhoto(originalCode, originalMessage);
    }
  }
  return error;
}

/** The part of Prisma's P2010 (raw queries) and P2039 (models) that tells what the database said. */
interface DriverAdapterError {
  cause?: { originalCode?: string; originalMessage?: string };
}

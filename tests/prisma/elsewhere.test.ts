// Photos that lie elsewhere, against the database of DATABASE_URL, where a feeder has fetched those of STORED.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { PrismaPg } from "@prisma/adapter-pg";

import { embedUpload, searchStored, searchUploads } from "./elsewhere.ts";
import { PrismaClient } from "./generated/client.ts";

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = new PrismaClient({ adapter });
const photo = (path: string) => new Uint8Array(readFileSync(`${process.env.PHOTOS!}/${path}`));

before(async () => {
  await prisma.$executeRaw`CREATE TABLE elsewhere_embeddings (LIKE image_embeddings INCLUDING ALL)`;
});

after(() => prisma.$disconnect());

test("an upload whose bytes are stored elsewhere is found by words", async () => {
  const ids = new Map<string, string>();
  for (const file of ["pizza-1.jpg", "guitar-1.jpg", "bicycle-1.jpg"]) {
    ids.set(file, randomUUID());
    await embedUpload(prisma, ids.get(file)!, photo(file), "shop");
  }
  for (const thing of ["pizza", "guitar", "bicycle"]) {
    const [best] = await searchUploads(prisma, `a photo of a ${thing}`, 1);
    assert.equal(best.id, ids.get(`${thing}-1.jpg`));
  }
  // The same upload again, and other bytes under its id.
  await embedUpload(prisma, ids.get("pizza-1.jpg")!, photo("guitar-1.jpg"));
  const found = await searchUploads(prisma, "a photo of a guitar", 2);
  assert.deepEqual(found.map(({ id }) => id).sort(), [ids.get("pizza-1.jpg"), ids.get("guitar-1.jpg")].sort());
});

test("the same bytes are embedded once", async () => {
  const inferences = async () => {
    const [{ count }] = await prisma.$queryRaw<{ count: bigint }[]>`SELECT image_inferences AS count FROM clip_status`;
    return count;
  };
  const image = Uint8Array.from([...photo("violin-1.jpg"), ...new TextEncoder().encode(randomUUID())]);
  const start = await inferences();
  await embedUpload(prisma, randomUUID(), image);
  await embedUpload(prisma, randomUUID(), image);
  assert.equal((await inferences()) - start, 1n);
});

test("photos that a feeder has fetched are found by words", async () => {
  const stored = process.env.STORED!.split(" ");
  for (const file of stored) {
    const [best] = await searchStored(prisma, `a photo of a ${file.split("-")[0]}`, 1);
    assert.equal(best.storagePath, file);
  }
});

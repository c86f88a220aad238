// The shop against a database whose watch is in async mode: uploads do not wait, and what cannot be embedded is told later.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { PrismaPg } from "@prisma/adapter-pg";

import { PrismaClient } from "./generated/client.ts";
import { failedPhotos, insertPhoto, searchByImage, searchByText, waitingPhotos } from "./photo-search.ts";

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = new PrismaClient({ adapter });

const photo = (path: string) => new Uint8Array(readFileSync(`${process.env.PHOTOS!}/${path}`));

/** Waits until no photo waits. */
async function everyPhotoIsDone(): Promise<void> {
  const deadline = Date.now() + 60_000;
  while ((await waitingPhotos(prisma)) > 0) {
    assert.ok(Date.now() < deadline, "photos wait for a minute");
    await setTimeout(20);
  }
}

after(() => prisma.$disconnect());

test("an upload is found once it is embedded", async () => {
  const ids = await Promise.all(
    ["pizza-1.jpg", "guitar-1.jpg", "snail-1.jpg"].map((file) => insertPhoto(prisma, photo(file), "shop")),
  );
  await everyPhotoIsDone();
  assert.deepEqual(await failedPhotos(prisma), []);
  const [pizza] = await searchByText(prisma, "a photo of a pizza", { limit: 1 });
  assert.equal(pizza.photoId, ids[0]);
  const [guitar] = await searchByImage(prisma, photo("guitar-1.jpg"), { project: "shop", limit: 1 });
  assert.deepEqual({ ...guitar, similarity: Math.round(guitar.similarity) }, { photoId: ids[1], project: "shop", similarity: 1 });
});

test("an upload that is no photo is stored, told with its reason, and embedded once it is repaired", async () => {
  const broken = await insertPhoto(prisma, photo("dog-1.jpg").slice(0, 3000));
  const good = await insertPhoto(prisma, photo("dog-1.jpg"));
  await everyPhotoIsDone();
  const [failed, ...others] = await failedPhotos(prisma);
  assert.deepEqual([failed.photoId, failed.sqlState, others], [broken, "22P03", []]);
  assert.match(failed.message, /JPEG/);
  const embedded = await prisma.imageEmbedding.findMany({ where: { imageId: { in: [broken, good] } } });
  assert.deepEqual(embedded.map(({ imageId }) => imageId), [good]);

  // Nothing has changed, so that it fails again.
  const [{ retried }] = await prisma.$queryRaw<{ retried: bigint }[]>`
    SELECT clip_retry('customer_photos', ${broken}) AS retried`;
  assert.equal(retried, 1n);
  await everyPhotoIsDone();
  assert.equal((await failedPhotos(prisma)).length, 1);

  await prisma.customerPhoto.update({ where: { id: broken }, data: { image: photo("snake-1.png") } });
  await everyPhotoIsDone();
  assert.deepEqual(await failedPhotos(prisma), []);
  const [snake] = await searchByImage(prisma, photo("snake-1.png"), { limit: 1 });
  assert.equal(snake.photoId, broken);
});

test("a photo that is deleted before it is embedded leaves nothing", async () => {
  const before = await prisma.imageEmbedding.count();
  const id = await insertPhoto(prisma, photo("violin-1.jpg"));
  await prisma.customerPhoto.delete({ where: { id } });
  await everyPhotoIsDone();
  assert.equal(await prisma.imageEmbedding.count(), before);
});

test("a transaction that is rolled back leaves no photo to embed", async () => {
  const changedMind = new Error("changed mind");
  const transaction = prisma.$transaction(async (tx) => {
    await tx.customerPhoto.create({ data: { image: photo("violin-1.jpg") } });
    throw changedMind;
  });
  await assert.rejects(transaction, changedMind);
  assert.equal(await waitingPhotos(prisma), 0);
});

test("photos of before are embedded by a backfill", async () => {
  const data = ["taco-1.jpg", "sushi-1.webp"].map((file) => ({ image: photo(file) }));
  const [, [taco]] = await prisma.$transaction([
    prisma.$executeRaw`SET LOCAL clip.enabled = off`,
    prisma.customerPhoto.createManyAndReturn({ data, select: { id: true } }),
  ]);
  const missing = () => prisma.$queryRaw`SELECT missing::int FROM clip_coverage`;
  assert.deepEqual(await missing(), [{ missing: 2 }]);
  await prisma.$executeRaw`CALL clip_backfill('customer_photos')`;
  assert.deepEqual(await missing(), [{ missing: 0 }]);
  const [best] = await searchByImage(prisma, photo("taco-1.jpg"), { limit: 1 });
  assert.equal(best.photoId, taco.id);
});

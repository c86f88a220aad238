// The shop's photo search against the database of DATABASE_URL, which the migration has been applied to, with the
// photos of the folder PHOTOS.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { PrismaPg } from "@prisma/adapter-pg";

import { PrismaClient } from "./generated/client.ts";
import { insertPhoto, RejectedPhoto, searchByImage, searchByText } from "./photo-search.ts";

const folder = process.env.PHOTOS!;
const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = new PrismaClient({ adapter });

const photo = (path: string) => new Uint8Array(readFileSync(`${folder}/${path}`));
const text = (content: string) => new TextEncoder().encode(content);

/** The names of the photos by their ids. */
const names = new Map<string, string>();

before(async () => {
  const files = readdirSync(folder).filter((file) => /^(pizza|hamburger|sushi|taco|dog|guitar|bicycle)-/.test(file));
  assert.ok(files.length >= 14);
  for (const file of files) {
    const project = /^(dog|guitar|bicycle)-/.test(file) ? "street" : "kitchen";
    names.set(await insertPhoto(prisma, photo(file), project), file);
  }
});

after(() => prisma.$disconnect());

test("every photo has its embedding, made by the model that is set", async () => {
  const embeddings = await prisma.imageEmbedding.findMany({ orderBy: { imageId: "asc" } });
  assert.deepEqual(embeddings.map(({ imageId }) => imageId), [...names.keys()].sort());
  for (const { model } of embeddings) {
    assert.match(model, /^demo@[0-9a-f]{12}$/);
  }
});

test("words find photos", async () => {
  for (const thing of ["pizza", "guitar", "bicycle"]) {
    const [best] = await searchByText(prisma, `a photo of a ${thing}`, { limit: 1 });
    assert.match(names.get(best.photoId)!, new RegExp(`^${thing}-`));
  }
});

test("a photo finds others of the same thing", async () => {
  for (const query of ["pizza-1.jpg", "dog-1.jpg", "guitar-1.png", "bicycle-1.jpg"]) {
    const [best] = await searchByImage(prisma, photo(`queries/${query}`), { limit: 1 });
    assert.equal(names.get(best.photoId)!.split("-")[0], query.split("-")[0]);
  }
});

test("a photo finds itself with a similarity of 1", async () => {
  const [best] = await searchByImage(prisma, photo("sushi-1.webp"));
  assert.equal(names.get(best.photoId), "sushi-1.webp");
  assert.ok(Math.abs(best.similarity - 1) < 1e-6);
});

test("the nearest come first, and no more than the limit", async () => {
  const found = await searchByText(prisma, "food", { limit: 5 });
  assert.equal(found.length, 5);
  assert.deepEqual(found, found.toSorted((one, other) => other.similarity - one.similarity));
  assert.equal((await searchByText(prisma, "food")).length, 10);
});

test("a search within a project finds nothing of another", async () => {
  const found = await searchByText(prisma, "a slice of pizza", { project: "street" });
  const inStreet = [...names.values()].filter((file) => /^(dog|guitar|bicycle)-/.test(file));
  assert.equal(found.length, inStreet.length);
  assert.ok(found.every(({ project }) => project === "street"));
  assert.deepEqual(await searchByText(prisma, "a slice of pizza", { project: "it's; --" }), []);
});

test("a least similarity cuts off the rest", async () => {
  const all = await searchByText(prisma, "a guitar", { limit: 10 });
  const minSimilarity = all[2].similarity;
  assert.deepEqual(await searchByText(prisma, "a guitar", { limit: 10, minSimilarity }), all.slice(0, 3));
  assert.deepEqual(await searchByText(prisma, "a guitar", { minSimilarity: 1.01 }), []);
});

test("an upload that is no photo is rejected and leaves nothing", async () => {
  const uploads: [string, Uint8Array<ArrayBuffer>, string][] = [
    ["some text", text("<p>not a photo</p>"), "22P03"],
    ["half a JPEG", photo("pizza-1.jpg").slice(0, 3000), "22P03"],
    ["an SVG", text('<svg xmlns="http://www.w3.org/2000/svg"/>'), "0A000"],
    ["nothing", new Uint8Array(), "22023"],
  ];
  for (const [what, upload, sqlState] of uploads) {
    const rejected = (error: unknown) => error instanceof RejectedPhoto && error.sqlState === sqlState;
    await assert.rejects(insertPhoto(prisma, upload), rejected, what);
    await assert.rejects(searchByImage(prisma, upload), rejected, what);
  }
  assert.equal(await prisma.customerPhoto.count(), names.size);
});

test("another error stays what it is", async () => {
  await assert.rejects(searchByText(prisma, "a dog", { limit: -1 }), { code: "P2010" });
});

test("uploads at the same time are all embedded", async () => {
  const image = photo("violin-1.jpg");
  const ids = await Promise.all(Array.from({ length: 20 }, () => insertPhoto(prisma, image, "concert")));
  assert.equal((await searchByImage(prisma, image, { project: "concert", limit: 30 })).length, 20);
  await prisma.customerPhoto.deleteMany({ where: { id: { in: ids } } });
});

test("createMany, update and delete of a model keep the embeddings right", async () => {
  const data = ["snail-1.jpg", "snake-1.png"].map((file) => ({ project: "garden", image: photo(file) }));
  const [snail, snake] = await prisma.customerPhoto.createManyAndReturn({ data, select: { id: true } });
  const ids = async () => {
    const found = await searchByImage(prisma, photo("snail-1.jpg"), { project: "garden", minSimilarity: 0.999 });
    return found.map(({ photoId }) => photoId);
  };
  assert.deepEqual(await ids(), [snail.id]);
  await prisma.customerPhoto.update({ where: { id: snake.id }, data: { image: photo("snail-1.jpg") } });
  assert.deepEqual((await ids()).sort(), [snail.id, snake.id].sort());
  await prisma.customerPhoto.update({ where: { id: snail.id }, data: { project: "attic" } });
  assert.deepEqual(await ids(), [snake.id]);
  await prisma.customerPhoto.deleteMany({ where: { id: { in: [snail.id, snake.id] } } });
  assert.deepEqual(await ids(), []);
});

test("a transaction that is rolled back leaves no embedding", async () => {
  const changedMind = new Error("changed mind");
  const transaction = prisma.$transaction(async (tx) => {
    await tx.customerPhoto.create({ data: { image: photo("violin-1.jpg") } });
    throw changedMind;
  });
  await assert.rejects(transaction, changedMind);
  assert.equal(await prisma.imageEmbedding.count(), names.size);
});

// Stores a photo and searches by words: npx tsx shop.ts pizza.jpg "a slice of pizza"

import { readFileSync } from "node:fs";

import { PrismaPg } from "@prisma/adapter-pg";

import { PrismaClient } from "./generated/client.ts";

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = new PrismaClient({ adapter });
const [file, words] = process.argv.slice(2);

// A photo is stored as any other row, and embeds itself.
const image = new Uint8Array(readFileSync(file));
await prisma.customerPhoto.create({ data: { image, project: "kitchen" } });

// The words are a parameter. A search by a picture is the same with clip_embed_image(${image}).
const found = await prisma.$queryRaw`
  SELECT image_id AS "photoId", 1 - distance AS similarity
  FROM (
    SELECT image_id, embedding <=> (SELECT clip_embed_text(${words})) AS distance
    FROM image_embeddings WHERE project = 'kitchen'
    ORDER BY distance LIMIT 10
  ) AS nearest
  ORDER BY distance + 0`;
console.log(found);
await prisma.$disconnect();

// Photo search over the tables that `cargo xtask demo` makes. Each search is one query; its words, picture and project
// are parameters. Connects as psql does: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD. Listens on this machine only.

import { fileURLToPath } from "node:url";

import express from "express";
import pg from "pg";

const MOST_PHOTOS = 24;
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const pool = new pg.Pool({ statement_timeout: 20_000, options: "-c hnsw.iterative_scan=relaxed_order" });
pool.on("error", (error) => console.error(`a connection is lost: ${error.message}`));

async function rows(query, parameters = []) {
  return (await pool.query(query, parameters)).rows;
}

/** The photos nearest to an embedding, which is an SQL expression of the parameter `$1`. */
function nearest(embedding, parameter, project) {
  return rows(
    `SELECT photo.id, file_name AS name, photo.project, 1 - distance AS similarity
     FROM (
       SELECT image_id, embedding <=> (SELECT ${embedding}) AS distance
       FROM image_embeddings WHERE $2::text IS NULL OR project = $2
       ORDER BY distance LIMIT $3
     ) AS nearest JOIN customer_photos AS photo ON photo.id = image_id
     ORDER BY distance + 0`,
    [parameter, project, MOST_PHOTOS],
  );
}

function newest(project) {
  return rows(
    `SELECT id, file_name AS name, project FROM customer_photos
     WHERE image IS NOT NULL AND ($1::text IS NULL OR project = $1) ORDER BY id DESC LIMIT $2`,
    [project, MOST_PHOTOS],
  );
}

/** What a browser may show; other bytes have no type. */
function mediaType(bytes) {
  if (bytes.toString("latin1", 0, 2) === "\xff\xd8") return "image/jpeg";
  if (bytes.toString("latin1", 1, 4) === "PNG") return "image/png";
  return bytes.toString("latin1", 8, 12) === "WEBP" ? "image/webp" : "application/octet-stream";
}

const server = express();
server.disable("x-powered-by");
server.use((request, response, next) => {
  response.set({ "Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff" });
  next();
});
server.use(express.static(fileURLToPath(new URL("public", import.meta.url))));

server.get("/search", async ({ query }, response) => {
  const [words, like, project] = [query.words, query.like, query.project].map((value) => value?.toString() || null);
  if (/^\d{1,18}$/.test(like)) {
    response.json(await nearest("embedding FROM image_embeddings WHERE image_id = $1", like, project));
  } else {
    response.json(await (words ? nearest("clip_embed_text($1)", words, project) : newest(project)));
  }
});

server.post("/search", express.raw({ type: () => true, limit: "32mb" }), async ({ body, query }, response) => {
  response.json(await nearest("clip_embed_image($1)", body ?? Buffer.alloc(0), query.project?.toString() || null));
});

server.get("/projects", async (request, response) => {
  const found = await rows("SELECT DISTINCT project FROM customer_photos WHERE project IS NOT NULL ORDER BY project");
  response.json(found.map(({ project }) => project));
});

server.get("/photos/:id", async ({ params: { id } }, response, next) => {
  if (!/^\d{1,18}$/.test(id)) return next();
  const [photo] = await rows("SELECT image FROM customer_photos WHERE id = $1 AND image IS NOT NULL", [id]);
  if (!photo) return next();
  response.set("Cache-Control", "private, max-age=3600").type(mediaType(photo.image)).send(photo.image);
});

server.use((request, response) => response.status(404).json({ message: "There is nothing at this address." }));

/** What is wrong with a picture or words is told as the database says it; other errors are told to the log. */
server.use((error, request, response, next) => {
  if (/^(22|0A|54)/.test(error.code)) {
    response.status(422).json({ message: error.message, hint: error.hint });
  } else if (error.status === 413) {
    response.status(413).json({ message: `The file has more than ${error.limit / 2 ** 20} MB.` });
  } else if (error.status < 500) {
    response.status(error.status).json({ message: error.message });
  } else {
    console.error(error);
    response.status(503).json({ message: "The search does not work at the moment.", hint: "The server's log says why." });
  }
});

const listener = server.listen(Number(process.env.PORT ?? 8017), "127.0.0.1", (error) => {
  if (error) process.exit(console.error(error.message) ?? 1);
  console.log(`The gallery: http://127.0.0.1:${listener.address().port}/`);
});

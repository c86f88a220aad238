// Prisma Migrate beside pg_clip: it leaves alone what the extension and its watch have made.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import type { SchemaEngine } from "@prisma/schema-engine-wasm";
import pg from "pg";

import config from "./prisma.config.ts";
import { droppedShadowDatabases, migrations, startEngine } from "./schema-engine.ts";

const schema = readFileSync(new URL("schema.prisma", import.meta.url), "utf8");
const files = (content = schema) => ({ files: [{ path: "schema.prisma", content }] });
const filters = { externalTables: config.tables!.external!, externalEnums: [] };
const none = { externalTables: [], externalEnums: [] };

const database = new pg.Client();
let engine: SchemaEngine;

before(async () => {
  await database.connect();
  engine = await startEngine(schema);
});

after(() => database.end());

/** What `prisma migrate dev --create-only` writes; null where there is nothing to migrate. */
async function nextMigration(content = schema, filter = filters): Promise<string | null> {
  const { migrationScript } = await engine.createMigration({
    draft: false,
    migrationName: "next",
    migrationsList: migrations(),
    schema: files(content),
    filters: filter,
  });
  return migrationScript;
}

test("`prisma migrate deploy` sets the watch up", async () => {
  const { appliedMigrationNames } = await engine.applyMigrations({ migrationsList: migrations(), filters });
  assert.deepEqual(appliedMigrationNames, ["20261124000000_init"]);
  const { rows } = await database.query("SELECT source::text, target::text, mode FROM clip_watches");
  assert.deepEqual(rows, [{ source: "customer_photos", target: "image_embeddings", mode: "sync" }]);
});

test("`prisma migrate dev` finds nothing to migrate", async () => {
  const { action } = await engine.devDiagnostic({ migrationsList: migrations(), filters });
  assert.deepEqual(action, { tag: "createMigration" });
  assert.equal(await nextMigration(), null);
});

test("`prisma migrate diff` and `prisma migrate status` find no drift", async () => {
  const from = { tag: "migrations", ...migrations() } as const;
  const to = { tag: "schemaDatamodel", ...files() } as const;
  const difference = await engine.diff({ from, to, script: true, exitCode: true, filters });
  assert.deepEqual([difference.exitCode, difference.stdout?.trim()], [0, "-- This is an empty migration."]);
  const status = await engine.diagnoseMigrationHistory({
    migrationsList: migrations(),
    optInToShadowDatabase: true,
    filters,
  });
  assert.deepEqual([status.history, status.failedMigrationNames, status.editedMigrationNames], [null, [], []]);
});

test("a change of the shop's own tables is migrated, and nothing else", async () => {
  const script = await nextMigration(schema.replace("  project   String?\n", "  project   String?\n  title     String?\n"));
  assert.equal(
    script?.replaceAll(/^--.*\n|\s+/gm, " ").trim(),
    'ALTER TABLE "customer_photos" ADD COLUMN "title" TEXT;',
  );
});

test("without `tables.external` it would drop the extension's tables, each of which is in the list", async () => {
  const script = await nextMigration(schema, none);
  const { rows } = await database.query(
    `SELECT relname FROM pg_depend JOIN pg_class ON pg_class.oid = objid
     WHERE classid = 'pg_class'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip')
       AND deptype = 'e' AND relkind = 'r'`,
  );
  assert.ok(rows.length > 4);
  for (const { relname } of rows) {
    assert.ok(script?.includes(`DROP TABLE "${relname}"`), relname);
    assert.ok(filters.externalTables.includes(`public.${relname}`), relname);
  }
  assert.match(script ?? "", /DROP INDEX "image_embeddings_embedding_idx"/);
});

test("shadow databases with the extension can be dropped, and none is left", async () => {
  assert.ok((await droppedShadowDatabases()) > 0);
  const { rows } = await database.query("SELECT datname FROM pg_database WHERE datname LIKE 'prisma%'");
  assert.deepEqual(rows, []);
});

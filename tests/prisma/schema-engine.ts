// Prisma's own schema engine, which `prisma migrate` runs: here in its build for WebAssembly, which npm brings whole.

import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

import { PrismaPg } from "@prisma/adapter-pg";
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from "@prisma/driver-adapter-utils";
import type { MigrationList, SchemaEngine } from "@prisma/schema-engine-wasm";
import * as bindings from "@prisma/schema-engine-wasm/schema_engine_bg";

/**
 * The database that libpq's environment variables name, as the native engine connects to it: PrismaPg cuts a script at each
 * semicolon, does not know the type "char" of catalogs, and drops a shadow database while it is connected to it.
 */
class Database extends PrismaPg {
  constructor(database = process.env.PGDATABASE) {
    super({ database });
  }

  override async connect() {
    const adapter = await super.connect();
    adapter.executeScript = async (script) => {
      await adapter.underlyingDriver().query(script);
    };
    return adapter;
  }

  override async connectToShadowDb() {
    const main = await this.connect();
    const name = `prisma_migrate_shadow_db_${randomUUID()}`;
    await main.executeScript(`CREATE DATABASE "${name}"`);
    const shadow = await new Database(name).connect();
    const close = shadow.dispose.bind(shadow);
    const drop = async () => {
      await close();
      await main.executeScript(`DROP DATABASE "${name}"`);
      await main.dispose();
    };
    shadow.dispose = () => {
      const dropped = drop();
      drops.push(dropped);
      return dropped;
    };
    return shadow;
  }
}

/** The engine does not wait for their ends. */
const drops: Promise<void>[] = [];

/** Waits until the shadow databases are dropped that the engine has done with; returns how many. */
export async function droppedShadowDatabases(): Promise<number> {
  return (await Promise.all(drops)).length;
}

export async function startEngine(schema: string): Promise<SchemaEngine> {
  await teachChar();
  const wasm = readFileSync(new URL("schema_engine_bg.wasm", import.meta.resolve("@prisma/schema-engine-wasm")));
  const { instance } = await WebAssembly.instantiate(wasm, { "./schema_engine_bg.js": bindings as never });
  const { __wbg_set_wasm, SchemaEngine } = bindings as never as {
    __wbg_set_wasm(exports: WebAssembly.Exports): void;
    SchemaEngine: typeof import("@prisma/schema-engine-wasm").SchemaEngine;
  };
  __wbg_set_wasm(instance.exports);
  (instance.exports.__wbindgen_start as () => void)();
  const adapter = bindMigrationAwareSqlAdapterFactory(new Database());
  return SchemaEngine.new({ datamodels: [["schema.prisma", schema]] }, () => {}, adapter);
}

/** Has PrismaPg read columns of type "char", of which catalogs are full. */
async function teachChar(): Promise<void> {
  const [CHAR, BPCHAR] = [18, 1042];
  const adapter = await new PrismaPg({}).connect();
  const queryable = Object.getPrototypeOf(Object.getPrototypeOf(adapter));
  const { performIO, queryRaw } = queryable;
  queryable.queryRaw = async function (query: unknown) {
    const places: number[] = [];
    const reader = Object.create(this);
    reader.performIO = async (query: unknown) => {
      const result = await performIO.call(this, query);
      for (const [place, field] of result.fields.entries()) {
        if (field.dataTypeID === CHAR) {
          places.push(place);
          field.dataTypeID = BPCHAR;
        }
      }
      return result;
    };
    const result = await queryRaw.call(reader, query);
    for (const place of places) {
      result.columnTypes[place] = ColumnTypeEnum.Character;
    }
    return result;
  };
  await adapter.dispose();
}

/** The shop's migrations, as the command line hands them to the engine. */
export function migrations(): MigrationList {
  const folder = new URL("migrations/", import.meta.url);
  const read = (path: string) => readFileSync(new URL(path, folder), "utf8");
  const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return {
    baseDir: folder.pathname,
    lockfile: { path: "migration_lock.toml", content: read("migration_lock.toml") },
    shadowDbInitScript: "",
    migrationDirectories: names.map(({ name }) => ({
      path: name,
      migrationFile: {
        path: "migration.sql",
        content: { tag: "ok", value: read(`${name}/migration.sql`) },
      },
    })),
  };
}

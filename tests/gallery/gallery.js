// The gallery's server as a process of its own, as `cargo xtask gallery` starts it.

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

/** Starts it; returns its address and what ends it. */
export async function start(environment = {}) {
  const server = spawn("node", ["server.js"], {
    cwd: process.env.GALLERY,
    env: { ...process.env, PORT: "0", ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log = [];
  createInterface({ input: server.stderr }).on("line", (line) => log.push(line));
  const ended = new Promise((resolve) => server.on("exit", resolve));
  for await (const line of createInterface({ input: server.stdout })) {
    const [address] = /http:\S+(?=\/)/.exec(line);
    const stop = () => (server.kill(), ended);
    return { address, stop, log: () => log.join("\n") };
  }
  throw new Error(`the server ends with ${await ended}: ${log.join("\n")}`);
}

/** A photo of the demo. */
export const photo = (name) => readFile(`${process.env.PHOTOS}/${name}`);

// The gallery's server, without a browser.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";

import { photo, start } from "./gallery.js";

let server;

before(async () => (server = await start()));
after(() => server.stop());

async function get(path) {
  const response = await fetch(server.address + path);
  return { status: response.status, headers: response.headers, answer: await response.json() };
}

async function post(body, query = "") {
  const response = await fetch(`${server.address}/search${query}`, { method: "POST", body });
  return { status: response.status, answer: await response.json() };
}

const names = (photos) => photos.map(({ name }) => name.replace(/-\d+\.\w+$/, ""));

test("words find the right photo first, most similar first", async () => {
  const { answer } = await get("/search?words=a%20slice%20of%20pizza");
  assert.equal(answer.length, 24);
  assert.deepEqual(names(answer.slice(0, 2)), ["pizza", "pizza"]);
  const similarities = answer.map(({ similarity }) => similarity);
  assert.deepEqual(similarities, similarities.toSorted((a, b) => b - a));
});

test("a picture that was never stored finds its like", async () => {
  const { answer } = await post(await photo("queries/bicycle-1.jpg"));
  assert.deepEqual(names(answer.slice(0, 2)), ["bicycle", "bicycle"]);
});

test("a photo of the gallery finds itself, and then its like", async () => {
  const { answer: [bus] } = await get("/search?words=a%20bus");
  const { answer: [same, next] } = await get(`/search?like=${bus.id}`);
  assert.deepEqual([same.id, same.similarity.toFixed(3)], [bus.id, "1.000"]);
  assert.deepEqual(names([bus, next]), ["bus", "bus"]);
});

test("a project keeps photos of other projects out", async () => {
  const { answer: projects } = await get("/projects");
  assert.deepEqual(projects, ["garden", "kitchen", "travel"]);
  for (const path of ["/search?", "/search?words=a%20snail&"]) {
    const { answer } = await get(`${path}project=garden`);
    assert.deepEqual([answer.length, new Set(answer.map(({ project }) => project))], [24, new Set(["garden"])]);
  }
  assert.deepEqual((await get("/search?words=a&project=garden'%20OR%20true%20--")).answer, []);
  assert.deepEqual((await post(await photo("queries/pizza-1.jpg"), "?project=nowhere")).answer, []);
});

test("without words it shows the newest photos", async () => {
  const { answer } = await get("/search?words=");
  assert.equal(answer.length, 24);
  assert.ok(answer.every(({ similarity }) => similarity === undefined));
});

test("photos have their types, and no browser takes them for a page", async () => {
  const { answer } = await get("/search?words=an%20animal");
  const types = { jpg: "image/jpeg", png: "image/png", webp: "image/webp" };
  const seen = new Set();
  for (const { id, name } of answer) {
    const { headers } = await fetch(`${server.address}/photos/${id}`);
    assert.equal(headers.get("content-type"), types[name.split(".")[1]]);
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.match(headers.get("content-security-policy"), /^default-src 'none'/);
    seen.add(headers.get("content-type"));
  }
  assert.equal(seen.size, 3);
});

test("a file that is no picture is refused as the database says it, with its hint", async () => {
  const text = await post("Dear diary, today I ate a pizza.");
  assert.equal(text.status, 422);
  assert.match(text.answer.message, /\w/);
  const whole = await photo("pizza-1.jpg");
  for (const [what, body, said] of [
    ["base64", whole.toString("base64"), /base64/],
    ["half a JPEG", whole.subarray(0, 3000), /JPEG/],
    ["an SVG", '<svg xmlns="http://www.w3.org/2000/svg"/>', /SVG/],
    ["nothing", "", /empty/],
  ]) {
    const { status, answer } = await post(body);
    assert.equal(status, 422, what);
    assert.match(answer.message, said, what);
  }
  assert.match((await post(whole.toString("base64"))).answer.hint, /Decode/);
});

test("a file that is too large is refused, also where it does not say how large it is", async () => {
  const large = Buffer.alloc(33 * 2 ** 20);
  const { status, answer } = await post(large);
  assert.deepEqual([status, answer.message], [413, "The file has more than 32 MB."]);
  const stream = new ReadableStream({ start: (parts) => (parts.enqueue(large), parts.close()) });
  const response = await fetch(`${server.address}/search`, { method: "POST", body: stream, duplex: "half" });
  assert.equal(response.status, 413);
});

test("a page that is missing or forbidden is an error", async () => {
  const other = ["/photos/0", "/photos/1;", "/photos/999999999999999999999", "/server.js", "/..%2fserver.js", "/.npmrc", "/package.json"];
  for (const path of other) {
    assert.equal((await get(path)).status, 404, path);
  }
  assert.equal((await fetch(`${server.address}/search`, { method: "DELETE" })).status, 404);
  assert.equal((await get("/search?words=%00")).status, 422);
  assert.equal((await get("/search?words=a&words=b&project=a&project=b")).status, 200);
  assert.equal((await get("/photos/%ff")).status, 400);
});

test("a client that goes away in the middle of an upload harms nothing", async () => {
  const { hostname, port } = new URL(server.address);
  const socket = connect(port, hostname);
  socket.write("POST /search HTTP/1.1\r\nHost: gallery\r\nContent-Length: 1000\r\n\r\nhalf");
  await new Promise((resolve) => socket.end(resolve));
  assert.equal((await get("/search?words=a%20dog")).status, 200);
});

test("errors that are not about the picture or the words tell nothing of the server", async () => {
  const lost = await start({ PGDATABASE: "nothing_of_this_name" });
  const response = await fetch(`${lost.address}/search?words=a`);
  assert.equal(response.status, 503);
  assert.doesNotMatch(await response.text(), /nothing_of_this_name|socket|node_modules/);
  await lost.stop();
  assert.match(lost.log(), /nothing_of_this_name/);
});

test("a port that is taken is said", async () => {
  const { port } = new URL(server.address);
  await assert.rejects(start({ PORT: port }), /EADDRINUSE/);
});

// The gallery's page in Chromium, as a person uses it.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";

import axe from "axe-core";
import { chromium } from "playwright-core";

import { photo, start } from "./gallery.js";

const DESKTOP = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };

let [server, profile, browser] = [];

before(async () => {
  server = await start();
  profile = await mkdtemp(`${tmpdir()}/gallery-`);
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    chromiumSandbox: process.getuid() !== 0,
    args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    viewport: DESKTOP,
    bypassCSP: false,
  });
  browser.setDefaultTimeout(60_000);
});

after(async () => {
  await browser?.close();
  await server?.stop();
  await rm(profile, { recursive: true, force: true });
});

/** A page of its own, which fails where the browser complains or asks anybody but the gallery. */
async function visit(size = DESKTOP, prepare = async () => {}) {
  const page = await browser.newPage();
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(server.address)) complaints.push(request.url());
  });
  await page.setViewportSize(size);
  await prepare(page);
  await page.goto(server.address);
  const shown = page.getByRole("list", { name: "Photos" }).getByRole("listitem");
  const names = () => shown.locator("img").evaluateAll((images) => images.map(({ alt }) => alt.replace(/-\d+\.\w+$/, "")));
  const status = (text) => page.getByRole("status").filter({ hasText: text }).waitFor();
  await shown.first().waitFor();
  return { page, shown, names, status, complaints };
}

async function drop(page, name, type, bytes) {
  const transfer = await page.evaluateHandle(
    ([name, type, base64]) => {
      const made = new DataTransfer();
      made.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], name, { type }));
      return made;
    },
    [name, type, Buffer.from(bytes).toString("base64")],
  );
  await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
  await page.getByText("Drop a picture to search with it").waitFor();
  await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
}

async function screenshot(page, name) {
  if (!process.env.SCREENSHOTS) return;
  await page.waitForFunction(() =>
    [...document.images].every((image) => image.complete || image.getBoundingClientRect().top > innerHeight),
  );
  await page.mouse.move(0, 0);
  await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.jpg`, type: "jpeg", quality: 82, animations: "disabled" });
}

for (const [width, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
  test(`words that are typed find the right photo first (${width})`, async () => {
    const { page, shown, names, status, complaints } = await visit(size);
    await status("The newest 24 photos");
    await page.keyboard.type("a slice of pizza");
    await page.keyboard.press("Enter");
    await status("24 photos for “a slice of pizza”");
    assert.deepEqual((await names()).slice(0, 2), ["pizza", "pizza"]);
    const [first, second] = await shown.getByRole("meter").evaluateAll((meters) => meters.map(({ value }) => value));
    assert.ok(first >= second && first > 0.2, `${first} ${second}`);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
    await screenshot(page, `words-${width}`);
    assert.deepEqual(complaints, []);
    await page.close();
  });
}

test("a picture that is dropped, picked or pasted is searched with, and words take its place", async () => {
  const { page, names, status, complaints } = await visit();
  const bicycle = await photo("queries/bicycle-1.jpg");
  await drop(page, "bicycle-1.jpg", "image/jpeg", bicycle);
  await status("24 photos like bicycle-1.jpg");
  assert.deepEqual((await names()).slice(0, 2), ["bicycle", "bicycle"]);
  await page.getByAltText("The picture that is searched with").waitFor();
  await screenshot(page, "picture-desktop");

  const guitar = { name: "guitar.png", mimeType: "image/png", buffer: await photo("queries/guitar-1.png") };
  await page.getByLabel("Search by a picture").setInputFiles(guitar);
  await status("24 photos like guitar.png");
  assert.equal((await names())[0], "guitar");

  await page.getByRole("searchbox").fill("a snail");
  await page.keyboard.press("Enter");
  await status("24 photos for “a snail”");
  assert.equal(await page.getByAltText("The picture that is searched with").isVisible(), false);
  assert.deepEqual(complaints, []);
  await page.close();
});

test("a project filters the found photos, and a photo finds its like within it", async () => {
  const { page, shown, names, status, complaints } = await visit(PHONE);
  await page.getByRole("radio", { name: "garden" }).check();
  await status("The newest 24 photos in garden");
  assert.deepEqual(new Set(await shown.locator(".project").allTextContents()), new Set(["garden"]));
  await page.getByRole("searchbox").fill("an insect");
  await page.keyboard.press("Enter");
  await status("for “an insect” in garden");
  const [first] = await names();
  await shown.first().getByRole("button").click();
  await status(`24 photos like ${first}`);
  assert.equal((await names())[0], first);
  assert.deepEqual(new Set(await shown.locator(".project").allTextContents()), new Set(["garden"]));
  await page.getByRole("radio", { name: "All projects" }).check();
  await page.getByRole("status").filter({ hasNotText: "garden" }).waitFor();
  assert.deepEqual(complaints, []);
  await page.close();
});

test("a file that is no picture is told with its hint, and the next search goes on", async () => {
  const { page, shown, names, status } = await visit(PHONE);
  await drop(page, "notes.txt", "text/plain", (await photo("pizza-1.jpg")).toString("base64"));
  const alert = page.getByRole("alert");
  await alert.filter({ hasText: "base64" }).waitFor();
  assert.match(await alert.innerText(), /Decode/);
  assert.equal(await shown.count(), 0);
  await screenshot(page, "error-phone");
  await page.getByRole("searchbox").fill("a bus");
  await page.keyboard.press("Enter");
  await status("24 photos for “a bus”");
  assert.equal((await names())[0], "bus");
  assert.equal(await alert.isVisible(), false);
  await page.close();
});

test("the keyboard reaches everything", async () => {
  const { page, status, names } = await visit();
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.title);
  assert.equal(await focused(), "words");
  const reached = [];
  for (let step = 0; step < 4; step += 1) {
    await page.keyboard.press("Tab");
    reached.push(await focused());
  }
  assert.deepEqual(reached.slice(0, 2), ["file", "project"]);
  assert.match(reached[2], /^More like /);
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await status(`24 photos like ${reached[2].slice("More like ".length)}`);
  assert.ok(reached[2].includes((await names())[0]));
  await page.close();
});

test("names and projects are shown as text", async () => {
  const markup = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>";
  const { page, shown } = await visit(DESKTOP, async (page) => {
    const json = (body) => (route) => route.fulfill({ json: body });
    await page.route("**/projects", json([markup]));
    await page.route("**/search*", json([{ id: "1\" onerror=\"document.title='hacked'", name: markup, project: markup, similarity: 0.5 }]));
  });
  await page.getByText(markup, { exact: true }).nth(2).waitFor();
  assert.equal(await shown.locator("img").getAttribute("alt"), markup);
  assert.equal(await page.title(), "Photo search");
  assert.equal(await page.locator("script").count(), 1);
  await page.close();
});

test("an answer that comes late does not take the place of a newer one", async () => {
  let release;
  const { page, names, status } = await visit(DESKTOP, (page) =>
    page.route("**/search?words=a+dog", async (route) => {
      await new Promise((resolve) => (release = resolve));
      await route.continue().catch(() => {});
    }),
  );
  const searchbox = page.getByRole("searchbox");
  await searchbox.fill("a dog");
  const asked = page.waitForRequest("**/search?words=a+dog");
  await searchbox.press("Enter");
  await asked;
  await searchbox.fill("a pizza");
  await searchbox.press("Enter");
  await status("for “a pizza”");
  release();
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  assert.equal((await names())[0], "pizza");
  await page.close();
});

for (const colorScheme of ["light", "dark"]) {
  test(`nothing hinders a screen reader or weak eyes (${colorScheme})`, async () => {
    const { page, status } = await visit(DESKTOP, (page) => page.emulateMedia({ colorScheme }));
    await page.getByRole("searchbox").fill("something to drink");
    await page.keyboard.press("Enter");
    await status("for “something to drink”");
    await screenshot(page, `words-desktop-${colorScheme}`);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => axe.run());
    const found = violations.map(({ id, nodes }) => [id, nodes[0].html]);
    assert.deepEqual(found, []);
    await page.close();
  });
}

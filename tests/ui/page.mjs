// The page in a real browser, beside a real sidecar: node page.mjs. tests/ui.rs starts it, and says in the environment
// where everything is. Each step is named when it has passed. With PICTURES=DIRECTORY the pictures of the documents are made.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { URL: ADDRESS, PROXY, ROUTES, EGRESS, ADMIN, SECRET, DIRECTORY, PICTURES, CHROMIUM } = process.env;
const proxy = new URL(PROXY);
const page_url = new URL(ADDRESS);

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-lcd-text", "--host-resolver-rules=MAP rebound.test 127.0.0.1"],
});
const context = await browser.newContext({ viewport: { width: 1120, height: 720 }, timezoneId: "UTC", locale: "en-GB" });
await context.grantPermissions(["clipboard-read", "clipboard-write"]);
context.setDefaultTimeout(15_000);
const page = await context.newPage();

// Everything that the page asks for, says or breaks, from its first moment on.
const asked = new Set();
const broken = [];
const answers = [];
page.on("request", (request) => asked.add(new URL(request.url()).origin));
page.on("pageerror", (error) => broken.push(String(error)));
page.on("console", (message) => {
  // Refusals that are asked for here are the browser's to note, and violations of the content policy are not among them.
  const isAnswer = /^Failed to load resource: .* a status of (403|409|422) /.test(message.text());
  if (message.type() === "error" && !isAnswer) broken.push(message.text());
});
page.on("response", (response) => {
  if (!response.url().includes("/events")) answers.push(response.text().catch(() => ""));
});

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    console.error(`failed: ${name}`);
    console.error(await page.locator("body").innerText().catch(() => ""));
    throw error;
  }
  console.log(`passed: ${name}`);
}

/// A request of the agent's through the proxy. Returns the answer's status.
function send(method, path) {
  const host = method === "CONNECT" ? path : path.split("/")[2];
  return new Promise((resolve, reject) => {
    const request = http.request({ host: proxy.hostname, port: proxy.port, method, path, headers: { host }, agent: false });
    request.on("connect", (answer) => resolve(answer.statusCode));
    request.on("response", (answer) => answer.resume().on("end", () => resolve(answer.statusCode)));
    request.on("error", reject);
    request.end();
  });
}

function write(routes) {
  writeFileSync(`${ROUTES}.next`, routes);
  renameSync(`${ROUTES}.next`, ROUTES);
}

const fresh = () => spawnSync(EGRESS, ["ui", "--admin", ADMIN], { encoding: "utf8" }).stdout.trim();
const rows = () => page.locator("#rows tr.one");
const first = () => rows().first();
const cards = () => page.locator("#hosts details");

await step("an address opens the page once, and the ticket is gone from it", async () => {
  await page.goto(ADDRESS);
  assert.equal(page.url(), page_url.origin + "/");
  await page.locator("#health", { hasText: "healthy" }).waitFor();
  const again = await (await browser.newContext()).newPage();
  const answer = await again.goto(ADDRESS);
  assert.equal(answer.status(), 403);
  assert.match(await again.locator("body").innerText(), /egress ui --admin/);
  await again.context().close();
  // The script cannot read what keeps the page open.
  assert.equal(await page.evaluate(() => document.cookie), "");
});

await step("requests come as they end", async () => {
  assert.equal(await send("GET", "http://api.test/v1/models"), 200);
  await page.locator("#rows", { hasText: "GET api.test:80/v1/models" }).waitFor();
  assert.equal(await send("CONNECT", "files.test:443"), 403);
  assert.equal(await send("POST", "http://new.test/v2/chat"), 403);
  assert.equal(await send("GET", "http://down.test/"), 502);
  await page.locator("#rows tr.failed", { hasText: "down.test" }).waitFor();
  assert.equal(await rows().count(), 4);
  await page.locator("#rate", { hasText: /^4 in 10 min: 2 denied, 1 failed$/ }).waitFor();
});

await step("a refusal says why, and what is known of it", async () => {
  await cards().filter({ hasText: "files.test:443" }).waitFor();
  const refused = cards().filter({ hasText: "files.test:443" });
  assert.match(await refused.innerText(), /host_not_allowed — no route names this host/);
  const row = rows().filter({ hasText: "files.test:443" });
  await row.getByRole("button").click();
  const details = page.locator("#rows tr.more");
  assert.match(await details.innerText(), /^why\s+no route names this host/);
  const id = /\bid\s+([0-9a-f]{16})\b/.exec(await details.innerText())[1];
  // The agent was told that number, and the operator looks for it.
  await page.locator("#search").fill(id);
  assert.equal(await rows().count(), 1);
  await page.locator("#search").fill("");
  await rows().filter({ hasText: "files.test:443" }).getByRole("button").click();
  assert.equal(await details.count(), 0);
});

await step("the filter and the search leave what is asked for", async () => {
  await page.getByLabel("denied").check();
  assert.equal(await rows().count(), 2);
  await page.locator("#search").fill("v2 post");
  assert.equal(await rows().count(), 1);
  assert.match(await first().innerText(), /host_not_allowed/);
  await page.locator("#search").fill("nothing like that");
  await page.locator("#nothing", { hasText: "No request is like that." }).waitFor();
  await page.locator("#search").fill("");
  await page.getByLabel("all", { exact: true }).check();
  assert.equal(await rows().count(), 4);
});

await step("routes have their counts, and those that nobody used are marked", async () => {
  const routes = page.locator("#route-rows tr");
  await routes.filter({ hasText: "api.test" }).locator("td:nth-child(3)", { hasText: "1" }).waitFor();
  assert.match(await routes.filter({ hasText: "spare.test" }).innerText(), /unused/);
  assert.doesNotMatch(await routes.filter({ hasText: "api.test" }).innerText(), /unused/);
  assert.match(await page.locator("#slot-rows").innerText(), /EGRESS_TOKEN_0\s+ok\s+no end/);
});

await step("what an agent chose is text and nothing else", async () => {
  // A raw angle bracket is refused by the proxy already.
  const hostile = "/&lt;img%20src=x%20onerror=alert(1)&gt;";
  await send("GET", `http://api.test${hostile}`);
  await page.locator("#rows tr.denied", { hasText: hostile }).waitFor();
  await cards().filter({ hasText: hostile }).waitFor();
  assert.equal(await page.locator("img, #rows script").count(), 0);
});

let copied;
await step("the suggested routes are copied, and pass the check", async () => {
  const card = cards().filter({ hasText: "new.test:80" });
  await card.getByRole("button", { name: "Copy the routes" }).click();
  await card.getByRole("button", { name: "Copied" }).waitFor();
  copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^# An agent asked for this/);
  const file = join(DIRECTORY, "copied.yaml");
  writeFileSync(file, copied);
  const check = spawnSync(EGRESS, ["check", file], { encoding: "utf8" });
  assert.equal(check.status, 0, check.stderr + check.stdout);
});

const before = readFileSync(ROUTES, "utf8");
await step("a reload shows the faults of a file, and changes nothing", async () => {
  write("routes: [{hots: a.test}]\n");
  await page.getByRole("button", { name: "Reload…" }).click();
  await page.locator("#change-text", { hasText: "hots" }).waitFor();
  assert.ok(await page.locator("#apply").isDisabled());
  await page.keyboard.press("Escape");
  assert.equal(await send("POST", "http://new.test/v2/chat"), 403);
});

await step("a reload shows the difference first, and applies what was shown alone", async () => {
  // As an operator would: the copied route, with where the test's upstream is.
  const upstream = /connect_to: '([^']+)'/.exec(before)[1];
  const added = copied
    .replace(/^.*?routes:\n/s, "")
    .replace(/^  /gm, "")
    .replace(/^- host: /gm, `- connect_to: '${upstream}'\n  host: `);
  write(before + added);
  await page.getByRole("button", { name: "Reload…" }).click();
  await page.locator("#change-text", { hasText: "opened:" }).waitFor();
  const told = await page.locator("#change-text").innerText();
  assert.match(told, /POST http:\/\/new\.test: \/v2\/chat alone\s+was denied\s+now allowed, nothing injected/);
  write(before);
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator("#change-text", { hasText: "changed since" }).waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  assert.equal(await send("POST", "http://new.test/v2/chat"), 403);

  write(before + added);
  await page.getByRole("button", { name: "Reload…" }).click();
  await page.locator("#change-text", { hasText: "opened:" }).waitFor();
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator("#change-head", { hasText: /^Reloaded$/ }).waitFor();
  await page.getByRole("button", { name: "Close" }).click();
  assert.equal(await send("POST", "http://new.test/v2/chat"), 200);
  await page.locator("#rows tr.allowed", { hasText: "/v2/chat" }).waitFor();
});

await step("everything is reached by the keyboard", async () => {
  await page.locator("h1").click();
  await page.keyboard.press("/");
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
  assert.equal(await focused(), "search");
  await page.keyboard.type("down.test");
  assert.equal(await rows().count(), 1);
  const seen = new Set();
  for (let tabs = 0; tabs < 3; tabs += 1) {
    await page.keyboard.press("Tab");
    seen.add(await focused());
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(ring, "none", await focused());
  }
  assert.ok(seen.has("hold"), [...seen].join());
  assert.ok(seen.has("GET down.test:80/"), [...seen].join());
  await first().getByRole("button").focus();
  await page.keyboard.press("Enter");
  await page.locator("#rows tr.more").waitFor();
  await page.keyboard.press("Enter");
  await page.keyboard.press("/");
  await page.keyboard.press("Escape");
  assert.ok((await rows().count()) > 4);
  await page.locator("#reload").focus();
  await page.keyboard.press("Enter");
  await page.locator("#change[open]").waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#change[open]").count(), 0);
});

await step("held still, the list does not move", async () => {
  const count = await rows().count();
  await page.locator("#hold").check();
  await send("GET", "http://api.test/v1/held");
  await page.locator("#shown-count", { hasText: "1 more came" }).waitFor();
  assert.equal(await rows().count(), count);
  await page.locator("#hold").uncheck();
  assert.equal(await rows().count(), count + 1);
});

await step("another name that leads here shows nothing", async () => {
  const other = await context.newPage();
  const answer = await other.goto(`http://rebound.test:${page_url.port}/`);
  assert.equal(answer.status(), 421);
  await other.close();
});

await step("another page of loopback reads nothing, frames nothing and presses no button", async () => {
  const reloads = async () => page.evaluate(async () => (await (await fetch("/status")).json()).counters.reloads);
  const before = await reloads();
  // As an agent's own server on another port would, in the browser that has the page open.
  const own = page_url.origin;
  const script = `
    const out = [];
    for (const path of ["/status", "/refusals", "/events?kept"]) {
      await fetch("${own}" + path, { credentials: "include" }).then((it) => out.push(it.status), () => out.push("failed"));
    }
    for (const path of ["/preview", "/reload?digest=x"]) {
      const answer = await fetch("${own}" + path, { method: "POST", mode: "no-cors", credentials: "include" }).catch(() => null);
      out.push(answer ? answer.type : "failed");
    }
    document.title = out.join();`;
  const server = http.createServer((request, response) => {
    response.setHeader("content-type", "text/html");
    response.end(`<iframe src="${own}/"></iframe><script type="module">${script}</script>`);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const other = await context.newPage();
  const statuses = [];
  other.on("response", (response) => response.url().startsWith(own) && statuses.push(response.status()));
  await other.goto(`http://127.0.0.1:${server.address().port}/`);
  await other.waitForFunction(() => document.title);
  assert.match(await other.title(), /^(failed,?){5}$/);
  assert.deepEqual([...new Set(statuses)], [403]);
  assert.equal(await other.frameLocator("iframe").locator("#health").count(), 0);
  assert.equal(await reloads(), before);
  await other.close();
  server.close();
});

await step("it is read on a phone, and in the dark", async () => {
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth);
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  assert.ok((await wide()) <= 1120);
  const light = await paper();
  await picture("page");
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await paper(), light);
  await picture("page-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 320, height: 640 });
  const beyond = await page.evaluate(() =>
    [...document.querySelectorAll("body *")].filter((it) => it.getBoundingClientRect().right > 320).map((it) => it.outerHTML.slice(0, 80)));
  assert.ok((await wide()) <= 320, `${await wide()} px: ${beyond.join("\n")}`);
  await picture("page-phone");
  await page.setViewportSize({ width: 1120, height: 720 });
});

await step("a closed page says how to open it, and goes on once it is", async () => {
  const kept = await context.cookies();
  await context.clearCookies();
  await page.reload();
  assert.match(await page.locator("body").innerText(), /egress ui --admin/);
  assert.equal(kept.length, 1);
  const { httpOnly, sameSite, path } = kept[0];
  assert.deepEqual({ httpOnly, sameSite, path }, { httpOnly: true, sameSite: "Strict", path: "/" });
  await page.goto(fresh());
  await page.locator("#rows", { hasText: "/v2/chat" }).first().waitFor();
});

await step("nothing was asked of anybody else, nothing broke, and no secret came", async () => {
  assert.deepEqual([...asked], [page_url.origin]);
  assert.deepEqual(broken, []);
  const texts = [...(await Promise.all(answers)), await page.content()];
  assert.ok(texts.length > 10 && texts.some((text) => text.includes("EGRESS_TOKEN_0")));
  assert.ok(texts.every((text) => !text.includes(SECRET)));
});

/// A picture for the documents, in few colours so that it stays small. Times differ each time, so it is made on demand.
async function picture(name) {
  if (!PICTURES) return;
  const path = join(PICTURES, `${name}.png`);
  // Nothing of the machine that it is made on.
  await page.locator("#about").evaluate((it) => { it.textContent = "0.1.0, up 3 h 12 min, /etc/egress/routes.yaml"; });
  await page.screenshot({ path, animations: "disabled" });
  const { status } = spawnSync("pngquant", ["--force", "--ext", ".png", "48", path]);
  assert.equal(status, 0, "pictures take pngquant: apt-get install pngquant");
}

await browser.close();
console.log("that is all");

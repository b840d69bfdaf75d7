// Fills the page: requests as they come, refusals with the routes that would have spared them, and what a reload would change.
//
// An agent chooses hosts, paths and methods. All that is shown goes in by `textContent`, and nothing is ever read as HTML.

const KEPT = 2000; // requests that are kept for searching and charts
const ROWS = 200; // of which so many are shown
const BIN = 10_000; // milliseconds of one bar
const BINS = 60;
const EVERY = 5_000; // between two looks at what does not come by itself
const EXPIRES_SOON = 600; // seconds, as the log has it

const $ = (id) => document.getElementById(id);

/// An element with a class, and with texts and elements in it.
function element(name, style, ...children) {
  const it = document.createElement(name);
  if (style) it.className = style;
  it.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return it;
}

// --- What is told: notices that stay for as long as they are true ---

const notices = new Map();

function notice(name, text, style) {
  const known = notices.get(name);
  if ((known?.textContent ?? "") === (text || "")) return;
  known?.remove();
  notices.delete(name);
  if (!text) return;
  const it = element("p", style, text);
  notices.set(name, it);
  $("notices").append(it);
}

const GONE = "This page is closed: run `egress ui --admin ADDRESS` beside the sidecar, and open what it prints.";

async function fetched(path, method = "GET") {
  const response = await fetch(path, { method });
  // A browser's clock may be another than the sidecar's.
  const date = Date.parse(response.headers.get("date"));
  if (date) skew = date - Date.now();
  if (response.status === 403) notice("stream", GONE, "loud");
  return response;
}

/// What comes of a button, also where nobody answers.
const posted = (path) => fetched(path, "POST").catch(() => new Response("The sidecar does not answer.", { status: 502 }));

async function told(path) {
  const response = await fetched(path);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

// --- Requests ---

const requests = []; // the latest first
const open = new Set(); // those whose details are shown
let skew = 0;
let held = 0; // how many came while the list was held still

function listen() {
  const events = new EventSource("/events?kept");
  events.addEventListener("hello", () => notice("stream"));
  events.addEventListener("request", (event) => came(JSON.parse(event.data)));
  events.addEventListener("gap", (event) => {
    const { missed } = JSON.parse(event.data);
    notice("gap", `${missed} requests are missing here: more came than are kept.`);
  });
  events.addEventListener("error", () => {
    notice("stream", "The sidecar does not answer. What is shown may be old.");
    // A refusal is final: the page is closed, which any other answer tells, or as many watch as may.
    if (events.readyState !== EventSource.CLOSED) return;
    notice("stream", "Too many pages are open. Close one, and load this one again.");
    soon(() => told("/status"));
  });
}

function came(request) {
  request.text = Object.values(request).filter((value) => value !== null).join(" ").toLowerCase();
  request.at = Date.parse(request.time) + request.total_ms;
  requests.unshift(request);
  if (requests.length > KEPT) open.delete(requests.pop());
  if (isUnadmitted(request)) soon(refusals);
  if ($("hold").checked) {
    held += 1;
  } else if (isSought(request)) {
    const rows = $("rows");
    rows.prepend(...row(request, true));
    while (rows.children.length > ROWS) rows.lastElementChild.remove();
  }
  soon(counted);
}

const isUnadmitted = ({ verdict, code }) => verdict === "denied" || code === "observed";

function sought() {
  const verdict = new FormData($("filter")).get("verdict");
  return { verdict, words: $("search").value.toLowerCase().split(/\s+/).filter(Boolean) };
}

function isSought(request, { verdict, words } = sought()) {
  return (!verdict || request.verdict === verdict) && words.every((word) => request.text.includes(word));
}

/// Shows the rows anew, for another search.
function list() {
  held = 0;
  const wanted = sought();
  const shown = requests.filter((request) => isSought(request, wanted)).slice(0, ROWS);
  $("rows").replaceChildren(...shown.flatMap((request) => row(request)));
  counted();
}

function counted() {
  const shown = $("rows").querySelectorAll("tr.one").length;
  $("shown-count").textContent = `${shown} of ${requests.length}${held ? `, ${held} more came` : ""}`;
  $("nothing").hidden = shown > 0;
  $("nothing").textContent = requests.length ? "No request is like that." : "No request yet.";
}

function row(request, isNew) {
  const asked = element("button", "", `${request.method} ${request.host}${request.path}`);
  asked.type = "button";
  asked.setAttribute("aria-expanded", open.has(request));
  const shown = element("tr", `one ${request.verdict}${isNew ? " new" : ""}`,
    element("td", "time", clock(request.time)),
    element("td", "outcome", request.verdict === "allowed" ? request.code : `${request.verdict}: ${request.code}`),
    element("td", "request", asked),
    element("td", "number", request.status || ""),
    element("td", "number", duration(request.total_ms)),
  );
  asked.addEventListener("click", () => {
    const isOpen = !open.delete(request);
    if (isOpen) open.add(request);
    asked.setAttribute("aria-expanded", isOpen);
    if (isOpen) shown.after(details(request));
    else shown.nextElementSibling?.remove();
  });
  return open.has(request) ? [shown, details(request)] : [shown];
}

/// All that is known of a request. Why it was refused comes first.
function details(request) {
  const list = element("dl");
  const tell = (name, value) => list.append(element("dt", "", name), element("dd", "", value));
  if (why.has(request.code) && isUnadmitted(request)) tell("why", why.get(request.code));
  for (const [name, value] of Object.entries(request)) {
    if (value !== null && value !== "" && name !== "text" && name !== "at") tell(name, value);
  }
  const cell = element("td", "", list);
  cell.colSpan = 5;
  return element("tr", "more", cell);
}

// --- Charts ---

/// Tunnels and WebSockets last as long as somebody speaks, which says nothing about how long an answer takes.
const LASTING = new Set(["tunnel", "steered", "passthrough", "websocket", "revoked", "stopping", "connection_lost"]);
const isExchange = ({ verdict, code }) => verdict === "allowed" && !LASTING.has(code);

function draw() {
  const end = Math.ceil((Date.now() + skew) / BIN) * BIN;
  const bins = Array.from({ length: BINS }, () => ({ allowed: 0, denied: 0, failed: 0, took: [] }));
  const took = [];
  for (const request of requests) {
    const bin = bins[BINS - 1 - Math.floor((end - request.at) / BIN)];
    if (!bin) continue;
    bin[request.verdict] += 1;
    if (isExchange(request)) {
      bin.took.push(request.total_ms);
      took.push(request.total_ms);
    }
  }
  const sum = (verdict) => bins.reduce((all, bin) => all + bin[verdict], 0);
  const all = sum("allowed") + sum("denied") + sum("failed");
  $("rate").textContent = `${all} in 10 min: ${sum("denied")} denied, ${sum("failed")} failed`;
  $("percentiles").textContent = took.length
    ? `half within ${duration(percentile(took, 0.5))}, 99 % within ${duration(percentile(took, 0.99))}`
    : "no answer in 10 min";
  const most = Math.max(1, ...bins.map((bin) => bin.allowed + bin.denied + bin.failed));
  $("rates").replaceChildren(...bins.flatMap((bin, place) => {
    let top = 40;
    return ["allowed", "failed", "denied"].filter((verdict) => bin[verdict]).map((verdict) => {
      // One refusal among a thousand requests is still to be seen.
      const height = Math.max(1.5, (bin[verdict] / most) * 38);
      top -= height;
      return shape("rect", { class: verdict, x: place * 4, y: top, width: 3, height });
    });
  }));
  // From a millisecond to fifteen minutes, each ten times as far up as the one before.
  const height = (took) => 39 - Math.min(38, (Math.log10(Math.max(1, took)) / 6) * 38);
  const line = (part, style) => shape("polyline", {
    class: style,
    points: bins.flatMap((bin, place) => (bin.took.length ? [`${place * 4 + 1.5},${height(percentile(bin.took, part))}`] : [])).join(" "),
  });
  $("durations").replaceChildren(line(0.5, "half"), line(0.99, "high"));
}

function shape(name, attributes) {
  const it = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) it.setAttribute(key, value);
  return it;
}

function percentile(values, part) {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}

// --- Refusals ---

const why = new Map();
const shown = new Map();

/// Whether something is to be shown anew. What stays as it was keeps what the operator has marked in it.
function isNews(name, value) {
  const text = JSON.stringify(value);
  const isIt = shown.get(name) !== text;
  shown.set(name, text);
  return isIt;
}

async function refusals() {
  const hosts = await told("/refusals");
  if (!isNews("refusals", hosts)) return;
  const opened = new Map([...$("hosts").children].map((it) => [it.dataset.host, it.open]));
  const focused = $("hosts").contains(document.activeElement) && document.activeElement.dataset.key;
  $("hosts").replaceChildren(...hosts.map((host) => refusedAt(host, opened.get(host.host) ?? !host.is_settled)));
  if (focused) [...$("hosts").querySelectorAll("[data-key]")].find((it) => it.dataset.key === focused)?.focus();
  const count = hosts.flatMap((host) => host.refusals).reduce((all, { count }) => all + count, 0);
  $("refused-count").textContent = count ? `the latest ${count}` : "nothing yet";
}

function refusedAt({ host, refusals, suggestion, has_routes, is_settled }, isOpen) {
  const list = element("ul", "denied", ...refusals.map((one) => {
    why.set(one.code, one.why);
    const times = one.count > 1 ? `, ${one.count} times` : "";
    return element("li", "", `${[one.method, one.path].join(" ").trim()}: `, element("b", "", one.code), ` — ${one.why}${times}, ${clock(one.last)}`);
  }));
  const name = element("summary", "", host || "no host");
  name.dataset.key = `host ${host}`;
  const it = element("details", "", name, list);
  if (is_settled) name.append(element("small", "", "  admitted by now"));
  if (suggestion) it.append(element("pre", "", suggestion));
  it.dataset.host = host;
  it.open = isOpen;
  if (has_routes) {
    const copy = element("button", "", "Copy the routes");
    copy.type = "button";
    copy.dataset.key = `copy ${host}`;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(suggestion);
      copy.textContent = "Copied";
    });
    it.append(copy);
  }
  return it;
}

// --- Status, routes, slots ---

async function look() {
  const [status, routes] = await Promise.all([told("/status"), told("/routes")]);
  $("health").textContent = status.healthy ? "healthy" : "NOT HEALTHY";
  $("health").className = status.healthy ? "good" : "bad";
  $("about").textContent = `${status.egress}, up ${seconds(status.uptime_seconds)}, ${status.routes_file}`;
  const left = status.observe_seconds_left;
  notice("observe", left == null ? "" : `OBSERVE MODE for ${seconds(left)} more: what no route admits is let through, and recorded.`, "loud");
  notice("fault", status.last_reload_fault && `The last reload failed, and the routes before it are in force:\n${status.last_reload_fault}`);
  notice("audit", status.audit?.failing && "The audit file cannot be written.");
  $("slot-rows").replaceChildren(...status.slots.map((slot) => {
    const left = slot.seconds_left;
    return element("tr", "",
      element("td", "route", slot.name),
      element("td", slot.state === "ok" ? "" : "bad", slot.state),
      element("td", `number ${left !== null && left < EXPIRES_SOON ? "soon" : ""}`, left === null ? "no end" : seconds(left)));
  }));
  if (!isNews("routes", routes)) return;
  $("route-rows").replaceChildren(...routes.routes.map(routeRow));
  const unused = routes.routes.filter(isUnused).length;
  $("routes-count").textContent = `${routes.all}${unused ? `, ${unused} unused since the start` : ""}`;
}

const isUnused = (route) => route.allowed + route.failed === 0;

function routeRow(route) {
  const { host, path_allowlist, methods, token_env } = route.rule;
  const paths = path_allowlist?.map((path) => path.regex ?? path.path ?? path).join(", ");
  const parts = [methods?.join(", "), paths, token_env && `with ${token_env}`].filter(Boolean);
  const shown = element("td", "route", host, element("small", "", parts.length ? `  ${parts.join(" · ")}` : ""));
  if (isUnused(route)) shown.append(" ", element("small", "mark", "unused"));
  return element("tr", isUnused(route) ? "unused" : "",
    element("td", "number", route.line), shown,
    element("td", "number", route.allowed), element("td", "number", route.failed || ""));
}

// --- Reload ---

async function ask() {
  const apply = $("apply");
  apply.disabled = true;
  $("change-head").textContent = "What a reload would change";
  $("change-file").textContent = "";
  $("change-text").textContent = "Reading the routes file …";
  $("change").showModal();
  const response = await posted("/preview");
  if (!response.ok) {
    $("change-file").textContent = "The file is not taken as it is. The routes before stay in force.";
    $("change-text").textContent = await response.text();
    return;
  }
  const { digest, difference, unusable } = await response.json();
  $("change-file").textContent = unusable.length ? `No usable value: ${unusable.join(", ")}` : "Nothing is in force yet.";
  $("change-text").textContent = difference;
  apply.disabled = false;
  apply.onclick = () => put(digest);
  apply.focus();
}

async function put(digest) {
  $("apply").disabled = true;
  const response = await posted(`/reload?digest=${digest}`);
  $("change-head").textContent = response.ok ? "Reloaded" : response.status === 503 ? "Reloaded, and a slot has no usable value" : "Not reloaded";
  $("change-file").textContent = "";
  $("change-text").textContent = await response.text();
  $("dismiss").focus();
  soon(look);
  soon(refusals);
}

// --- Small words ---

const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

function duration(milliseconds) {
  if (milliseconds < 1000) return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  return milliseconds < 60_000 ? `${(milliseconds / 1000).toFixed(1)} s` : seconds(milliseconds / 1000);
}

function seconds(all) {
  const units = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => all >= size);
  const [[unit, size], next] = [units.at(first), units[first + 1]];
  const rest = next && first >= 0 ? Math.floor((all % size) / next[1]) : 0;
  return `${Math.floor(all / size)} ${unit}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

// --- When what is done ---

const waiting = new Set();

/// Does something once, a moment later, however often it is asked for until then.
function soon(act) {
  if (waiting.has(act)) return;
  waiting.add(act);
  setTimeout(async () => {
    waiting.delete(act);
    try {
      await act();
    } catch {
      // The stream says that the sidecar is gone.
    }
  }, 200);
}

document.addEventListener("keydown", (event) => {
  const isTyped = event.target.matches("input:not([type=radio], [type=checkbox])");
  if (event.key === "/" && !isTyped && !$("change").open) {
    event.preventDefault();
    $("search").focus();
  } else if (event.key === "Escape" && event.target === $("search")) {
    $("search").value = "";
    list();
  }
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", (event) => {
  if (event.target !== $("hold") || !$("hold").checked) list();
});
$("reload").addEventListener("click", ask);

listen();
soon(look);
soon(refusals);
setInterval(() => document.hidden || soon(look), EVERY);
setInterval(() => document.hidden || draw(), 1000);

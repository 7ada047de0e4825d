// The page shows the document that /events sends about once a second. Whatever comes from a database is set as text.

import { LagChart } from "./chart.js";
import { QueryBox } from "./query.js";
import { ago, bytes, clock, count, day, differing, doing, duration, lag, origin, rate, some, standing, verdict } from "./words.js";

const SILENT_FOR = 5000; // milliseconds without an event after which the connection counts as lost
const AGAIN_IN = 2000;
const EARLY = 600; // seconds, in which a copy uses up space as nothing does later
const LEAST_USED = 0.25; // of a slot's room, before a forecast is a cause for concern (cdc/service/alerts.py)
const MOST_TABLES = 200; // that are shown at once

const byId = (id) => document.getElementById(id);
const fresh = (template) => byId(template).content.firstElementChild.cloneNode(true);

// Only what is another text is touched, so that what somebody has marked stays marked, and nothing is read out twice.
function say(root, name, text) {
  const node = root.matches?.(`[data-field="${name}"]`) ? root : root.querySelector(`[data-field="${name}"]`);
  if (node.textContent !== text) node.textContent = text;
  return node;
}

// Commands stand between backticks.
function prose(node, text) {
  if (node.dataset.text === text) return;
  node.dataset.text = text;
  node.replaceChildren(...text.split("`").map((part, index) => {
    if (index % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  }));
}

function tone(node, kind) {
  node.classList.remove("good", "busy", "care", "bad", "none", "lost");
  node.classList.add(kind);
  node.querySelector("use")?.setAttribute("href", `#${kind}`);
}

// One child per key, in this order; those that are there already are kept, with what has the focus in them.
function keep(parent, keys, make) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  keys.forEach((key, index) => {
    let node = known.get(key);
    if (!node) {
      node = make(key);
      node.dataset.key = key;
    }
    known.delete(key);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  known.forEach((node) => node.remove());
  return [...parent.children];
}

function meter(node, value, kind) {
  node.hidden = value == null;
  if (value == null) node.removeAttribute("value");
  else node.value = Math.min(1, Math.max(0, value));
  if (kind) tone(node, kind);
}

// ---- one pipeline

function showVerdict(report, name) {
  const [kind, word, why] = verdict(report);
  const section = byId("verdict");
  tone(section, kind);
  say(section, "name", `${origin(report)} \u2192 ${report.target}`);
  say(section, "word", word);
  prose(section.querySelector(".why"), why);
  const isFollowed = report.running && report.phase !== "copying" && report.phase !== "opening";
  say(section, "behind", isFollowed ? lag(report.lag_seconds) : report.running ? "Not followed yet" : "Not known");
  const log = report.lag_bytes == null ? "" : `${bytes(report.lag_bytes)} of log`;
  say(section, "behind-note", !isFollowed ? "" : report.phase === "waiting" ? "at least, since both ends were open" : log);
  say(section, "doing", doing(report));
  const pace = report.rows_per_second ? `${rate(report.rows_per_second)} rows/s` : "No rows just now";
  say(section, "doing-note", `${pace}, ${some(report.rows.transactions, "transaction")} so far`);
  document.title = `${word} \u00b7 ${name}`;
}

function showVerification(report, now) {
  const section = byId("verdict"), found = report.verification;
  const [answer, note] = compared(found, differing(report), now);
  const differs = found != null && (differing(report).length > 0 || Object.keys(found.shapes).length > 0);
  say(section, "checked", answer).classList.toggle("differs", differs);
  prose(section.querySelector('[data-field="checked-note"]'), note);
}

function compared(found, different, now) {
  if (!found) return ["Not yet", "`--verify-every 1h` compares all rows."];
  const missing = Object.keys(found.not_compared).length;
  const note = `${some(found.rows, "row")}, ${ago(found.finished_at, now)}${missing ? `; not ${some(missing, "table")}` : ""}`;
  const rows = different.reduce((sum, [, number]) => sum + number, 0);
  if (rows) return [`${some(rows, "row")} ${rows === 1 ? "differs" : "differ"}`, note];
  if (Object.keys(found.shapes).length) return ["Shapes differ", note];
  return [missing && !found.rows ? "Nothing was compared" : "No difference", note];
}

function showProblems(report) {
  const section = byId("problems");
  section.hidden = report.problems.length < 2; // one alone is said above
  keep(section.querySelector("ul"), report.problems, () => document.createElement("li")).forEach((item) => prose(item, item.dataset.key));
}

function showCopy(report) {
  const copied = Object.values(report.tables).filter((table) => table.state === "copying");
  const section = byId("copy");
  section.hidden = !report.running || !copied.length;
  const there = copied.reduce((sum, table) => sum + table.rows_copied, 0);
  const all = copied.reduce((sum, table) => sum + Math.max(table.rows_estimated, table.rows_copied), 0);
  const share = all ? there / all : null;
  say(section, "copy-share", share == null ? "Counting" : `${Math.floor(share * 100)} %`);
  say(section, "copy-rows", share == null ? "" : `${count(there)} of about ${count(all)} rows, ${some(copied.length, "table")}`);
  const left = report.copy_seconds_left;
  say(section, "copy-left", left == null ? "Changes are applied meanwhile." : `About ${duration(left)} left. Changes are applied meanwhile.`);
  const bar = section.querySelector("progress");
  tone(bar, "busy");
  if (share == null) bar.removeAttribute("value");
  else bar.value = share;
}

const RANK = { held: 0, suspect: 1, copying: 2, following: 3, "left out": 4 };
const search = document.querySelector(".search");
let sought = "";

function showTables(report, now) {
  const different = new Map(differing(report));
  const rank = ([name, table]) => (different.has(name) ? -1 : RANK[table.state] ?? 0);
  const all = Object.entries(report.tables);
  const found = all.filter(([name]) => name.toLowerCase().includes(sought));
  found.sort((one, other) => rank(one) - rank(other) || one[0].localeCompare(other[0]));
  search.hidden = all.length <= 10;
  const shown = found.slice(0, MOST_TABLES);
  const rows = keep(document.querySelector("#tables tbody"), shown.map(([name]) => name), () => fresh("table-row"));
  rows.forEach((row, index) => showTable(row, ...shown[index], report, different, now));
  const more = found.length - shown.length;
  const none = all.length ? "No table has such a name." : "There are no tables yet.";
  say(byId("tables"), "tables-note", !found.length ? none : more ? `${some(more, "more table")}: find them by name.` : "");
}

function showTable(row, name, table, report, different, now) {
  const [kind, word] = standing(table, report);
  say(row, "table", name);
  tone(row.querySelector(".state"), kind);
  say(row, "state", word);
  prose(row.querySelector(".reason"), table.reason);
  for (const [field, number, text] of [
    ["copied", table.rows_copied, count],
    ["inserted", table.inserted, count],
    ["updated", table.updated, count],
    ["deleted", table.deleted, count],
    ["rate", table.rows_per_second, rate],
  ]) say(row, field, text(number)).classList.toggle("quiet", !number);
  const isCopied = table.state === "copying" && table.rows_estimated > 0;
  meter(row.querySelector("progress"), isCopied ? table.rows_copied / table.rows_estimated : null, "busy");
  const [answer, differs] = comparison(name, table, report.verification, different, now);
  const cell = say(row, "compared", answer);
  cell.classList.toggle("differs", differs);
  cell.classList.toggle("quiet", !differs);
}

function comparison(name, table, verification, different, now) {
  if (table.state === "suspect") return ["in progress", false];
  if (table.state === "copying") return ["not yet", false];
  if (different.has(name)) return [`${some(different.get(name), "row")} differed`, true];
  if (verification?.shapes[name]) return [verification.shapes[name].join("; "), true];
  if (verification?.not_compared[name]) return [verification.not_compared[name], false];
  if (verification) return [`same, ${ago(verification.finished_at, now)}`, false];
  if (table.different != null) return [table.different ? `${some(table.different, "row")} read again` : "same", false];
  return ["not yet", false];
}

function showRoom(report, now) {
  const meters = [...logMeter(report), ...diskMeter(report, now)];
  byId("room").hidden = !meters.length;
  const nodes = keep(byId("room").querySelector("dl"), meters.map(([title]) => title), () => fresh("meter"));
  nodes.forEach((node, index) => {
    const [title, value, share, note, kind] = meters[index];
    say(node, "title", title);
    say(node, "value", value);
    say(node, "note", note);
    meter(node.querySelector("progress"), share, kind);
  });
}

function* logMeter({ slot, log, forecast }) {
  if (log?.bytes != null) yield ["Log that the source still has", bytes(log.bytes), null, `from ${log.oldest_file}`, "good"];
  if (slot?.retained_bytes == null) return;
  const title = "Log that the source keeps for the slot", left = forecast.slot_seconds_left;
  if (slot.safe_bytes == null) {
    yield [title, bytes(slot.retained_bytes), null, "It may grow without a limit: max_slot_wal_keep_size is not set.", "none"];
    return;
  }
  const all = slot.retained_bytes + slot.safe_bytes, used = all ? slot.retained_bytes / all : 0;
  const kind = left == null || used < LEAST_USED ? "good" : left < 86400 ? "bad" : "care";
  const note = kind === "good" ? "The slot is not about to be lost." : `At this rate the slot is lost in ${duration(left)}.`;
  yield [title, `${bytes(slot.retained_bytes)} of ${bytes(all)}`, used, note, kind];
}

function* diskMeter({ forecast, samples }, now) {
  if (forecast.disk_free_bytes == null) return;
  const left = forecast.disk_seconds_left, isEarly = !samples.length || now - samples[0][0] < EARLY && left > 3600;
  const rate = isEarly ? "How long it lasts is not known yet." : `At this rate it is full in ${duration(left)}.`;
  const note = left == null ? "It is not about to run out." : rate;
  yield ["Space left for the target", bytes(forecast.disk_free_bytes), null, note, "none"];
}

function showErrors(report) {
  byId("errors").hidden = !report.errors.length;
  const key = (error) => `${error.at} ${error.message}`;
  const items = keep(byId("errors").querySelector("ol"), report.errors.map(key), () => fresh("error"));
  items.forEach((item, index) => {
    const { at, message, remedy, times } = report.errors[index];
    say(item, "at", `${day(at)}, ${clock(at)}` + (times > 1 ? `, ${count(times)} times` : "")).dateTime = new Date(at * 1000).toISOString();
    prose(item.querySelector('[data-field="message"]'), message);
    const hint = item.querySelector(".remedy");
    hint.hidden = !remedy;
    prose(hint, remedy ?? "");
  });
}

// ---- all pipelines, and which of them is shown

const address = (name) => `#${encodeURIComponent(name)}`;

function* pipelinesOf(document_) {
  for (const [name, report] of Object.entries(document_.pipelines)) {
    yield [name, report];
    for (const [target, feed] of Object.entries(report.feeds)) yield [`${name} / ${target}`, feed];
  }
}

function showPipelines(all, chosen) {
  byId("pipelines").hidden = all.length < 2;
  const items = keep(byId("pipelines").querySelector("ul"), all.map(([name]) => name), () => fresh("pipeline-row"));
  items.forEach((item, index) => {
    const [name, report] = all[index], [kind, word] = verdict(report), link = item.firstElementChild;
    link.href = address(name);
    tone(link, kind);
    say(link, "name", name);
    say(link, "word", word);
    say(link, "behind", report.running ? lag(report.lag_seconds) : "");
    if (name === chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  });
}

const chart = new LagChart(byId("lag"));
const query = new QueryBox(byId("query"));
let last = null; // the last document

function show() {
  if (last === null) return;
  const all = [...pipelinesOf(last)];
  if (!all.length) return;
  const [name, report] = all.find(([other]) => address(other) === location.hash) ?? all[0];
  byId("empty").hidden = true;
  byId("details").hidden = false;
  showPipelines(all, name);
  showVerdict(report, name);
  showVerification(report, last.at);
  showProblems(report);
  showCopy(report);
  showTables(report, last.at);
  showRoom(report, last.at);
  showErrors(report);
  chart.show(report.samples, last.at);
  say(byId("version"), "version", `cdc ${last.version}`);
  query.offer(report.query === true ? name : null);
}

// ---- the connection

let heardAt = 0, events = null, isLost = false;

function connect() {
  events = new EventSource("/events");
  events.onmessage = (event) => {
    heardAt = performance.now();
    last = JSON.parse(event.data);
    connected();
    show();
  };
  events.onerror = () => {
    events.close(); // by itself it would wait for longer, or give up
    lose();
    setTimeout(connect, AGAIN_IN);
  };
}

function connected() {
  isLost = false;
  document.body.classList.remove("lost");
  tone(byId("connection"), "good");
  byId("connection-word").textContent = "Live";
}

function lose() {
  tone(byId("connection"), "bad");
  byId("connection-word").textContent = "Connection lost";
  if (isLost || last === null) return;
  isLost = true;
  document.body.classList.add("lost");
  document.title = "Connection lost \u00b7 cdc";
  const section = byId("verdict");
  tone(section, "lost");
  say(section, "word", "Connection lost");
  prose(section.querySelector(".why"), `What you see is how it was at ${clock(last.at)}. The page tries to connect again.`);
}

setInterval(() => {
  if (events.readyState === EventSource.OPEN && performance.now() - heardAt > SILENT_FOR) events.onerror();
}, 1000);

search.firstElementChild.nextElementSibling.addEventListener("input", (event) => {
  sought = event.target.value.trim().toLowerCase();
  show();
});
addEventListener("hashchange", show);
connect();

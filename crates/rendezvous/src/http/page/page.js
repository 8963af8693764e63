"use strict";

// Numbers come every two seconds, points of the charts every ten. What is older than STALE is said to be old.
const EVERY = 2000;
const CHARTS_EVERY = 10000;
const STALE = 8000;

const $ = (id) => document.getElementById(id);
// A token may stand behind the # of the address, which browsers keep to themselves.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
let span = "hour";
let heard = 0;
let points = null;

async function get(path) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!answer.ok) throw new Error(answer.status + " " + answer.statusText);
  return answer.json();
}

// Numbers for people.

const whole = new Intl.NumberFormat("en");
function scaled(value, units, base = 1000) {
  let place = 0;
  while (value >= base && place < units.length - 1) { value /= base; place += 1; }
  const digits = value >= 100 || value === Math.round(value) ? 0 : value >= 10 ? 1 : 2;
  return Number(value.toFixed(digits)) + units[place];
}
const amount = (value) => scaled(value, ["", "k", "M", "G"]);
const bits = (value) => scaled(value, [" bit/s", " kbit/s", " Mbit/s", " Gbit/s"]);
const bytes = (value) => scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
const millis = (value) => value.toFixed(value >= 10 ? 0 : 1) + " ms";
function duration(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return days + " d " + hours + " h";
  if (hours) return hours + " h " + minutes + " min";
  return minutes ? minutes + " min" : seconds + " s";
}
function moment(unix) {
  const format = span === "month" ? { day: "numeric", month: "short", hour: "2-digit" } : { hour: "2-digit", minute: "2-digit", second: span === "hour" ? "2-digit" : undefined };
  return new Date(unix * 1000).toLocaleString("en-GB", format);
}

// Pieces of the page. Texts are only ever set as texts.

function make(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}
function fill(id, children, otherwise) {
  $(id).replaceChildren(...(children.length ? children : [make("li", otherwise, "quiet")]));
}
function rows(id, pairs) {
  const cells = pairs.filter(([, value]) => value !== null && value !== undefined);
  $(id).replaceChildren(...cells.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}
function draw(name, attributes, parent, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// Charts.

const REQUESTS = [
  ["heartbeats", "heartbeats", "s1"],
  ["searches", "lookups", "s2"],
  ["polls", "polls", "s3"],
  ["registrations", "registrations", "s4"],
  ["changes", "changes", "s5"],
];
const CHARTS = [
  { id: "chart-requests", series: REQUESTS, stacked: true, show: amount },
  { id: "chart-online", series: [["online", "online", "s1"]], show: (n) => whole.format(Math.round(n)), integers: true },
  { id: "chart-registrations", series: [["registrations", "per second", "s4"]], show: amount },
  { id: "chart-relay", series: [["relay_bits", "relayed", "s2"]], show: bits },
  { id: "chart-links", series: [["trust_links", "links", "s3"]], show: (n) => whole.format(Math.round(n)), integers: true },
  { id: "chart-commit", series: [["commit_ms", "until on disk", "s2"]], show: millis },
  { id: "chart-errors", series: [["errors", "per second", "s6"]], show: amount },
];

// The next round number.
function ceiling(value, integers) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999) * power;
  return integers ? Math.max(1, Math.ceil(step)) : step;
}

function chart({ id, series, stacked, show, integers }) {
  const place = $(id);
  const at = points.at;
  if (at.length < 2) {
    place.replaceChildren(make("div", "gathering points", "empty"));
    return;
  }
  const [width, height, left, bottom] = [place.clientWidth, place.clientHeight, 2, 16];
  const from = at[0];
  const x = (time) => left + ((time - from) / Math.max(1, at[at.length - 1] - from)) * (width - left - 2);
  const base = at.map(() => 0);
  const layers = series.map(([name, label, kind]) => {
    const values = points.series[name];
    const low = base.slice();
    if (stacked) values.forEach((value, i) => { base[i] += value; });
    return { label, kind, values, low, high: stacked ? base.slice() : values };
  });
  const top = ceiling(Math.max(...layers[layers.length - 1].high), integers);
  const y = (value) => height - bottom - (value / top) * (height - bottom - 14);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  const last = layers.map((layer) => `${layer.label} ${show(layer.values[layer.values.length - 1])}`).join(", ");
  svg.setAttribute("aria-label", last);
  for (const value of [0, top / 2, top]) {
    draw("line", { x1: left, x2: width - 2, y1: y(value), y2: y(value), class: "grid" }, svg);
  }
  const line = (values, to) => values.map((value, i) => `${x(at[i]).toFixed(1)},${y(value).toFixed(1)}`)[to ? "reverse" : "slice"]().join(" L");
  for (const layer of layers) {
    const path = `M${line(layer.high)} L${line(layer.low, true)} Z`;
    draw("path", { d: path, class: (stacked ? "band " : "area ") + layer.kind }, svg);
    if (!stacked) draw("path", { d: `M${line(layer.high)}`, class: "stroke " + layer.kind }, svg);
  }
  draw("text", { x: left, y: y(top) - 4, class: "axis" }, svg, show(top));
  draw("text", { x: left, y: height - 2, class: "axis" }, svg, moment(from));
  draw("text", { x: width - 2, y: height - 2, class: "axis", "text-anchor": "end" }, svg, moment(at[at.length - 1]));
  place.replaceChildren(svg);
  point(place, svg, { x, at, layers, show, height, bottom, width });
}

// What the pointer is over.
function point(place, svg, { x, at, layers, show, height, bottom, width }) {
  const tip = make("div", "", "tip");
  tip.hidden = true;
  const cursor = draw("line", { y1: 0, y2: height - bottom, class: "cursor", visibility: "hidden" }, svg);
  place.append(tip);
  svg.onpointermove = (event) => {
    const over = event.clientX - svg.getBoundingClientRect().left;
    let nearest = 0;
    at.forEach((time, i) => { if (Math.abs(x(time) - over) < Math.abs(x(at[nearest]) - over)) nearest = i; });
    const middle = x(at[nearest]);
    cursor.setAttribute("x1", middle);
    cursor.setAttribute("x2", middle);
    cursor.setAttribute("visibility", "visible");
    const lines = layers.map((layer) => `${layer.label}  ${show(layer.values[nearest])}`);
    tip.textContent = [moment(at[nearest]), ...lines].join("\n");
    tip.hidden = false;
    const room = middle > width / 2 ? middle - tip.offsetWidth - 8 : middle + 8;
    tip.style.left = Math.max(0, room) + "px";
  };
  svg.onpointerleave = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
}

function charts() {
  if (points) CHARTS.forEach(chart);
}

// Numbers.

function show(stats) {
  const rates = stats.rates;
  $("online").textContent = whole.format(stats.active_nodes);
  $("nodes").textContent = whole.format(stats.total_nodes);
  $("links").textContent = whole.format(stats.total_trust_links);
  $("nets").textContent = whole.format(stats.networks_total);
  $("rate").textContent = rates ? amount(REQUESTS.reduce((sum, [name]) => sum + rates[name], 0)) : "–";
  $("relay").textContent = rates ? bits(rates.relay_bits) : "–";
  $("about").textContent = `version ${stats.version}, up ${duration(stats.uptime_secs)}, ${amount(stats.total_requests)} requests`;
  const networks = stats.networks.map((network) => {
    const row = make("tr");
    const name = make("td", network.name);
    if (!network.open) name.append(make("span", " closed", "quiet"));
    row.append(name, make("td", whole.format(network.online_members), "count"), make("td", whole.format(network.members), "count"));
    return row;
  });
  const hidden = stats.networks_total - stats.networks.length;
  if (hidden > 0) {
    const row = make("tr");
    const cell = make("td", `${whole.format(hidden)} more, not open to everybody`, "quiet");
    cell.colSpan = 3;
    row.append(cell);
    networks.push(row);
  }
  if (!networks.length) {
    const row = make("tr");
    row.append(make("td", "none yet", "quiet"));
    networks.push(row);
  }
  $("networks").replaceChildren(...networks);
  fill("tags", stats.tags.map((tag) => {
    const chip = make("li", tag.name);
    chip.append(make("b", whole.format(tag.nodes)));
    return chip;
  }), "none yet");
  const most = Math.max(1, ...stats.version_list.map((version) => version.nodes));
  fill("versions", stats.version_list.map((version) => {
    const bar = make("li");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    draw("rect", { width: (100 * version.nodes) / most + "%", height: "100%", rx: 4 }, svg);
    bar.append(svg, make("span", version.name), make("span", whole.format(version.nodes)));
    return bar;
  }), "none yet");
  const beacon = stats.beacon;
  rows("beacon", [
    ["reaches", whole.format(beacon.nodes) + " nodes"],
    ["over the web", whole.format(beacon.web)],
    ["relayed", amount(beacon.relayed) + " frames"],
    ["in all", bytes(beacon.relayed_bytes)],
    ["introduced", whole.format(beacon.introduced) + " pairs"],
    ["beacons", stats.beacons.length ? stats.beacons.join(", ") : null],
  ]);
  $("inside").hidden = !stats.process;
  if (stats.process) {
    const process = stats.process;
    rows("process", [
      ["memory", process.memory_bytes === null ? null : bytes(process.memory_bytes)],
      ["processor time", process.cpu_seconds === null ? null : duration(Math.round(process.cpu_seconds))],
      ["open descriptors", process.descriptors],
      ["connections", whole.format(stats.connections)],
      ["held requests", whole.format(stats.held_requests)],
    ]);
  }
}

function state(text, kind, notice) {
  $("state").textContent = text;
  $("state").className = "state " + kind;
  $("notice").textContent = notice ?? "";
  $("notice").hidden = !notice;
  document.body.classList.toggle("old", kind === "stale");
}

let trouble = null;
async function numbers() {
  try {
    const stats = await get("api/stats");
    heard = performance.now();
    trouble = null;
    show(stats);
    if (stats.age_ms === null || stats.age_ms > STALE) trouble = "the registry is silent; these numbers are old";
    else if (!stats.ready) trouble = "not ready" + (stats.faults ? ": " + stats.faults.join("; ") : "");
  } catch (error) {
    if (!heard || performance.now() - heard > STALE) trouble = "no answer from the rendezvous: " + error.message;
  }
  if (trouble) state("stale", "stale", trouble);
  else state("live", "live");
}

async function history() {
  const asked = span;
  try {
    const answer = await get("api/history?span=" + asked);
    if (asked === span) { points = answer; charts(); }
  } catch {
    // The numbers say so.
  }
}

for (const button of document.querySelectorAll("nav button")) {
  button.onclick = () => {
    span = button.dataset.span;
    for (const other of document.querySelectorAll("nav button")) other.setAttribute("aria-pressed", other === button);
    history();
  };
}
$("legend-requests").replaceChildren(...REQUESTS.map(([, label, kind]) => make("span", label, "key " + kind)));
new ResizeObserver(charts).observe($("chart-requests"));
numbers();
history();
setInterval(numbers, EVERY);
setInterval(history, CHARTS_EVERY);

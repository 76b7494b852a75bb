// System: what recording costs, how far the encoders are, what is stored and what the next prune would remove.

import { address } from "../address.js";
import { get } from "../api.js";
import { fill, h, Part, say, svg, whenQuiet } from "../element.js";
import { age, bytes, clock, count, duration, number, shortSession } from "../format.js";
import { attempt } from "../notice.js";
import { plotLines } from "../plot-lines.js";
import { stream } from "../stream.js";

const SPANS = [[300, "5 minutes", 60], [1800, "30 minutes", 600], [7200, "2 hours", 1800], [86400, "day", 14400]];
const HEIGHT = 136;
const MARGIN = { l: 46, r: 10, t: 8, b: 18 };
const BINS = 150;

const sum = (values) => values.reduce((one, other) => one + other, 0);
const largest = (values) => Math.max(...values);
const mean = (values) => sum(values) / values.length;

// Each chart: its title, how its values are written, and its lines: name, colour, times, values, how several become one.
const CHARTS = [
  { key: "rate", title: "Steps a second", label: number, lines: ({ probes }) => bySource(probes, "steps_per_second") },
  {
    key: "cost", title: "Step time", label: duration, log: true, lines: ({ probes }) => [
      ["pictured p50", "s2", "captured_p50", mean], ["p99", "s2 dotted", "captured_p99", largest], ["bare p50", "s1", "bare_p50", mean], ["p99", "s1 dotted", "bare_p99", largest],
    ].map(([name, kind, column, join]) => ({ name, kind, times: probes.time, values: probes[column], join })),
  },
  {
    key: "queue", title: "Encoder queue", label: number, lines: ({ encoder }) => [
      { name: "chunks waiting", kind: "s3", times: encoder.time, values: encoder.waiting_chunks, join: largest, steps: true }, { name: "running", kind: "s1", times: encoder.time, values: encoder.running_jobs, join: largest, steps: true }],
  },
  { key: "speed", title: "Encoder, frames a second", label: number, lines: ({ encoder }) => [{ name: "frames a second", kind: "s1", times: encoder.time, values: encoder.frames_per_second, join: mean }] },
  {
    key: "spool", title: "Spool", label: bytes, lines: ({ probes }) => [
      { name: "on disk", kind: "s3", times: probes.time, values: probes.spool_bytes, join: largest }, { name: "in memory", kind: "s2", times: probes.time, values: probes.unsent_bytes, join: sum }],
  },
  {
    key: "drops", title: "Dropped", label: number, lines: ({ probes }) => [
      { name: "frames", kind: "s7", times: probes.time, values: probes.frames_dropped, join: sum }, { name: "steps", kind: "s2", times: probes.time, values: probes.steps_dropped, join: sum }],
  },
  { key: "lag", title: "Kernel loop lag", label: duration, none: "measured where the viewer runs as a plugin of the kernel", lines: ({ lag }) => [{ name: "lag", kind: "s4", times: lag.time, values: lag.seconds, join: largest }] },
];

export class SystemPage extends Part {
  async open() {
    this.span = SPANS[0][0];
    this.tiles = h("div", { class: "facts" });
    this.plots = new Map(CHARTS.map(({ key }) => [key, svg("svg", { class: "plot", "aria-hidden": "true" })]));
    this.grid = h("div", { class: "measures" }, CHARTS.map(({ key, title, none }) =>
      h("section", { class: "measure", "data-key": key }, h("header", {}, h("h3", {}, title), h("div", { class: "legend" })), h("div", { class: "canvas" }, this.plots.get(key), h("p", { class: "none", hidden: true }, none ?? "nothing measured in this time")))));
    this.plugins = h("section", { class: "listing" });
    this.storage = h("section", { class: "listing" });
    this.prune = h("section", { class: "listing" });
    const span = h("select", { "aria-label": "How far back" }, SPANS.map(([seconds, text]) => h("option", { value: seconds }, `last ${text}`)));
    span.addEventListener("change", () => {
      this.span = Number(span.value);
      attempt(() => this.#load());
    });
    fill(this, h("div", { class: "bar" }, h("h1", {}, "System"), h("span", { class: "spring" }), span),
      h("div", { class: "scrolls system" }, this.tiles, this.grid, h("div", { class: "listings" }, this.plugins, this.storage, this.prune)));
    await attempt(() => this.#load());
    // Where nothing was measured of late, a longer look back may show the last run.
    for (const [seconds] of SPANS.slice(1)) {
      if (!this.data || this.data.probes.time.length || this.signal.aborted) break;
      this.span = seconds;
      span.value = seconds;
      await attempt(() => this.#load());
    }
    this.dataset.ready = "";
    this.every(2, () => attempt(() => this.#load()));
    const resized = whenQuiet(0.15, () => this.#draw());
    const observer = new ResizeObserver(() => this.data && resized());
    observer.observe(this.grid);
    this.signal.addEventListener("abort", () => observer.disconnect());
    stream.on("lag", ({ seconds }) => this.lagTile && say(this.lagTile, duration(seconds)), this.signal);
  }

  async #load() {
    if (this.busy) return;
    this.busy = true;
    try {
      this.data = await get("/api/system", { seconds: this.span }, this.signal);
      this.#showTiles();
      this.#showLists();
      this.#draw();
    } finally {
      this.busy = false;
    }
  }

  #showTiles() {
    const { disk, encoder, lag } = this.data;
    this.lagTile = h("strong", {}, duration(lag.seconds.at(-1)));
    const tile = (name, text, title = "") => h("div", { title }, h("small", {}, name), text instanceof Node ? text : h("strong", {}, text));
    fill(this.tiles,
      tile("videos", bytes(disk.video_bytes)), tile("spool", bytes(disk.spool_bytes)), tile("log", bytes(disk.log_bytes)), tile("tables", bytes(disk.database_bytes)),
      tile("free on disk", bytes(disk.free_bytes), `of ${bytes(disk.total_bytes)}`),
      tile("chunks waiting", count(encoder.waiting_chunks.at(-1) ?? 0)), tile("loop lag", this.lagTile));
  }

  #showLists() {
    const { plugins, storage, prune } = this.data;
    fill(this.plugins, h("h3", {}, "Plugins"), plugins.length ? h("table", {}, h("tbody", {}, plugins.map((one) =>
      h("tr", {}, h("td", { title: one.use }, one.name), h("td", { class: { started: "good", running: "good", failed: "bad", off: "bad", "given up": "bad" }[one.state] ?? "" }, one.state),
        h("td", { class: "faint", title: one.reason || clock(one.since) }, one.reason || (one.since ? `for ${age(one.since)}` : "")))))) : h("p", { class: "faint" }, "No kernel runs on this home."));
    fill(this.storage, h("h3", {}, "Videos by session"), storage.length ? h("table", {},
      h("thead", {}, h("tr", {}, ["session", "videos", "size", "pinned", "next prune removes"].map((name) => h("th", {}, name)))),
      h("tbody", {}, storage.map((one) => h("tr", {}, h("td", { title: one.session }, h("a", { href: address("/episodes", { session: one.session, video: "available" }) }, one.label || shortSession(one.session))),
        h("td", {}, count(one.videos)), h("td", {}, bytes(one.bytes)), h("td", {}, one.pinned ? count(one.pinned) : ""), h("td", {}, one.prune_videos ? `${count(one.prune_videos)} (${bytes(one.prune_bytes)})` : "nothing"))))) : h("p", { class: "faint" }, "No video stands."));
    const limits = prune && Object.entries({ "videos a session": prune.limits.max_videos_per_session || null, bytes: prune.limits.max_bytes ? bytes(prune.limits.max_bytes) : null, days: prune.limits.max_age_days || null }).filter(([, limit]) => limit !== null);
    fill(this.prune, h("h3", {}, "Retention"), !prune ? h("p", { class: "faint" }, "No pruner: videos stay until you delete them.") : [
      h("p", {}, limits.length ? `At most ${limits.map(([name, limit]) => (name === "bytes" ? limit : `${number(limit)} ${name}`)).join(", ")}; ${prune.limits.evict} first.` : "No limits.", prune.asked_by ? ` Asked for by ${prune.asked_by}.` : ""),
      prune.removals.length ? h("ul", {}, prune.removals.slice(0, 8).map((one) => h("li", { title: one.recording }, `${bytes(one.bytes)} · ${one.policy}: ${one.reason}`))) : h("p", { class: "faint" }, "The next prune would remove nothing."),
      prune.removals.length > 8 ? h("p", { class: "faint" }, `and ${count(prune.removals.length - 8)} more`) : null]);
  }

  #draw() {
    const end = this.#end();
    const [, , tick] = SPANS.find(([seconds]) => seconds === this.span);
    for (const chart of CHARTS) {
      const plot = this.plots.get(chart.key);
      const section = plot.closest(".measure");
      const lines = chart.lines(this.data).map((one) => ({ ...one, ...joined(one, end - this.span, this.span) })).filter((one) => one.values.length);
      section.querySelector(".none").hidden = lines.length > 0;
      fill(section.querySelector(".legend"), lines.length > 1 ? lines.map((one) => h("span", {}, h("i", { class: `swatch ${one.kind}` }), one.name)) : null);
      fill(plot, lines.length ? plotLines({
        width: plot.clientWidth,
        height: HEIGHT,
        margin: MARGIN,
        range: [-this.span, 0],
        x: lines[0].x,
        lines,
        log: chart.log,
        floor: chart.log ? null : 0,
        acrossTicks: ([from]) => Array.from({ length: Math.floor(-from / tick) + 1 }, (_, place) => -place * tick),
        acrossLabel: (seconds) => (seconds === 0 ? (this.live ? "now" : clock(end).slice(11, 16)) : `−${seconds <= -7200 ? `${-seconds / 3600} h` : `${-seconds / 60} min`}`),
        upwardsLabel: chart.label,
      }) : null);
    }
  }

  // While something is measured, now; of a run that is over, its end.
  #end() {
    const { probes, encoder, lag } = this.data;
    const last = Math.max(...[probes, encoder, lag].map(({ time }) => time.at(-1) ?? 0));
    const now = Date.now() / 1000;
    this.live = last === 0 || now - last < this.span;
    return this.live ? now : last;
  }
}

// What lies too close to be told apart becomes one value, as do several producers' values of one moment.
function joined({ times, values, join }, from, span) {
  const bins = new Map();
  times.forEach((time, place) => {
    const bin = Math.floor(((time - from) / span) * BINS);
    if (values[place] === null || bin < 0) return;
    if (!bins.has(bin)) bins.set(bin, []);
    bins.get(bin).push(values[place]);
  });
  const order = [...bins.keys()].sort((one, other) => one - other);
  return { x: order.map((bin) => ((bin + 0.5) / BINS) * span - span), values: order.map((bin) => join(bins.get(bin))) };
}

// A line for each producer, as their loads are their own.
function bySource(probes, column) {
  return [...new Set(probes.source)].slice(0, 8).map((source, place) => ({
    name: source.split("-").at(-1), kind: `s${place + 1}`, times: probes.time, values: probes[column].map((value, at) => (probes.source[at] === source ? value : null)), join: mean,
  }));
}

customElements.define("system-page", SystemPage);

// Compare: two to four episodes side by side, with one transport.

import { address, amend, go, query } from "../address.js";
import { change, get, steps } from "../api.js";
import { fill, h, mark, Part, say, whenQuiet } from "../element.js";
import { age, count, number, shortSession } from "../format.js";
import { Frames, lastAtMost } from "../frames.js";
import { icon } from "../icon.js";
import { bind } from "../keys.js";
import { attempt, empty, notify } from "../notice.js";
import { StepTransport, VideoTransport } from "../transport.js";
import "../scrub-bar.js";
import "../step-chart.js";

const MOST = 4;
const ALIGNMENTS = [["step", "by step"], ["time", "by time"], ["end", "by their ends"]];
const RATES = [0.25, 0.5, 1, 2, 4];
const DRIFT_SECONDS = 0.12;

export class ComparePage extends Part {
  async open() {
    const asked = query();
    const ids = asked.ids?.split(",").filter(Boolean).slice(0, MOST) ?? [];
    this.align = ALIGNMENTS.some(([key]) => key === asked.align) ? asked.align : "step";
    this.more = asked.series?.split(",") ?? [];
    this.rate = 1;
    this.t = 0;
    if (ids.length < 2) {
      await attempt(() => this.#choose(asked.a, asked.b));
      this.dataset.ready = "";
      return;
    }
    this.#frame();
    try {
      this.lanes = await Promise.all(ids.map((id, place) => this.#lane(id, place)));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this, empty("These episodes cannot be compared", error.message, h("p", {}, h("a", { href: "/episodes" }, "Choose others"))));
      this.dataset.ready = "";
      return;
    }
    if (this.signal.aborted) return;
    this.#arrange();
    this.#showLanes();
    this.#showBar();
    this.#bindKeys();
    this.seek(Number(asked.step ?? 0));
    await attempt(() => this.#drawCharts());
    this.dataset.ready = "";
  }

  close() {
    this.playing = false;
    for (const lane of this.lanes ?? []) {
      lane.screen?.pause();
      lane.screen?.removeAttribute("src");
      lane.screen?.load(); // lets go of the connection
    }
  }

  // Which episodes: two sessions, paired by seed.

  async #choose(a, b) {
    const { sessions } = await get("/api/sessions", {}, this.signal);
    const played = sessions.filter((one) => one.episodes > 0);
    if (played.length < 2) {
      fill(this, empty("Compare episodes", "Choose two to four in the ", h("p", {}, h("a", { href: "/episodes" }, "table of episodes")), "With two sessions of one environment, their episodes are paired here by seed."));
      return;
    }
    const [first, second] = [a ?? played[1].session, b ?? played[0].session];
    const choice = (label, value) => {
      const select = h("select", { "aria-label": label }, played.map((one) => h("option", { value: one.session, selected: one.session === value }, `${one.label || shortSession(one.session)} · ${one.env_id} · ${age(one.started)}`)));
      select.addEventListener("change", () => go(address("/compare", label === "A" ? { a: select.value, b: second } : { a: first, b: select.value })));
      return select;
    };
    const { pairs } = first === second ? { pairs: [] } : await get("/api/pairs", { a: first, b: second }, this.signal);
    const name = (session) => {
      const found = played.find((one) => one.session === session);
      return found?.label || shortSession(session);
    };
    fill(this, h("div", { class: "bar filters" }, h("h1", {}, "Compare"), h("span", { class: "faint" }, "the episodes of"), choice("A", first), h("span", { class: "faint" }, "and"), choice("B", second), h("span", { class: "faint" }, "by seed, or two to four from the "), h("a", { href: "/episodes" }, "table")),
      pairs.length ? h("div", { class: "scrolls pairs" }, h("table", {},
        h("thead", {}, h("tr", {}, ["seed", `return · ${name(first)}`, `return · ${name(second)}`, "difference", ""].map((text) => h("th", {}, text)))),
        h("tbody", {}, pairs.slice(0, 500).map((one) => {
          const difference = one.return_a === null || one.return_b === null ? null : one.return_b - one.return_a;
          return h("tr", {}, h("td", {}, one.seed), h("td", {}, number(one.return_a)), h("td", {}, number(one.return_b)),
            h("td", { class: difference > 0 ? "good" : difference < 0 ? "bad" : "" }, difference === null ? "–" : `${difference > 0 ? "+" : ""}${number(difference)}`),
            h("td", {}, h("a", { class: "button", href: address("/compare", { ids: `${one.a},${one.b}` }) }, "Side by side")));
        })))) : empty("No pairs", first === second ? "Choose two different sessions." : "These sessions have no episode of the same environment and seed."));
  }

  // One episode of those that are compared.

  #frame() {
    this.screens = h("div", { class: "lanes" });
    this.bar = h("scrub-bar");
    this.buttons = h("div", { class: "buttons" });
    this.panels = h("div", { class: "panels" });
    fill(this, h("div", { class: "compare" }, this.screens, h("div", { class: "transport" }, this.bar, this.buttons), this.panels));
    this.listen(this.bar, "seek", ({ detail }) => this.seek(detail));
  }

  async #lane(id, place) {
    const path = `/api/episodes/${encodeURIComponent(id)}`;
    const [episode, answer, described] = await Promise.all([
      get(path, {}, this.signal), steps(id, ["step", "frame", "frames", "video", "reward", "return"], {}, this.signal), get(`${path}/series`, {}, this.signal),
    ]);
    const playable = episode.videos.filter((one) => one.state === "available");
    const video = playable.find((one) => one.id === episode.video) ?? playable[0] ?? null;
    const { columns } = answer;
    return { id, place, episode, columns, video, series: described.series, fps: video?.fps ?? 30, last: columns.step.at(-1) ?? 0, scale: 1, offset: 0 };
  }

  // How the lanes lie to the reference, which is the longest: its step is what the transport counts in.
  #arrange() {
    const length = (lane) => (this.align === "time" ? lane.last / lane.fps : lane.last);
    this.reference = this.lanes.reduce((most, lane) => (length(lane) > length(most) ? lane : most));
    for (const lane of this.lanes) {
      lane.scale = this.align === "time" ? lane.fps / this.reference.fps : 1;
      lane.offset = this.align === "end" ? this.reference.last - lane.last : 0;
    }
    this.last = this.reference.last;
  }

  #stepOf(lane, t) {
    return Math.min(lane.last, Math.max(0, Math.round(t * lane.scale) - lane.offset));
  }

  #showLanes() {
    fill(this.screens, this.lanes.map((lane) => {
      const { episode, video } = lane;
      lane.overlay = h("output", { class: "overlay" });
      let picture;
      if (video) {
        lane.screen = h("video", { playsinline: true, preload: "auto", tabindex: "-1" });
        lane.screen.muted = true;
        const firstFrame = video.id === episode.video ? episode.first_frame : null;
        lane.transport = new VideoTransport(lane.screen, new Frames(lane.columns, video.id, firstFrame), { fps: lane.fps, count: video.frames, first: 0, last: lane.last }, this.signal);
        lane.screen.src = video.file;
        picture = lane.screen;
      } else {
        lane.transport = new StepTransport({ fps: lane.fps, first: 0, last: lane.last }, this.signal);
        picture = h("p", { class: "reason" }, episode.video_text || "There is no video of this episode.");
      }
      lane.transport.addEventListener("moved", () => this.#moved(lane), { signal: this.signal });
      return h("section", { class: "lane" }, h("header", {}, h("i", { class: `swatch s${lane.place + 1}` }),
        h("a", { href: address(`/episodes/${encodeURIComponent(lane.id)}`) }, `${episode.label || shortSession(episode.session)} / episode ${count(episode.episode)}`),
        h("span", { class: "faint" }, `return ${number(episode.return)} · length ${count(lane.last)} · seed ${episode.seed ?? "–"}`),
        h("span", { class: "spring" }),
        this.lanes.length > 2 ? h("button", { type: "button", class: "quiet", "aria-label": "Leave it out", title: "Leave it out", onclick: () => this.#without(lane) }, "✕") : null),
      h("div", { class: "picture" }, picture, lane.overlay));
    }));
    mark(this.screens, "data-lanes", this.lanes.length);
  }

  #without(lane) {
    const ids = this.lanes.filter((one) => one !== lane).map((one) => one.id);
    go(address("/compare", { ...query(), ids: ids.join(",") }));
  }

  #showBar() {
    const button = (name, title, run) => h("button", { type: "button", class: `quiet ${name}`, title, "aria-label": title, onclick: run }, icon(name));
    this.playButton = button("play", "Play (space)", () => this.toggle());
    this.place = h("output", { class: "place" });
    const align = h("select", { "aria-label": "Align", class: "align" }, ALIGNMENTS.map(([value, text]) => h("option", { value, selected: value === this.align }, `aligned ${text}`)));
    align.addEventListener("change", () => {
      this.align = align.value;
      amend({ align: this.align === "step" ? null : this.align });
      this.pause();
      this.#arrange();
      this.#describeBar();
      this.seek(Math.min(this.t, this.last));
      attempt(() => this.#drawCharts());
    });
    const speed = h("select", { "aria-label": "Speed" }, RATES.map((rate) => h("option", { value: rate, selected: rate === 1 }, `${rate}×`)));
    speed.addEventListener("change", () => {
      this.rate = Number(speed.value);
      if (this.playing) this.#setRates();
    });
    const common = this.lanes[0].series.filter((one) => one.group !== "reward" && this.lanes.every((lane) => lane.series.some((other) => other.name === one.name)));
    const series = h("select", { "aria-label": "One more chart" }, h("option", { value: "" }, "one more chart…"), common.map((one) => h("option", { value: one.name }, one.name)));
    series.addEventListener("change", () => {
      if (series.value && !this.more.includes(series.value)) this.more.push(series.value);
      series.value = "";
      amend({ series: this.more.join(",") });
      attempt(() => this.#drawCharts());
    });
    this.export = h("button", { type: "button", class: "quiet export", title: "One video with all of them", disabled: this.lanes.some((lane) => !lane.video), onclick: () => this.#export() }, "Export MP4");
    fill(this.buttons, button("first", "Beginning (home)", () => this.seek(0)), button("back", "One step back (←)", () => this.by(-1)), this.playButton,
      button("forth", "One step on (→)", () => this.by(1)), button("last", "End (end)", () => this.seek(this.last)), speed, this.place,
      h("span", { class: "spring" }), series, align, this.export);
    this.#describeBar();
  }

  #describeBar() {
    const all = this.reference.columns.return;
    const every = Math.max(1, Math.floor(all.length / 300));
    this.bar.describe(0, this.last, Array.from(all.filter((_, place) => place % every === 0)), null);
  }

  // The one transport.

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.t >= this.last) this.seek(0);
    this.playing = true;
    this.#setRates();
    this.#sync();
    this.reference.transport.play();
    const tick = () => {
      if (!this.playing || this.signal.aborted) return;
      this.#sync();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.#showPlace();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    for (const lane of this.lanes) lane.transport.pause();
    // What was a picture ahead or behind while it played is brought together.
    this.seek(this.t);
  }

  seek(t) {
    this.t = Math.min(this.last, Math.max(0, Number.isFinite(t) ? t : 0));
    for (const lane of this.lanes) {
      lane.transport.seek(this.#stepOf(lane, this.t));
      mark(lane.overlay, "data-busy", lane.transport.busy);
    }
    this.#showPlace();
  }

  by(count) {
    this.pause();
    this.seek(this.t + count);
  }

  // All play at the reference's pace: by time at their own rate, else as many steps a second as it does.
  #setRates() {
    for (const lane of this.lanes) {
      lane.transport.setRate(this.align === "time" ? this.rate : (this.rate * this.reference.fps) / lane.fps);
    }
  }

  // The reference's picture is the clock while it plays; a lane that has not begun, or is over, waits.
  #sync() {
    const reference = this.reference.transport;
    this.t = reference.step;
    for (const lane of this.lanes) {
      if (lane === this.reference) continue;
      const [from, to] = [lane.offset / lane.scale, (lane.last + lane.offset) / lane.scale];
      const wanted = this.#stepOf(lane, this.t);
      const inside = this.t >= from && this.t < to;
      if (inside && !lane.transport.playing) {
        lane.transport.seek(wanted);
        lane.transport.play();
      } else if (!inside && lane.transport.playing) {
        lane.transport.pause();
        lane.transport.seek(wanted);
      } else if (inside && Math.abs(lane.transport.target - wanted) > Math.max(2, DRIFT_SECONDS * lane.fps * this.rate) && !lane.screen?.seeking) {
        lane.transport.seek(wanted);
      }
    }
    if (!reference.playing && this.t >= this.last) this.pause();
    this.#showPlace();
  }

  #moved(lane) {
    const { step } = lane.transport;
    const place = lastAtMost(lane.columns.step, lane.columns.step.length, step);
    mark(lane.overlay, "data-step", step);
    mark(lane.overlay, "data-busy", lane.transport.busy);
    say(lane.overlay, place < 0 ? `step ${count(step)}  after the reset` : `step ${count(step)}  reward ${number(lane.columns.reward[place])}  return ${number(lane.columns.return[place])}`);
  }

  #showPlace() {
    this.bar.point(this.t);
    say(this.place, `${count(this.t)} / ${count(this.last)}`);
    if (this.playButton.dataset.playing !== String(Boolean(this.playing))) {
      this.playButton.dataset.playing = Boolean(this.playing);
      fill(this.playButton, icon(this.playing ? "pause" : "play"));
    }
    for (const chart of this.charts ?? []) chart.point(this.t, this.#valuesAt(chart.dataset.key));
    this.#remember();
  }

  #valuesAt(series) {
    const values = {};
    for (const lane of this.lanes) {
      const step = this.#stepOf(lane, this.t);
      const columns = lane.columns[series] ? lane.columns : lane.drawn;
      if (!columns?.[series]) continue;
      const place = lastAtMost(columns.step, columns.step.length, step);
      if (place >= 0 && columns.step[place] === step) values[`lane${lane.place}`] = columns[series][place];
    }
    return values;
  }

  #remember = whenQuiet(0.3, () => this.signal.aborted || amend({ step: this.t || null }));

  // The charts: a line for each episode.

  async #drawCharts() {
    const names = ["reward", "return", ...this.more];
    const points = Math.max(400, Math.round(this.panels.clientWidth * 2));
    await Promise.all(this.lanes.map(async (lane) => {
      const { columns } = await steps(lane.id, ["step", ...names.filter((name) => lane.series.some((one) => one.name === name))], { points }, this.signal);
      lane.drawn = columns;
    }));
    this.charts = names.map((name) => this.charts?.find((chart) => chart.dataset.key === name) ?? this.#newChart(name));
    fill(this.panels, this.charts);
    const places = Object.fromEntries(this.lanes.map((lane) => [`lane${lane.place}`, Float64Array.from(lane.drawn.step, (step) => (step + lane.offset) / lane.scale)]));
    for (const chart of this.charts) {
      const name = chart.dataset.key;
      chart.describe({ reward: "Reward", return: "Return so far" }[name] ?? name, this.lanes.map((lane) => ({ name: `lane${lane.place}`, label: `episode ${lane.episode.episode}`, group: name.startsWith("action") ? "action" : "" })));
      const columns = { step: this.reference.drawn.step };
      for (const lane of this.lanes) if (lane.drawn[name]) columns[`lane${lane.place}`] = lane.drawn[name];
      chart.draw(columns, [0, Math.max(1, this.last)], { places });
    }
    this.#showPlace();
  }

  #newChart(name) {
    const chart = h("step-chart", { "data-key": name });
    this.listen(chart, "seek", ({ detail }) => {
      this.pause();
      this.seek(detail);
    });
    this.listen(chart, "hover", ({ detail }) => this.charts.forEach((other) => other.shadow(detail)));
    return chart;
  }

  // All of them as one video, made by the server.

  async #export() {
    const asked = await attempt(() => change("POST", "/api/comparisons", { ids: this.lanes.map((lane) => lane.id), align: this.align }));
    if (!asked) return;
    this.export.disabled = true;
    let made = asked;
    while (made?.state === "running" && !this.signal.aborted) {
      say(this.export, made.percent ? `Exporting ${made.percent} %` : "Exporting…");
      await new Promise((resolve) => setTimeout(resolve, 500));
      made = await attempt(() => get(`/api/comparisons/${encodeURIComponent(asked.id)}`, {}, this.signal));
    }
    if (this.signal.aborted) return;
    this.export.disabled = false;
    say(this.export, "Export MP4");
    if (made?.state === "ready") {
      this.export.after(h("a", { class: "button take", href: made.file, download: "" }, "Save the MP4"));
      notify("The video is ready.");
    } else if (made) {
      notify(`The export failed: ${made.error}`, true);
    }
  }

  #bindKeys() {
    bind("Compare", [
      { keys: [" "], does: "Play, pause", run: () => this.toggle() },
      { keys: ["ArrowLeft"], does: "One step back", run: () => this.by(-1) },
      { keys: ["ArrowRight"], does: "One step on", run: () => this.by(1) },
      { keys: ["Shift+ArrowLeft"], does: "Ten steps back", run: () => this.by(-10) },
      { keys: ["Shift+ArrowRight"], does: "Ten steps on", run: () => this.by(10) },
      { keys: ["Home"], does: "Beginning", run: () => this.seek(0) },
      { keys: ["End"], does: "End", run: () => this.seek(this.last) },
    ], this.signal);
  }
}

customElements.define("compare-page", ComparePage);

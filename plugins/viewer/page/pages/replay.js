// Replay: one episode, its video and its numbers, by one clock.

import { address, amend, go, query } from "../address.js";
import { change, get, steps } from "../api.js";
import { episodeHeader, pinButton } from "../episode-header.js";
import { fill, h, mark, Part, say, whenQuiet } from "../element.js";
import { bytes, count, number, value } from "../format.js";
import { Frames, lastAtMost } from "../frames.js";
import { icon } from "../icon.js";
import { bind } from "../keys.js";
import { attempt, confirm, empty, notify } from "../notice.js";
import { RowCache } from "../row-cache.js";
import { Preview } from "../scrub-bar.js";
import { valueIn } from "../series.js";
import { stream } from "../stream.js";
import { StepTransport, VideoTransport } from "../transport.js";
import "../chart-list.js";
import "../virtual-table.js";

const RATES = [0.1, 0.25, 0.5, 1, 2, 4, 8, 16];

export class ReplayPage extends Part {
  async open() {
    this.id = decodeURIComponent(location.pathname.split("/").at(-1));
    this.#frame();
    const asked = query();
    this.wantedVideo = asked.video ? Number(asked.video) : null;
    try {
      await this.#load();
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(this, empty("This episode cannot be shown", error.message, h("p", {}, h("a", { href: "/episodes" }, "All episodes"))));
      this.dataset.ready = "";
      return;
    }
    if (this.signal.aborted) return;
    this.#stage(Number(asked.step ?? 0));
    this.#bindKeys();
    this.#follow();
    await attempt(() => this.#loadSeries());
    this.dataset.ready = "";
  }

  close() {
    this.#closeVideo();
  }

  get path() {
    return `/api/episodes/${encodeURIComponent(this.id)}`;
  }

  // The parts that are there from the first moment on, so that nothing moves when their content comes.
  #frame() {
    this.header = h("header", { class: "bar" });
    this.picture = h("div", { class: "picture" });
    this.bar = h("scrub-bar");
    this.buttons = h("div", { class: "buttons" });
    this.table = h("virtual-table", { class: "steps" });
    this.charts = h("chart-list", { class: "right", role: "region", "aria-label": "Charts" });
    this.series = null;
    fill(this, this.header, h("div", { class: "replay" },
      h("section", { class: "left", "aria-label": "Video and steps" }, this.picture, h("div", { class: "transport" }, this.bar, this.buttons), this.table),
      this.charts));
    this.listen(this.bar, "seek", ({ detail }) => this.seek(detail));
    this.listen(this.charts, "seek", ({ detail }) => this.seek(detail));
    this.listen(this.charts, "drawn", () => this.#aimed(this.transport.target));
    this.listen(this.table, "active", ({ detail }) => this.seek(detail === 0 ? 0 : this.columns.step[detail - 1]));
  }

  async #load() {
    const [episode, columns] = await Promise.all([
      get(this.path, {}, this.signal),
      steps(this.id, ["step", "frame", "frames", "video", "reward"], {}, this.signal),
    ]);
    this.episode = episode;
    this.nonfinite ??= [];
    this.columns = columns.columns;
    this.returns = runningSum(this.columns.reward);
    this.first = 0;
    this.last = this.columns.step.length ? this.columns.step.at(-1) : 0;
    const playable = episode.videos.filter((one) => one.state === "available");
    this.video = playable.find((one) => one.id === this.wantedVideo) ?? playable.find((one) => one.id === episode.video) ?? playable[0] ?? null;
    this.#showHeader();
    document.title = `episode ${episode.episode} · ${episode.env} · Stepreel`;
  }

  #showHeader() {
    const { id, path, episode, video } = this;
    const does = { pin: () => this.#pin(), copyLink: () => this.#copyLink(), remove: () => this.#delete() };
    fill(this.header, episodeHeader({ id, path, episode, video, length: episode.length ?? this.last, step: () => this.transport.step, does }));
  }

  async #pin() {
    if (!this.video) return;
    const path = `/api/videos/${this.video.id}/pin`;
    const asked = await attempt(() => change(this.video.pinned ? "DELETE" : "PUT", path));
    if (!asked) return;
    this.video.pinned = !this.video.pinned;
    this.header.querySelector(".pin").replaceWith(pinButton(this.video, () => this.#pin()));
  }

  async #delete() {
    const yes = await confirm("Delete this video?", { detail: `${bytes(this.video.bytes)}. The steps stay.`, yes: "Delete" });
    if (yes && (await attempt(() => change("DELETE", `/api/videos/${this.video.id}`)))) notify("The video will be removed.");
  }

  async #copyLink() {
    const link = new URL(address(location.pathname, { ...query(), step: this.transport.step }), location.href).href;
    await attempt(() => navigator.clipboard.writeText(link));
    notify("Link copied.");
  }

  // The stage: the picture, or why there is none; and the clock.

  #stage(step) {
    this.#closeVideo();
    this.playing = new AbortController();
    const { signal } = this.playing;
    this.signal.addEventListener("abort", () => this.playing.abort());
    const fps = this.video?.fps ?? 30;
    let preview = null;
    if (this.video) {
      const firstFrame = this.video.id === this.episode.video ? this.episode.first_frame : null;
      const frames = new Frames(this.columns, this.video.id, firstFrame);
      const shape = `${this.video.width} / ${this.video.height}`;
      this.overlay = h("output", { class: "overlay" });
      this.screen = h("video", { playsinline: true, preload: "auto", tabindex: "-1", "aria-label": `Video of episode ${this.episode.episode}` });
      this.screen.muted = true;
      this.screen.style.aspectRatio = shape;
      this.screen.addEventListener("click", () => this.toggle(), { signal });
      this.screen.addEventListener("error", () => this.screen.error && this.#noPicture(`The video cannot be played: ${this.screen.error.message || "the file is gone"}.`), { signal });
      fill(this.picture, h("div", { class: "screen" }, this.screen, this.overlay));
      mark(this.picture, "class", "picture");
      this.frames = frames;
      this.transport = new VideoTransport(this.screen, frames, { fps, count: this.video.frames, first: this.first, last: this.last }, signal);
      preview = new Preview(this.video.file, frames, fps, shape);
      signal.addEventListener("abort", () => preview.close());
      this.screen.src = this.video.file;
    } else {
      this.frames = null;
      this.overlay = h("output", { class: "overlay" });
      this.transport = new StepTransport({ fps, first: this.first, last: this.last }, signal);
      this.#noPicture(this.episode.video_text || "There is no video of this episode.");
    }
    this.bar.describe(this.first, this.last, thinned(this.returns), preview);
    this.#showButtons();
    this.#showTable();
    this.transport.addEventListener("moved", () => this.#moved(), { signal });
    this.transport.addEventListener("sought", ({ detail }) => this.#aimed(detail), { signal });
    this.transport.seek(Number.isFinite(step) ? step : 0);
  }

  #noPicture(reason) {
    const more = this.episode.videos.length > 1 ? this.episode.videos.map((one) => one.text || one.state).join("; ") : "";
    fill(this.picture, h("div", { class: "reason" },
      h("p", {}, h("strong", {}, sentence(reason))), more && more !== reason ? h("p", {}, more) : null,
      h("p", {}, "Its steps are all here: play them, or click in a chart.")), this.overlay);
    mark(this.picture, "class", "picture none");
  }

  #closeVideo() {
    this.playing?.abort();
    if (!this.screen) return;
    this.screen.pause();
    this.screen.removeAttribute("src");
    this.screen.load(); // lets go of the connection
    this.screen = null;
  }

  #showButtons() {
    const button = (name, title, run, text = icon(name)) => h("button", { type: "button", class: `quiet ${name}`, title, "aria-label": title, onclick: run }, text);
    this.playButton = button("play", "Play (space)", () => this.toggle());
    this.place = h("output", { class: "place" });
    this.speed = h("select", { title: "Speed (− and +)", "aria-label": "Speed" },
      RATES.map((rate) => h("option", { value: rate, selected: rate === this.transport.rate }, `${rate}×`)));
    this.speed.addEventListener("change", () => this.transport.setRate(Number(this.speed.value)));
    const several = this.episode.videos.filter((one) => one.state === "available");
    const choice = several.length > 1 ? h("select", { "aria-label": "Recording" }, several.map((one, place) =>
      h("option", { value: one.id, selected: one.id === this.video?.id }, `recording ${place + 1} of ${several.length}`))) : null;
    choice?.addEventListener("change", () => {
      this.video = several.find((one) => one.id === Number(choice.value));
      amend({ video: this.video.id });
      this.#stage(this.transport.step);
    });
    fill(this.buttons,
      button("first", "First step (home)", () => this.seek(this.first)), button("back", "One step back (←)", () => this.by(-1)),
      this.playButton,
      button("forth", "One step on (→)", () => this.by(1)), button("last", "Last step (end)", () => this.seek(this.last)),
      this.speed, this.place, h("span", { class: "spring" }), choice,
      this.nonfinite.length ? button("odd", "Next value that is not finite (N)", () => this.#nextOdd(), `${count(this.nonfinite.length)} not finite`) : null);
  }

  toggle() {
    if (this.transport.playing) this.transport.pause();
    else this.transport.play();
  }

  seek(step) {
    this.transport.seek(step);
  }

  // Whoever moves by steps while it plays wants to look.
  by(count) {
    this.transport.pause();
    const { step } = this.columns;
    const place = lastAtMost(step, step.length, this.transport.target) + count;
    this.seek(place < 0 ? this.first : step[Math.min(place, step.length - 1)] ?? this.first);
  }

  #rate(by) {
    const rate = RATES[Math.min(RATES.length - 1, Math.max(0, RATES.indexOf(this.transport.rate) + by))];
    this.speed.value = rate;
    this.transport.setRate(rate);
  }

  #nextOdd() {
    const next = this.nonfinite.find((one) => one.step > this.transport.target) ?? this.nonfinite[0];
    if (next) this.seek(next.step);
  }

  // A seek was asked for: what is not the picture may already be there.
  #aimed(step) {
    mark(this.overlay, "data-busy", this.transport.busy);
    this.bar.point(step);
    this.charts.aim(step, this.#valuesAt(step));
  }

  // The clock has moved: this is the step whose picture is shown.
  #moved() {
    const { transport } = this;
    const { step, playing } = transport;
    const place = this.#rowOf(step);
    const row = step === 0 ? null : this.cache.at(place);
    if (step !== 0 && !row) this.cache.want(place, place + 1);
    else if (playing) this.cache.want(place, Math.min(this.columns.step.length, place + 240));
    this.#overlay(step, place, row);
    say(this.place, `${count(step)} / ${count(this.last)}`);
    if (this.playButton.dataset.playing !== String(playing)) {
      this.playButton.dataset.playing = playing;
      fill(this.playButton, icon(playing ? "pause" : "play"));
    }
    const target = transport.target;
    this.bar.point(target);
    this.charts.aim(target, this.#valuesAt(target));
    if (this.table.active !== place + 1) this.table.activate(place + 1, "center");
    this.#remember();
  }

  #overlay(step, place, row) {
    mark(this.overlay, "data-step", this.transport.within ? step : "");
    mark(this.overlay, "data-busy", this.transport.busy);
    const words = [`step ${count(step)}`];
    if (!this.transport.within) words.splice(0, 1, "another episode");
    else if (step === 0) words.push("after the reset");
    else {
      words.push(`reward ${number(this.columns.reward[place])}`);
      words.push(row ? `action ${value(row.action)}` : "action …");
      if (this.frames && !this.frames.shows(step)) words.push("no picture of this step");
    }
    if (this.overlay.childElementCount !== words.length) fill(this.overlay, words.map(() => h("span", {})));
    words.forEach((word, index) => say(this.overlay.children[index], word));
  }

  #rowOf(step) {
    const { step: all } = this.columns;
    return lastAtMost(all, all.length, step);
  }

  #valuesAt(step) {
    const place = this.#rowOf(step);
    if (place < 0) return null;
    const values = { reward: this.columns.reward[place], return: this.returns[place] };
    const row = this.cache?.at(place);
    if (row) for (const name of this.charts.names) values[name] ??= valueIn(row, name);
    for (const [name, known] of Object.entries(values)) if (known === undefined) delete values[name];
    return values;
  }

  #remember = whenQuiet(0.3, () => {
    if (!this.signal.aborted) amend({ step: this.transport.step || null });
  });

  // The table of steps.

  #showTable() {
    const all = this.columns.step;
    this.cache = new RowCache(
      async (offset, limit) => (offset < all.length ? (await get(`${this.path}/rows`, { from: all[offset], limit }, this.signal)).rows : []),
      () => {
        this.table.refresh();
        this.#moved();
      });
    const reset = { step: 0, action: null, reward: null, observation: this.episode.reset_observation, info: this.episode.reset_info, nonfinite: this.episode.reset_nonfinite ?? {} };
    this.table.show({
      label: "Steps",
      rowHeight: 22,
      columns: [
        { key: "step", title: "step", width: "62px", kind: "number", cell: (row) => count(row.step) },
        { key: "reward", title: "reward", width: "72px", kind: "number", cell: (row) => marked(row, "reward", number(row.reward)) },
        { key: "action", title: "action", width: "minmax(60px, 1fr)", cell: (row) => marked(row, "action", value(row.action)) },
        { key: "observation", title: "observation", width: "minmax(90px, 2fr)", cell: (row) => marked(row, "observation", value(row.observation)) },
        { key: "info", title: "info", width: "minmax(60px, 1.4fr)", cell: (row) => marked(row, "info", value(row.info)) },
        { key: "end", title: "", width: "20px", kind: "sign", cell: (row) => (row.terminated ? h("span", { title: "terminated" }, "■") : row.truncated ? h("span", { title: "truncated" }, "▷") : "") },
      ],
      rowAt: (index) => (index === 0 ? reset : this.cache.at(index - 1)),
      want: (from, to) => this.cache.want(Math.max(0, from - 1), Math.max(1, to - 1)),
      act: (row) => this.seek(row.step),
    });
    this.table.refresh(all.length + 1);
  }

  // The charts.

  async #loadSeries() {
    const { id, last, episode } = this;
    // What every episode has is drawn at once; of a long one, the names of all its series take longer.
    if (!this.series && last) {
      const first = ["reward", "return"].map((name) => ({ name, group: "reward" }));
      await this.charts.show({ id, last, series: first, nonfinite: [], running: episode.running });
    }
    const { series, nonfinite } = await get(`${this.path}/series`, {}, this.signal);
    this.series = last ? series : [];
    this.nonfinite = nonfinite;
    this.#showButtons();
    this.#moved();
    await this.charts.show({ id, last, series: this.series, nonfinite, running: episode.running });
  }

  // What changes while it is looked at.

  #follow() {
    let busy = false;
    const renew = async () => {
      const open = this.episode.running || this.episode.videos.some((one) => ["recording", "encoding"].includes(one.state)) || this.stale;
      if (!open || busy || document.hidden) return;
      busy = true;
      try {
        this.stale = false;
        const before = { steps: this.columns.step.length, video: this.video?.id, text: this.episode.video_text };
        await this.#load();
        const grown = this.columns.step.length !== before.steps;
        if (this.video?.id !== before.video || grown || this.episode.video_text !== before.text) this.#stage(this.transport.step);
        if (grown) await this.#loadSeries();
      } finally {
        busy = false;
      }
    };
    let timer = 0;
    stream.on("tables", () => {
      timer ||= setTimeout(() => {
        timer = 0;
        if (!this.signal.aborted) attempt(renew);
      }, 1500);
    }, this.signal);
    stream.onEvents(["VideoPinned", "VideoUnpinned", "VideoPruned", "VideoAvailable", "VideoFailed", "RecordingDiscarded"], (event) => {
      if (this.episode.videos.some((one) => one.recording === event.recording)) this.stale = true;
    }, this.signal);
  }

  #bindKeys() {
    const open = (id) => id && go(address(`/episodes/${encodeURIComponent(id)}`));
    bind("Replay", [
      { keys: [" "], does: "Play, pause", run: () => this.toggle() },
      { keys: ["ArrowLeft"], does: "One step back", run: () => this.by(-1) },
      { keys: ["ArrowRight"], does: "One step on", run: () => this.by(1) },
      { keys: ["Shift+ArrowLeft"], does: "Ten steps back", run: () => this.by(-10) },
      { keys: ["Shift+ArrowRight"], does: "Ten steps on", run: () => this.by(10) },
      { keys: ["Home"], does: "First step", run: () => this.seek(this.first) },
      { keys: ["End"], does: "Last step", run: () => this.seek(this.last) },
      { keys: ["-"], does: "Slower", run: () => this.#rate(-1) },
      { keys: ["+", "="], does: "Faster", run: () => this.#rate(1) },
      { keys: ["n"], does: "Next value that is not finite", run: () => this.#nextOdd() },
      { keys: ["z"], does: "Charts: all steps", run: () => this.charts.zoomOut() },
      { keys: ["o"], does: "Overlay on, off", run: () => this.classList.toggle("bare") },
      { keys: ["b"], does: "The session's best episode", run: () => open(this.episode.best) },
      { keys: ["w"], does: "The session's worst episode", run: () => open(this.episode.worst) },
      { keys: ["j"], does: "Previous episode", run: () => open(this.episode.previous) },
      { keys: ["k"], does: "Next episode", run: () => open(this.episode.next) },
      { keys: ["p"], does: "Pin, unpin", run: () => this.#pin() },
      { keys: ["y"], does: "Copy a link to this step", run: () => this.#copyLink() },
    ], this.signal);
  }
}

function runningSum(rewards) {
  const sums = new Float64Array(rewards.length);
  let sum = 0;
  for (let place = 0; place < rewards.length; place += 1) {
    if (Number.isFinite(rewards[place])) sum += rewards[place];
    sums[place] = sum;
  }
  return sums;
}

function thinned(values) {
  const every = Math.max(1, Math.floor(values.length / 300));
  return Array.from({ length: Math.ceil(values.length / every) }, (_, place) => values[place * every]);
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

// A value, with those of its parts that are not finite named.
function marked(row, field, text) {
  const odd = Object.entries(row.nonfinite ?? {}).filter(([name]) => name === field || name.startsWith(`${field}.`));
  const full = h("span", { title: text }, text);
  return odd.length ? [h("b", { class: "bad", title: odd.map(([name, what]) => `${name} is ${what}`).join("\n") }, `${odd[0][1]} `), full] : full;
}

customElements.define("replay-page", ReplayPage);

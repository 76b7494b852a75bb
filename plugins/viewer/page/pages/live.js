// Live: a tile for each worker, with its picture while it is in view.

import { about } from "../about.js";
import { address, amend, query } from "../address.js";
import { get, rows } from "../api.js";
import { fill, h, mark, Part, say } from "../element.js";
import { age, count, duration, number, shortSession } from "../format.js";
import { bind } from "../keys.js";
import { attempt, empty } from "../notice.js";
import { stream } from "../stream.js";
import { thumbnail } from "../thumbnail.js";
import "../sparkline.js";

const SPARK = 160; // points of a return's line
const KEPT_LARGE = 150; // pictures of the tile that is enlarged; of the others, as many as the viewer was told

export class LivePage extends Part {
  async open() {
    this.tiles = new Map(); // worker id: tile
    this.visible = new Set();
    this.grid = h("div", { class: "tiles" });
    this.nothing = h("div", { hidden: true });
    this.recent = h("div", { class: "recent" });
    this.count = h("output", { class: "faint" });
    fill(this, h("div", { class: "bar" }, h("h1", {}, "Live"), this.count, h("span", { class: "spring" }), h("span", { class: "hint" }, "click a tile to enlarge it")),
      h("div", { class: "scrolls live" }, this.nothing, this.grid, this.recent));
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.visible.add(target.worker.id);
        else this.visible.delete(target.worker.id);
      }
      this.#watch();
    }, { root: this.querySelector(".scrolls"), rootMargin: "40px" });
    stream.on("workers", ({ workers }) => this.#show(workers), this.signal);
    stream.on("picture", (picture) => this.large || this.tiles.get(picture.worker)?.draw(picture), this.signal);
    stream.on("connection", ({ connected }) => mark(this, "data-lost", !connected), this.signal);
    stream.onEvents(["VideoAvailable", "VideoPruned"], (event) => {
      this.videosChanged = true;
      if (event.type === "VideoAvailable") for (const one of [...this.tiles.values(), this.large]) one?.forget(event);
    }, this.signal);
    stream.on("tables", () => this.videosChanged && this.#showRecent(), this.signal);
    this.listen(document, "visibilitychange", () => this.#watch());
    bind("Live", [{ keys: ["Enter"], does: "Enlarge the first tile", run: () => this.#enlarge(this.grid.firstElementChild?.worker.id) }], this.signal);
    this.#show(stream.workers);
    await this.#showRecent();
    this.dataset.ready = "";
    const asked = query().worker;
    if (asked && this.tiles.has(asked)) this.#enlarge(asked);
  }

  close() {
    this.seen.disconnect();
    stream.watch("tiles", []);
    stream.watch("large", []);
  }

  #show(workers) {
    const known = new Set(workers.map((one) => one.id));
    for (const [id, tile] of this.tiles) {
      if (known.has(id)) continue;
      this.seen.unobserve(tile);
      this.visible.delete(id);
      this.tiles.delete(id);
      tile.remove();
    }
    for (const worker of workers) {
      let tile = this.tiles.get(worker.id);
      if (!tile) {
        tile = h("live-tile", { tabindex: "0", role: "button" });
        tile.worker = worker;
        tile.addEventListener("click", () => this.#enlarge(worker.id));
        tile.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          event.stopPropagation();
          this.#enlarge(worker.id);
        });
        this.tiles.set(worker.id, tile);
        this.grid.append(tile);
        this.seen.observe(tile);
        this.#standIn(tile);
      }
      tile.show(worker);
    }
    say(this.count, workers.length ? `${count(workers.length)} ${workers.length === 1 ? "worker" : "workers"}` : "");
    this.nothing.hidden = workers.length > 0;
    if (!workers.length && !this.nothing.childElementCount) {
      fill(this.nothing, empty("Nobody is stepping now", h("p", {}, "Tiles appear when a run begins: ", h("code", {}, "python -m kernel config/quickstart.toml")), h("p", {}, h("a", { href: "/episodes" }, "Look at what was recorded"))));
    }
    this.#watch();
    this.large?.show(workers.find((one) => one.id === this.large.worker.id));
  }

  #standIn(tile) {
    const own = this.filmed?.find((row) => row.session === tile.worker.session && row.worker === tile.worker.worker);
    tile.standIn(own?.thumbnail ?? null);
  }

  #watch() {
    const looking = document.hidden ? [] : [...this.visible];
    stream.watch("tiles", this.large ? [] : looking);
    stream.watch("large", this.large && !document.hidden ? [this.large.worker.id] : []);
  }

  #enlarge(id) {
    const tile = this.tiles.get(id);
    if (!tile || this.large) return;
    this.large = h("live-large");
    this.large.worker = tile.worker;
    this.large.returns = tile.returns;
    this.large.kept = [...tile.kept];
    const dialog = h("dialog", { class: "large", "aria-label": `Worker ${tile.worker.worker}` }, this.large);
    dialog.addEventListener("close", () => {
      dialog.remove();
      this.large = null;
      amend({ worker: null });
      this.#watch();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    this.append(dialog);
    amend({ worker: id });
    dialog.showModal();
    this.#watch();
  }

  // Videos that were made of late; where there is no worker, they are what there is to see.
  async #showRecent() {
    this.videosChanged = false;
    await attempt(async () => {
      const answer = await get("/api/episodes", { video: "available", sort: "-ended", limit: 8 }, this.signal);
      const filmed = rows(answer.columns);
      this.filmed = filmed;
      for (const tile of this.tiles.values()) this.#standIn(tile);
      fill(this.recent, filmed.length ? h("h3", {}, "Latest videos") : null, h("div", {}, filmed.map((row) =>
        h("a", { href: address(`/episodes/${encodeURIComponent(row.id)}`), class: "film" }, thumbnail(row.thumbnail, row.strip),
          h("span", {}, `episode ${count(row.episode)}`), h("small", {}, `return ${number(row.return)} · ${age(row.ended)}`)))));
    });
  }
}

const STATES = { paused: "paused", ended: "ended", failed: "failed", lost: "lost" };

/** What is left of pictures when a video of some of their episodes stands: it is better than they are. */
function withoutFilmed(kept, worker, { session, worker: index, last_episode: last }) {
  return worker.session === session && worker.worker === index ? kept.filter((picture) => picture.episode > last) : kept;
}

export class LiveTile extends Part {
  returns = [];
  kept = [];
  #episode = null;

  open() {
    if (this.canvas) return;
    this.canvas = h("canvas", { width: 320, height: 200 });
    this.note = h("div", { class: "waiting" }, "waiting for a picture");
    this.stand = h("img", { class: "stand", alt: "", hidden: true });
    this.rec = h("span", { class: "rec", hidden: true, title: "This episode is being recorded" }, "REC");
    this.name = h("strong", {});
    this.env = h("span", { class: "faint" });
    this.state = h("span", { class: "state" });
    this.spark = h("spark-line");
    this.values = Object.fromEntries(["episode", "step", "return", "rate"].map((key) => [key, h("output", {}, "–")]));
    this.append(h("div", { class: "shot" }, this.canvas, this.stand, this.note, this.rec, this.state),
      h("div", { class: "line" }, this.name, this.env),
      h("dl", {}, [["episode", "episode"], ["step", "step"], ["return", "return"], ["rate", "steps/s"]].map(([key, text]) => h("div", { "data-key": key }, h("dt", {}, text), h("dd", {}, this.values[key])))),
      h("div", { class: "spark" }, this.spark));
    if (this.worker) this.show(this.worker);
  }

  /** What is known of the worker. */
  show(worker) {
    this.worker = worker;
    if (!this.canvas) return;
    this.dataset.worker = worker.id;
    mark(this, "data-state", worker.state);
    say(this.name, `${worker.label || shortSession(worker.session)} · ${worker.worker}`);
    say(this.env, worker.env);
    mark(this.env, "title", worker.session);
    this.rec.hidden = !worker.recording || worker.state !== "running";
    say(this.state, STATES[worker.state] ?? (worker.evaluation ? "evaluation" : ""));
    say(this.values.rate, worker.steps_per_second === null ? "–" : number(Number(worker.steps_per_second.toPrecision(3))));
    if (worker.episode !== null) this.#at(worker.episode, worker.step, worker.return);
    if (worker.state !== "running" && worker.state !== "paused") say(this.note, "It has ended.");
    else if (worker.pictures === false) say(this.note, "This environment shows no pictures: it has no render mode rgb_array.");
  }

  /** A picture came; when it is drawn, the next one may. */
  async draw(picture) {
    try {
      const image = await createImageBitmap(picture.jpeg);
      if (!this.isConnected) return;
      if (this.canvas.width !== image.width || this.canvas.height !== image.height) Object.assign(this.canvas, { width: image.width, height: image.height });
      this.canvas.getContext("2d").drawImage(image, 0, 0);
      image.close();
      this.note.hidden = this.stand.hidden = true;
      this.kept = [...this.kept, picture].slice(-Math.max(1, about.frame_cache));
      this.dataset.pictures = Number(this.dataset.pictures ?? 0) + 1;
      this.dataset.step = picture.step;
      this.#at(picture.episode, picture.step, picture.return);
    } finally {
      stream.ack(picture.picture);
    }
  }

  forget(video) {
    this.kept = withoutFilmed(this.kept, this.worker, video);
  }

  /** Where no picture came, that of the latest video stands in. */
  standIn(thumbnail) {
    this.stand.hidden = !thumbnail || this.note.hidden;
    if (thumbnail) this.stand.src = thumbnail;
  }

  #at(episode, step, sum) {
    if (this.#episode !== null && episode < this.#episode) return; // said before a picture that was drawn already
    if (episode !== this.#episode) {
      this.#episode = episode;
      this.returns = [];
    }
    say(this.values.episode, count(episode));
    if (step !== null && step !== undefined) say(this.values.step, count(step));
    if (sum === null || sum === undefined) return;
    say(this.values.return, number(sum));
    this.returns.push(sum);
    if (this.returns.length > SPARK) this.returns = this.returns.filter((_, place) => place % 2 === 0);
    this.spark.values = this.returns;
  }
}

/** One worker, large, with its last pictures to look at again. */
export class LiveLarge extends Part {
  kept = [];

  open() {
    this.tile = h("live-tile", { class: "big" });
    this.tile.worker = this.worker;
    this.again = h("img", { class: "again", alt: "", hidden: true });
    this.bar = h("input", { type: "range", min: 0, max: 0, value: 0, disabled: true, "aria-label": "Last pictures" });
    this.place = h("output", { class: "faint" }, "live");
    this.link = h("a", { class: "button quiet", hidden: true }, "Open the episode");
    this.hold = h("button", { type: "button", class: "quiet", title: "Hold, go on (space)", onclick: () => this.#toggle() }, "Hold");
    fill(this, this.tile, this.again, h("div", { class: "bar" }, this.hold, this.bar, this.place, h("span", { class: "spring" }), this.link,
      h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => this.closest("dialog").close() }, "✕")));
    this.tile.returns = [...(this.returns ?? [])];
    this.listen(this.bar, "input", () => this.#look());
    this.listen(this, "keydown", (event) => {
      if (event.key === " " && event.target.localName !== "button") {
        event.preventDefault();
        this.#toggle();
      }
    });
    stream.on("picture", (picture) => {
      if (picture.worker !== this.worker.id) return;
      if (this.held) {
        stream.ack(picture.picture); // what comes while it is held is not looked at
        return;
      }
      this.kept = [...this.kept, picture].slice(-KEPT_LARGE);
      this.tile.draw(picture);
    }, this.signal);
    this.show(this.worker);
  }

  close() {
    this.#drop();
  }

  show(worker) {
    if (!worker || !this.tile) return;
    this.worker = worker;
    this.tile.show(worker);
    mark(this.link, "href", worker.episode_id ? address(`/episodes/${encodeURIComponent(worker.episode_id)}`) : null);
    this.link.hidden = !worker.episode_id;
  }

  forget(video) {
    if (!this.held) this.kept = withoutFilmed(this.kept, this.worker, video);
  }

  // Hold the picture, and look at those before it; or go on.
  #toggle() {
    this.held = !this.held && this.kept.length > 0;
    say(this.hold, this.held ? "Go on" : "Hold");
    this.bar.disabled = !this.held;
    this.bar.max = this.held ? this.kept.length - 1 : 0;
    this.bar.value = this.bar.max;
    if (this.held) {
      this.#look();
    } else {
      this.#drop();
      say(this.place, "live");
    }
  }

  #look() {
    const picture = this.kept[Number(this.bar.value)];
    this.#drop();
    this.again.src = URL.createObjectURL(picture.jpeg);
    this.again.hidden = false;
    const ago = Math.max(0, Date.now() / 1000 - picture.time);
    say(this.place, `episode ${count(picture.episode)} · step ${count(picture.step)} · return ${number(picture.return)} · ${duration(ago)} ago`);
  }

  #drop() {
    if (this.again.src) URL.revokeObjectURL(this.again.src);
    this.again.hidden = true;
  }
}

customElements.define("live-tile", LiveTile);
customElements.define("live-large", LiveLarge);
customElements.define("live-page", LivePage);

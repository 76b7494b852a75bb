// Progress: how return, length and success change with environment steps; each video is a point on the curve.

import { address, amend, go, query } from "../address.js";
import { get, rows } from "../api.js";
import { fill, h, mark, Part, say, whenQuiet } from "../element.js";
import { age, clock, count, number, percent, shortSession } from "../format.js";
import { bind } from "../keys.js";
import { attempt, empty } from "../notice.js";
import { axis, colour, layout, onTheme, plotly, seriesColour } from "../plotly.js";
import { stream } from "../stream.js";

const CHARTS = [
  { key: "return", title: "Return", of: (row) => row.return, share: 5 },
  { key: "length", title: "Length", of: (row) => row.length, share: 3 },
  { key: "success", title: "Success rate", of: (row) => (row.success === null ? null : Number(row.success)), share: 3 },
];
const ACROSS = [["x", "environment steps"], ["episode", "episode"], ["ended", "time"]];
const DOTS = 2500; // episodes of a session that are drawn one by one; the mean is of all of them
const MOST = 4; // videos beside each other, and sessions over each other
const CONFIG = { displayModeBar: false, responsive: false, doubleClick: "reset" };

export class ProgressPage extends Part {
  async open() {
    const asked = query();
    this.wanted = asked.session?.split(",") ?? null;
    this.across = ACROSS.some(([key]) => key === asked.x) ? asked.x : "x";
    this.window = Number(asked.smooth) || null;
    this.picked = asked.pick?.split(",") ?? [];
    this.#frame();
    await attempt(() => this.#load());
    this.dataset.ready = "";
    onTheme(() => this.#draw(), this.signal);
    this.#follow();
    bind("Progress", [
      { keys: ["e"], does: "Choose the first and the last video", run: () => this.#earlyAndLate() },
      { keys: ["m"], does: "Compare the chosen videos", run: () => this.#compare() },
      { keys: ["x"], does: "Choose none", run: () => this.#pick([]) },
    ], this.signal);
  }

  close() {
    this.card?.remove();
    for (const plot of Object.values(this.plots ?? {})) globalThis.Plotly?.purge(plot);
  }

  #frame() {
    this.head = h("div", { class: "bar filters" });
    this.facts = h("div", { class: "facts" });
    this.plots = {};
    const charts = CHARTS.map(({ key, title, share }) => {
      this.plots[key] = h("div", { class: "plot" });
      return h("section", { class: "curve", hidden: true, "data-key": key, style: `flex: ${share} 1 0` }, h("h3", {}, title), h("div", { class: "canvas" }, this.plots[key]));
    });
    this.curves = h("div", { class: "curves" }, charts);
    this.tray = h("div", { class: "bar tray" });
    this.card = h("div", { class: "card", hidden: true });
    document.body.append(this.card);
    this.nothing = h("div", { hidden: true });
    fill(this, this.head, this.facts, this.curves, this.tray, this.nothing);
    const resized = whenQuiet(0.15, () => this.#draw());
    const observer = new ResizeObserver(() => this.sessions && resized());
    observer.observe(this.curves);
    this.signal.addEventListener("abort", () => observer.disconnect());
  }

  async #load() {
    const { sessions } = await get("/api/sessions", {}, this.signal);
    this.all = sessions;
    const known = this.wanted?.filter((one) => sessions.some(({ session }) => session === one)) ?? [];
    this.shown = known.length ? known : sessions.slice(0, 1).map(({ session }) => session);
    if (!this.shown.length) {
      this.#showNothing();
      return;
    }
    const answer = await get("/api/progress", { session: this.shown, points: 20000 }, this.signal);
    this.sessions = answer.sessions.map((one) => ({ ...one, rows: rows(one.columns) }));
    const ended = this.sessions.some((one) => one.rows.length);
    this.nothing.hidden = ended;
    this.curves.hidden = this.facts.hidden = this.tray.hidden = !ended;
    this.#showHead();
    if (!ended) {
      fill(this.nothing, empty("No episode has ended yet", "The curve begins with the first one. Until then: ", h("p", {}, h("a", { href: "/live" }, "watch it live"))));
      return;
    }
    this.#showFacts();
    this.#showTray();
    await this.#draw();
  }

  #showNothing() {
    this.curves.hidden = this.facts.hidden = this.tray.hidden = this.head.hidden = true;
    this.nothing.hidden = false;
    fill(this.nothing, empty("Nothing is recorded here yet",
      h("p", {}, "Start a run: ", h("code", {}, "python -m kernel config/quickstart.toml")),
      h("p", {}, "or record a script of your own: ", h("code", {}, "stepreel exec train.py"))));
  }

  #showHead() {
    this.head.hidden = false;
    const box = (one, place) => {
      const on = this.shown.includes(one.session);
      const input = h("input", { type: "checkbox", checked: on, disabled: !on && this.shown.length >= MOST });
      input.addEventListener("change", () => this.#choose(one.session, input.checked));
      return h("label", { "data-place": place }, input, h("span", {}, one.label || shortSession(one.session)),
        h("small", { title: clock(one.started) }, `${one.env_id} · ${count(one.episodes)} episodes · ${age(one.started)}`));
    };
    const across = h("select", { "aria-label": "Across" }, ACROSS.map(([value, text]) => h("option", { value, selected: value === this.across }, `over ${text}`)));
    across.addEventListener("change", () => {
      this.across = across.value;
      amend({ x: this.across === "x" ? null : this.across });
      this.#draw();
    });
    const smooth = h("input", { type: "range", min: 0, max: 9, step: 1, value: Math.round(Math.log2(this.#smoothing())), "aria-label": "Smoothing" });
    const width = h("output", { class: "faint" }, this.#smoothingInWords());
    smooth.addEventListener("input", () => {
      this.window = 2 ** Number(smooth.value);
      say(width, this.#smoothingInWords());
      amend({ smooth: this.window });
      this.#drawSoon();
    });
    const open = this.head.querySelector("details")?.open ?? false;
    fill(this.head,
      h("details", { class: "menu", open }, h("summary", { class: "button" }, this.shown.length === 1 ? this.#name(this.shown[0]) : `${this.shown.length} sessions`),
        h("div", { class: "sheet sessions" }, this.all.map(box))),
      this.shown.length > 1 ? this.shown.map((one, place) => h("span", { class: "key" }, h("i", { class: `swatch s${(place % 8) + 1}` }), this.#name(one))) : h("span", { class: "faint" }, this.all.find((one) => one.session === this.shown[0])?.env_id),
      h("span", { class: "spring" }),
      h("span", { class: "key" }, h("i", { class: "dot" }), "training"), h("span", { class: "key" }, h("i", { class: "diamond" }), "evaluation"), h("span", { class: "key" }, h("i", { class: "ring" }), "video"),
      across, h("label", { class: "smooth" }, h("span", { class: "faint" }, "mean of"), smooth, width));
  }

  #name(session) {
    return this.all.find((one) => one.session === session)?.label || shortSession(session);
  }

  #smoothing() {
    if (this.window) return this.window;
    const longest = Math.max(0, ...(this.sessions ?? []).map((one) => one.rows.length));
    return 2 ** Math.max(0, Math.min(7, Math.round(Math.log2(Math.max(1, longest / 25)))));
  }

  #smoothingInWords() {
    return this.#smoothing() === 1 ? "1" : `${this.#smoothing()} episodes`;
  }

  async #choose(session, on) {
    const left = on ? [...this.shown, session] : this.shown.filter((one) => one !== session);
    if (!left.length) return;
    this.wanted = this.all.map((one) => one.session).filter((one) => left.includes(one));
    amend({ session: this.wanted.join(",") });
    await attempt(() => this.#load());
  }

  #showFacts() {
    const tile = (name, text, title = "") => h("div", { title }, h("small", {}, name), h("strong", {}, text));
    const [one] = this.sessions;
    const about = this.all.find(({ session }) => session === one.session);
    const training = one.rows.filter((row) => !row.evaluation);
    const recent = training.slice(-100);
    const returns = recent.map((row) => row.return).filter(Number.isFinite);
    const known = recent.filter((row) => row.success !== null);
    const best = one.rows.reduce((most, row) => (row.return !== null && (most === null || row.return > most.return) ? row : most), null);
    const bestTile = tile("best return", number(best?.return));
    fill(this.facts,
      tile("session", about?.running ? (about.paused ? "paused" : "running") : about?.outcome ?? "–", one.session),
      tile("episodes", count(one.total)), tile("steps", count(about?.steps)),
      tile("return, last 100", number(mean(returns)), "Mean of the last 100 training episodes"),
      best ? h("a", { href: address(`/episodes/${encodeURIComponent(best.id)}`), title: `Episode ${best.episode}` }, bestTile) : bestTile,
      known.length ? tile("success, last 100", percent(mean(known.map((row) => Number(row.success))))) : null,
      tile("videos", count(about?.videos)));
  }

  // The curves.

  #drawSoon = whenQuiet(0.05, () => this.signal.aborted || attempt(() => this.#draw()));

  async #draw() {
    if (!this.sessions || this.curves.hidden) return;
    const library = await plotly();
    if (this.signal.aborted) return;
    const shown = CHARTS.filter(({ key, of }) => {
      const any = this.sessions.some((one) => one.rows.some((row) => of(row) !== null));
      this.plots[key].closest(".curve").hidden = !any;
      return any;
    });
    for (const [place, chart] of shown.entries()) {
      const plot = this.plots[chart.key];
      const box = plot.parentElement;
      const traces = this.sessions.flatMap((one, index) => this.#traces(one, index, chart));
      const last = place === shown.length - 1;
      await library.react(plot, traces, layout({
        width: box.clientWidth,
        height: box.clientHeight,
        margin: { l: 56, r: 14, t: 6, b: last ? 34 : 20 },
        hovermode: "closest",
        hoverdistance: 14,
        dragmode: "zoom",
        uirevision: `${this.across} ${this.shown}`,
        xaxis: axis({ fixedrange: false, type: this.across === "ended" ? "date" : "linear", rangemode: "tozero", title: last ? { text: ACROSS.find(([key]) => key === this.across)[1], font: { size: 11, color: colour("faint") }, standoff: 4 } : { text: "" } }),
        yaxis: axis({ fixedrange: false, nticks: 6, ...(chart.key === "success" ? { range: [-0.04, 1.04], tickformat: ".0%" } : {}) }),
      }), CONFIG);
      if (!plot.dataset.heard) this.#hear(plot);
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  #at(row) {
    return this.across === "ended" ? new Date(row.ended * 1000) : row[this.across];
  }

  #traces(session, index, { of, key }) {
    const one = this.sessions.length === 1;
    const main = one ? colour("accent") : seriesColour(index);
    const known = session.rows.filter((row) => of(row) !== null);
    if (this.across === "episode") known.sort((a, b) => a.episode - b.episode);
    const [training, evaluation] = [known.filter((row) => !row.evaluation), known.filter((row) => row.evaluation)];
    const at = (each) => each.map((row) => this.#at(row));
    const traces = [];
    if (key !== "success") {
      const every = Math.ceil(training.length / DOTS);
      const dots = every > 1 ? training.filter((_, place) => place % every === 0) : training;
      traces.push({
        type: "scatter", mode: "markers", hoverinfo: "skip", x: at(dots), y: dots.map(of),
        marker: { size: 3, color: main, opacity: Math.max(0.12, Math.min(0.5, 6 / Math.sqrt(dots.length + 1))) },
      });
    }
    traces.push({
      type: "scatter", mode: training.length > 1 ? "lines" : "markers", hoverinfo: "skip", x: at(training), y: smoothed(training.map(of), this.#smoothing()),
      line: { color: main, width: 2 }, marker: { color: main, size: 6 },
    });
    if (evaluation.length) {
      const line = colour("series-2");
      traces.push({
        type: "scatter", mode: "lines+markers", hoverinfo: "skip", x: at(evaluation), y: smoothed(evaluation.map(of), Math.min(5, this.#smoothing())),
        line: { color: one ? line : main, width: 1.5, dash: "dot" }, marker: { symbol: "diamond", size: 6, color: one ? line : main },
      });
    }
    if (key !== "success") traces.push(this.#videoTrace(known.filter((row) => row.video !== null), of, main, session));
    return traces;
  }

  #videoTrace(filmed, of, main, session) {
    const chosen = new Set(this.picked);
    return {
      type: "scatter", mode: "markers", hoverinfo: "none", x: filmed.map((row) => this.#at(row)), y: filmed.map(of),
      customdata: filmed.map((row) => ({ ...row, session: session.session })),
      marker: {
        symbol: "circle",
        opacity: 1,
        size: filmed.map((row) => (chosen.has(row.id) ? 12 : 8)),
        color: filmed.map((row) => (chosen.has(row.id) ? main : colour("panel"))),
        line: { color: main, width: 2 },
      },
    };
  }

  #hear(plot) {
    plot.dataset.heard = "yes";
    plot.on("plotly_hover", ({ points, event }) => points[0]?.customdata && this.#showCard(points[0].customdata, event));
    plot.on("plotly_unhover", () => this.#hideCard());
    plot.on("plotly_click", ({ points }) => {
      const row = points[0]?.customdata;
      if (row) this.#pick(this.picked.includes(row.id) ? this.picked.filter((id) => id !== row.id) : [...this.picked, row.id].slice(-MOST));
    });
  }

  // The video of the point that the pointer is on.
  #showCard(row, event) {
    this.#hideCard();
    const video = h("video", { src: `/api/videos/${row.video}/file`, playsinline: true, loop: true });
    video.muted = true;
    video.play().catch(() => {}); // it was left again before it began
    fill(this.card, video, h("p", {}, h("strong", {}, `episode ${count(row.episode)}`), ` return ${number(row.return)} · length ${count(row.length)}`, row.evaluation ? " · evaluation" : ""), h("small", {}, "click to choose it"));
    this.card.hidden = false;
    const [x, y] = [event.clientX, event.clientY];
    this.card.style.left = `${x + 270 > innerWidth ? x - 264 : x + 18}px`;
    this.card.style.top = `${Math.max(8, Math.min(innerHeight - 250, y - 90))}px`;
  }

  #hideCard() {
    const video = this.card.querySelector("video");
    if (video) {
      video.pause();
      video.removeAttribute("src");
      video.load(); // lets go of the connection
    }
    this.card.hidden = true;
  }

  // Videos that were chosen, to be put side by side.

  #pick(ids) {
    this.picked = ids;
    amend({ pick: ids.join(",") });
    this.#showTray();
    this.#drawSoon();
  }

  #filmed() {
    return this.sessions.flatMap((one) => one.rows.filter((row) => row.video !== null).map((row) => ({ ...row, session: one.session })));
  }

  #earlyAndLate() {
    const filmed = this.#filmed().sort((a, b) => a.ended - b.ended);
    if (filmed.length > 1) this.#pick([filmed[0].id, filmed.at(-1).id]);
  }

  #compare() {
    if (this.picked.length > 1) go(address("/compare", { ids: this.picked.join(",") }));
  }

  #showTray() {
    const filmed = this.#filmed();
    const chosen = this.picked.map((id) => filmed.find((row) => row.id === id)).filter(Boolean);
    fill(this.tray,
      chosen.length ? chosen.map((row) => h("span", { class: "chip" },
        h("a", { href: address(`/episodes/${encodeURIComponent(row.id)}`) }, this.shown.length > 1 ? `${this.#name(row.session)} · ` : "", `episode ${count(row.episode)}`, h("small", {}, ` return ${number(row.return)}`)),
        h("button", { type: "button", class: "quiet", "aria-label": "Remove", onclick: () => this.#pick(this.picked.filter((id) => id !== row.id)) }, "✕"))) : h("span", { class: "hint" }, filmed.length ? "Each ring is a video: point at it to play it, click it to choose it. Drag to zoom, double-click for all." : "No video stands for these episodes."),
      h("span", { class: "spring" }),
      h("button", { type: "button", class: "quiet early", disabled: filmed.length < 2, title: "Choose the first and the last video (E)", onclick: () => this.#earlyAndLate() }, "Early and late"),
      h("button", { type: "button", class: chosen.length > 1 ? "primary" : "quiet", disabled: chosen.length < 2, title: "Side by side (M)", onclick: () => this.#compare() }, "Compare"));
    mark(this.tray, "data-chosen", chosen.length);
  }

  #follow() {
    let timer = 0;
    stream.on("tables", () => {
      timer ||= setTimeout(() => {
        timer = 0;
        if (!this.signal.aborted && !document.hidden && this.card.hidden && !this.head.querySelector("details[open]")) attempt(() => this.#load());
      }, 2500);
    }, this.signal);
  }
}

function mean(values) {
  return values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : null;
}

/** Each value's mean with the `window` - 1 before it. */
function smoothed(values, window) {
  let sum = 0;
  return values.map((one, place) => {
    sum += one - (place >= window ? values[place - window] : 0);
    return sum / Math.min(place + 1, window);
  });
}

customElements.define("progress-page", ProgressPage);

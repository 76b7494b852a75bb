// A chart over an episode's steps: lines or stacked terms, a cursor at the step shown, and seeking by click and drag.

import { fill, h, Part, say, svg, whenQuiet } from "./element.js";
import { count, number } from "./format.js";
import { plotLines } from "./plot-lines.js";

const LEFT = 52;
const RIGHT = 10;
const HEIGHT = 112;
const MARGIN = { l: LEFT, r: RIGHT, t: 6, b: 18 };

/**
 * Says "seek" with a step, while clicked or dragged; "zoom" with a range [from, to], or null for all of it; and "hover"
 * with a step or null.
 */
export class StepChart extends Part {
  #series = [];
  #range = [0, 1];
  #last = null; // what was drawn last: traces and marks, for a redraw
  #values = new Map();

  open() {
    if (!this.plot) {
      this.plot = svg("svg", { class: "plot", "aria-hidden": "true" });
      this.cursor = h("div", { class: "cursor" });
      this.ghost = h("div", { class: "cursor ghost", hidden: true });
      this.zone = h("div", { class: "zone", hidden: true });
      this.surface = h("div", { class: "surface" }, this.cursor, this.ghost, this.zone);
      this.legend = h("div", { class: "legend" });
      this.heading = h("h3", {});
      this.note = h("span", { class: "note" });
      this.append(h("header", {}, this.heading, this.legend, this.note), h("div", { class: "canvas" }, this.plot, this.surface));
    }
    this.#listenToPointer();
    const resized = whenQuiet(0.15, () => this.#draw());
    const observer = new ResizeObserver(() => this.#last && resized());
    observer.observe(this.surface);
    this.signal.addEventListener("abort", () => observer.disconnect());
  }

  /** What it is of: a title and its series, each with `name`, `label` and whether it is a stacked `term`. */
  describe(title, series) {
    this.#series = series.map((one, place) => ({ ...one, place }));
    this.#values.clear();
    say(this.heading, title);
    this.legend.replaceChildren(...this.#series.map((one) => {
      const value = h("output", {}, "–");
      this.#values.set(one.name, value);
      return h("span", { title: one.name }, h("i", { class: `swatch ${this.#kind(one)}` }), one.label, value);
    }));
  }

  /**
   * Draw columns over a range of steps. `marks`: [{step, name, value}] of values that are not finite; `places`: by
   * name, where a series' values stand, if that is not where `columns.step` says.
   */
  draw(columns, range, { sampled = false, marks = [], places = {} } = {}) {
    this.#range = range;
    this.#last = { columns, sampled, marks, places };
    this.#draw();
  }

  /** Put the cursor at a step, and show the series' values there, where they are known: {name: number}. */
  point(step, values) {
    const place = this.#placeOf(step);
    this.cursor.hidden = place === null;
    if (place !== null) this.cursor.style.transform = `translateX(${place}px)`;
    for (const [name, output] of this.#values) say(output, values && name in values ? number(values[name]) : "–");
  }

  /** Show where the pointer is in another chart. */
  shadow(step) {
    const place = step === null ? null : this.#placeOf(step);
    this.ghost.hidden = place === null;
    if (place !== null) this.ghost.style.transform = `translateX(${place}px)`;
  }

  #placeOf(step) {
    const [from, to] = this.#range;
    if (step < from || step > to) return null;
    return LEFT + ((step - from) / Math.max(1e-9, to - from)) * this.#width();
  }

  #stepAt(x) {
    const [from, to] = this.#range;
    const share = Math.min(1, Math.max(0, (x - LEFT) / this.#width()));
    return Math.round(from + share * (to - from));
  }

  #width() {
    return Math.max(1, this.surface.clientWidth - LEFT - RIGHT);
  }

  #draw() {
    const { columns, sampled, marks, places } = this.#last;
    const terms = this.#series.filter((one) => one.term);
    const own = new Set(this.#series.map((one) => one.name));
    const crosses = marks.filter((one) => own.has(one.name));
    say(this.note, [
      sampled && terms.length ? "zoom in for exact sums" : "",
      crosses.length ? `${count(crosses.length)} not finite` : "",
    ].filter(Boolean).join(" · "));
    const drawn = (one) => ({ values: columns[one.name], kind: this.#kind(one), x: places[one.name], steps: one.group === "action" && isWhole(columns[one.name]) });
    fill(this.plot, plotLines({
      width: this.surface.clientWidth,
      height: HEIGHT,
      margin: MARGIN,
      range: this.#range,
      x: columns.step,
      stacks: terms.filter((one) => columns[one.name]).map(drawn),
      lines: this.#series.filter((one) => !one.term && columns[one.name]).map(drawn),
      marks: crosses.map(({ step, value }) => ({ step, low: value === "-inf" })),
    }));
  }

  // The class that colours a series: by its place, and the total of stacked terms like text.
  #kind(one) {
    const total = !one.term && this.#series.some((other) => other.term);
    return total ? "total" : `s${(one.place % 8) + 1}`;
  }

  #listenToPointer() {
    let [dragged, from] = [null, 0];
    const at = (event) => event.clientX - this.surface.getBoundingClientRect().left;
    const say = (type, detail) => this.dispatchEvent(new CustomEvent(type, { detail }));
    this.listen(this.surface, "pointerdown", (event) => {
      if (event.button !== 0) return;
      this.surface.setPointerCapture(event.pointerId);
      from = at(event);
      dragged = event.shiftKey ? "zoom" : "seek";
      if (dragged === "seek") say("seek", this.#stepAt(from));
    });
    this.listen(this.surface, "pointermove", (event) => {
      const x = at(event);
      say("hover", this.#stepAt(x));
      if (dragged === "seek") say("seek", this.#stepAt(x));
      if (dragged === "zoom") {
        this.zone.hidden = false;
        this.zone.style.left = `${Math.min(from, x)}px`;
        this.zone.style.width = `${Math.abs(x - from)}px`;
      }
    });
    const end = (event) => {
      if (dragged === "zoom" && event.type === "pointerup") {
        const [a, b] = [this.#stepAt(from), this.#stepAt(at(event))].sort((one, other) => one - other);
        if (b - a >= 2) say("zoom", [a, b]);
      }
      dragged = null;
      this.zone.hidden = true;
    };
    this.listen(this.surface, "pointerup", end);
    this.listen(this.surface, "pointercancel", end);
    this.listen(this.surface, "pointerleave", () => dragged || say("hover", null));
    this.listen(this.surface, "dblclick", () => say("zoom", null));
    this.listen(this.surface, "wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const [a, b] = this.#range;
      const middle = this.#stepAt(at(event));
      const scale = event.deltaY > 0 ? 1.25 : 0.8;
      say("zoom", [Math.round(middle - (middle - a) * scale), Math.round(middle + (b - middle) * scale)]);
    }, { passive: false });
  }
}

// Choices among a few are numbers that have nothing between them.
function isWhole(values) {
  for (let place = 0; place < Math.min(values.length, 500); place += 1) {
    if (Number.isFinite(values[place]) && !Number.isInteger(values[place])) return false;
  }
  return true;
}

customElements.define("step-chart", StepChart);

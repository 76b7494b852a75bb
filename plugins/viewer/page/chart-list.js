// The charts of an episode, below each other: which series they show, and which steps.

import { amend, query } from "./address.js";
import { steps } from "./api.js";
import { fill, h, Part, whenQuiet } from "./element.js";
import { count } from "./format.js";
import { attempt, empty } from "./notice.js";
import { charts, chosenAtFirst } from "./series.js";
import "./step-chart.js";

const POINTS_A_PIXEL = 2;

/** Says "seek" with a step. What is chosen and zoomed stands in the address. */
export class ChartList extends Part {
  /** The names of the series that are shown. */
  names = [];
  #of = null;
  #charts = [];
  #chosen = null; // null: what is shown at first
  #zoomed = null; // null: all steps
  #drawing = 0; // what was asked for before this is not drawn any more

  open() {
    if (this.panels) return;
    const asked = query();
    this.#chosen = asked.series?.split(",") ?? null;
    const range = asked.range?.split("-").map(Number);
    this.#zoomed = range?.length === 2 && range.every(Number.isFinite) ? range : null;
    this.picker = h("div", { class: "picker" });
    this.panels = h("div", { class: "panels" });
    fill(this, this.picker, this.panels);
  }

  /** Show an episode's `series`, up to its `last` step; `nonfinite` are marked. `running`: more may come. */
  async show({ id, series, nonfinite, last, running }) {
    this.#of = { id, series, nonfinite, last, running };
    await this.#draw();
  }

  /** Put the cursor at a step, with the series' values there. */
  aim(step, values) {
    for (const chart of this.#charts) chart.point(step, values);
  }

  /** Show all steps. */
  zoomOut() {
    this.#zoom(null);
  }

  async #draw() {
    const { id, series, nonfinite, last, running } = this.#of;
    this.#showPicker();
    const wanted = charts(series, this.#chosen ?? chosenAtFirst(series));
    this.names = wanted.flatMap((one) => one.series.map((each) => each.name));
    this.#charts = wanted.map((one) => this.#charts.find((chart) => chart.dataset.key === one.key) ?? this.#make(one.key));
    if (!wanted.length) {
      fill(this.panels, empty("No charts", series.length ? "Choose what to draw above." : running ? "No step yet." : "This episode has no steps."));
      return;
    }
    fill(this.panels, this.#charts);
    wanted.forEach((one, place) => this.#charts[place].describe(one.title, one.series));
    const drawing = (this.#drawing += 1);
    const [from, to] = this.#range(last);
    const points = Math.max(400, Math.round(this.panels.clientWidth * POINTS_A_PIXEL));
    const { columns, sampled } = await steps(id, ["step", ...this.names], { from: Math.max(1, from), to, points }, this.signal);
    const marks = nonfinite.filter((one) => one.step >= from && one.step <= to);
    for (const chart of this.#charts) {
      if (drawing !== this.#drawing) return;
      chart.draw(columns, [from, to], { sampled, marks });
      await nextTask(); // each chart in a task of its own, so that the page answers in between
    }
    this.dispatchEvent(new Event("drawn"));
  }

  #make(key) {
    const chart = h("step-chart", { "data-key": key });
    this.listen(chart, "seek", ({ detail }) => this.dispatchEvent(new CustomEvent("seek", { detail })));
    this.listen(chart, "zoom", ({ detail }) => this.#zoom(detail));
    this.listen(chart, "hover", ({ detail }) => this.#charts.forEach((other) => other.shadow(detail)));
    return chart;
  }

  #range(last) {
    const [from, to] = this.#zoomed ?? [0, Infinity];
    return [Math.max(0, from), Math.max(1, Math.min(last, to))];
  }

  #zoom(range) {
    const { last } = this.#of;
    const [from, to] = range ? [Math.max(0, range[0]), Math.min(last, range[1])] : [0, last];
    if (range && to - from < 2) return;
    this.#zoomed = from === 0 && to === last ? null : [from, to];
    amend({ range: this.#zoomed?.join("-") });
    this.#soon();
  }

  #choose(names) {
    const { series } = this.#of;
    const wanted = series.filter((one) => names.has(one.name)).map((one) => one.name);
    this.#chosen = wanted.join() === chosenAtFirst(series).join() ? null : wanted;
    amend({ series: this.#chosen?.join(",") ?? null });
    this.#soon();
  }

  #soon = whenQuiet(0.08, () => this.signal.aborted || attempt(() => this.#draw()));

  #showPicker() {
    const { series } = this.#of;
    const chosen = new Set(this.#chosen ?? chosenAtFirst(series));
    const box = (one) => {
      const input = h("input", { type: "checkbox", checked: chosen.has(one.name) });
      input.addEventListener("change", () => {
        if (input.checked) chosen.add(one.name);
        else chosen.delete(one.name);
        this.#choose(chosen);
      });
      return h("label", {}, input, one.name, one.nonfinite ? h("small", { class: "bad" }, `${count(one.nonfinite)} not finite`) : null);
    };
    const groups = [...new Set(series.map((one) => one.group))];
    const open = this.picker.querySelector("details")?.open ?? false;
    const zoomed = this.#zoomed;
    fill(this.picker,
      h("details", { class: "menu", open }, h("summary", { class: "button quiet" }, `Series (${chosen.size} of ${series.length})`),
        h("div", { class: "sheet series" }, groups.map((group) =>
          h("fieldset", {}, h("legend", {}, group), series.filter((one) => one.group === group).map(box))))),
      h("span", { class: "hint" }, zoomed ? `steps ${count(zoomed[0])} to ${count(zoomed[1])}` : "click or drag to seek · shift-drag to zoom"),
      zoomed ? h("button", { type: "button", class: "quiet", onclick: () => this.#zoom(null) }, "All steps (Z)") : null);
  }
}

function nextTask() {
  return new Promise((resolve) => setTimeout(resolve));
}

customElements.define("chart-list", ChartList);

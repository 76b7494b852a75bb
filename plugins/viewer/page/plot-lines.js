// Lines over steps as SVG: axes, lines, stacked terms and marks. Colours come from the style sheet, by class.

import { svg } from "./element.js";
import { number } from "./format.js";

const TICKS_Y = 4;
const PIXELS_A_TICK = 84;

/**
 * The content of a chart of `width` × `height` pixels with these margins (`l`, `r`, `t`, `b`).
 *
 * `x` are steps, `lines` are [{values, kind, steps, x}] (`kind` is the class that colours it, `steps` draws it as stairs,
 * and `x` is its own where it has one), `stacks` likewise, drawn as areas on top of each other; `marks` are [{step, low}] at the chart's edges. `range` is
 * what `x` runs over from edge to edge. `acrossTicks(range, count)` and the labels are for an x
 * that is no step, `floor` is a value that is always in view, and with `log` values are drawn by their logarithms.
 */
export function plotLines({
  width, height, margin, range, x, lines, stacks = [], marks = [], log = false, floor = null, acrossTicks = wholeTicks, acrossLabel = number, upwardsLabel = number,
}) {
  const [left, right, top, bottom] = [margin.l, width - margin.r, margin.t, height - margin.b];
  const areas = stacked(stacks);
  const scaled = log ? lines.map((one) => ({ ...one, values: Float64Array.from(one.values, (value) => (value > 0 ? Math.log10(value) : NaN)) })) : lines;
  const [low, high] = extent([...scaled.map((one) => one.values), ...areas.flatMap((one) => [one.base, one.top]), floor === null ? [] : [floor]]);
  const across = (step) => left + ((step - range[0]) / Math.max(1e-9, range[1] - range[0])) * (right - left);
  const up = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  const xs = Float64Array.from(x, across);
  return [
    ...grid(log ? powers(low, high) : ticks(low, high, TICKS_Y), up, (place, tick) => [
      svg("path", { class: tick === 0 ? "zero" : "grid", d: `M${left} ${place}H${right}` }),
      svg("text", { x: left - 5, y: place + 3.5, "text-anchor": "end" }, upwardsLabel(log ? 10 ** tick : tick)),
    ]),
    ...grid(acrossTicks(range, Math.max(2, Math.floor((right - left) / PIXELS_A_TICK))), across, (place, tick) => [
      svg("path", { class: "grid", d: `M${place} ${top}V${bottom}` }),
      svg("text", { x: place, y: bottom + 13, "text-anchor": place > right - 20 ? "end" : "middle" }, acrossLabel(tick)),
    ]),
    ...areas.map((one) => svg("path", { class: `area ${one.kind}`, d: area(xs, one.base, one.top, up) })),
    ...scaled.map((one) => {
      const own = one.x ? Float64Array.from(one.x, across) : xs;
      return own.length === 1 ? point(own[0], one, up) : svg("path", { class: `line ${one.kind}`, d: line(own, one.values, up, one.steps) });
    }),
    ...marks.map(({ step, low: below }) => {
      const [place, edge] = [across(step), below ? bottom - 6 : top + 4];
      return svg("path", { class: "odd", d: `M${place - 3} ${edge - 3}l6 6m0-6l-6 6` });
    }),
  ];
}

/** About `count` round numbers from `low` to `high`. */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

function powers(low, high) {
  return ticks(Math.ceil(low), Math.max(Math.ceil(low), Math.floor(high)) + 0.5, TICKS_Y).filter((tick) => Number.isInteger(tick) && tick >= low && tick <= high);
}

function wholeTicks([from, to], count) {
  return ticks(from, to, count).filter(Number.isInteger);
}

function grid(values, place, draw) {
  return values.flatMap((value) => draw(Math.round(place(value)) + 0.5, value));
}

function extent(columns) {
  let [low, high] = [Infinity, -Infinity];
  for (const values of columns) {
    for (const value of values) {
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  if (low === 0 && high === 0) return [0, 1];
  if (low === high) return [low - Math.max(1, Math.abs(low)) / 2, high + Math.max(1, Math.abs(high)) / 2];
  const room = (high - low) * 0.06;
  return [low - room, high + room];
}

function line(xs, values, up, stairs) {
  const parts = [];
  let open = false;
  for (let place = 0; place < xs.length; place += 1) {
    if (!Number.isFinite(values[place])) {
      open = false;
      continue;
    }
    const [x, y] = [xs[place].toFixed(1), up(values[place]).toFixed(1)];
    if (!open) parts.push(`M${x} ${y}`);
    else parts.push(stairs ? `H${x}V${y}` : `L${x} ${y}`);
    open = true;
  }
  return parts.join("");
}

function point(x, { values, kind }, up) {
  return Number.isFinite(values[0]) ? svg("circle", { class: `point ${kind}`, cx: x, cy: up(values[0]), r: 3 }) : null;
}

function area(xs, base, top, up) {
  const at = (values) => (place) => `${xs[place].toFixed(1)} ${up(values[place]).toFixed(1)}`;
  const places = Array.from(xs.keys());
  return `M${[...places.map(at(top)), ...places.reverse().map(at(base))].join("L")}Z`;
}

// What is positive goes upwards and what is negative downwards, so that the total is their difference.
function stacked(stacks) {
  const length = stacks[0]?.values.length ?? 0;
  const made = [];
  for (const part of [Math.max, Math.min]) {
    let base = new Float64Array(length);
    for (const { values, kind } of stacks) {
      const top = base.map((below, place) => below + (Number.isFinite(values[place]) ? part(0, values[place]) : 0));
      made.push({ kind, base, top });
      base = top;
    }
  }
  return made;
}

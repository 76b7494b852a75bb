// A line of numbers in a word's size.

import { mark, Part, svg } from "./element.js";

export class SparkLine extends Part {
  #path = null;

  /** Show these numbers, from left to right; what is not finite is left out. */
  set values(values) {
    this.#path ??= this.#make();
    const known = values.filter(Number.isFinite);
    if (known.length < 2) {
      mark(this.#path, "d", "");
      return;
    }
    const [low, high] = known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const tall = high - low || 1;
    const points = known.map((value, place) => {
      const [x, y] = [(place / (known.length - 1)) * 100, high === low ? 10 : 19 - ((value - low) / tall) * 18];
      return `${x.toFixed(2)} ${y.toFixed(2)}`;
    });
    mark(this.#path, "d", `M${points.join("L")}`);
  }

  #make() {
    const path = svg("path", { "vector-effect": "non-scaling-stroke" });
    this.append(svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, path));
    return path;
  }
}

customElements.define("spark-line", SparkLine);

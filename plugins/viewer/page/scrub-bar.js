// The bar below the picture: where we are in the episode, seeking by click, drag and keys, and a preview while hovering.

import { h, mark, Part, say } from "./element.js";
import { count } from "./format.js";
import "./sparkline.js";

/** Says "seek" with a step. */
export class ScrubBar extends Part {
  #range = [0, 0];
  #preview = null;

  open() {
    if (this.fillBar) return this.#listen();
    this.fillBar = h("div", { class: "done" });
    this.knob = h("div", { class: "knob" });
    this.spark = h("spark-line");
    this.label = h("output", {});
    this.popup = h("div", { class: "popup", hidden: true }, this.label);
    this.append(h("div", { class: "track" }, this.spark, this.fillBar, this.knob), this.popup);
    mark(this, "role", "slider");
    mark(this, "tabindex", "0");
    mark(this, "aria-label", "Step");
    return this.#listen();
  }

  /** What it is of: the first and the last step, numbers for the line in its background, and a `Preview` or null. */
  describe(first, last, values, preview) {
    this.#range = [first, last];
    this.spark.values = values;
    this.#preview?.element.remove();
    this.#preview = preview;
    if (preview) this.popup.prepend(preview.element);
    mark(this, "aria-valuemin", first);
    mark(this, "aria-valuemax", last);
  }

  /** Show a step. */
  point(step) {
    const [first, last] = this.#range;
    const share = last > first ? (step - first) / (last - first) : 0;
    this.fillBar.style.transform = `scaleX(${share})`;
    this.knob.style.left = `${share * 100}%`;
    mark(this, "aria-valuenow", step);
  }

  #listen() {
    let dragging = false;
    const at = (event) => {
      const box = this.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / Math.max(1, box.width)));
      const [first, last] = this.#range;
      return { step: Math.round(first + share * (last - first)), x: share * box.width, width: box.width };
    };
    const seek = (event) => this.dispatchEvent(new CustomEvent("seek", { detail: at(event).step }));
    this.listen(this, "pointerdown", (event) => {
      if (event.button !== 0) return;
      dragging = true;
      this.setPointerCapture(event.pointerId);
      seek(event);
    });
    this.listen(this, "pointermove", (event) => {
      if (dragging) seek(event);
      const { step, x, width } = at(event);
      this.popup.hidden = false;
      say(this.label, `step ${count(step)}`);
      const half = this.popup.offsetWidth / 2;
      this.popup.style.left = `${Math.min(width - half, Math.max(half, x))}px`;
      this.#preview?.show(step);
    });
    for (const type of ["pointerup", "pointercancel"]) this.listen(this, type, () => (dragging = false));
    this.listen(this, "pointerleave", () => (this.popup.hidden = true));
  }
}

/** A second, small picture of the same video, which is opened when it is first asked for. */
export class Preview {
  #frames;
  #fps;
  #file;
  #next = null;

  constructor(file, frames, fps, shape) {
    this.#file = file;
    this.#frames = frames;
    this.#fps = fps;
    this.element = h("video", { muted: true, playsinline: true, preload: "none", tabindex: "-1", "aria-hidden": "true" });
    this.element.muted = true;
    this.element.style.aspectRatio = shape;
    this.element.addEventListener("seeked", () => this.#go());
    this.element.addEventListener("loadedmetadata", () => this.#go());
  }

  show(step) {
    this.#next = this.#frames.frameFor(step);
    if (!this.element.src) {
      this.element.preload = "auto";
      this.element.src = this.#file;
    } else if (!this.element.seeking) {
      this.#go();
    }
  }

  /** Let go of the connection. */
  close() {
    this.element.removeAttribute("src");
    this.element.load();
  }

  #go() {
    if (this.#next === null || this.element.readyState === 0) return;
    const time = (this.#next + 0.5) / this.#fps;
    this.#next = null;
    if (time !== this.element.currentTime) this.element.currentTime = time;
  }
}

customElements.define("scrub-bar", ScrubBar);

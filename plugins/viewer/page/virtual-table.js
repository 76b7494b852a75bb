// A table of any length that holds only the rows in view.

import { fill, h, mark, oncePerFrame, Part } from "./element.js";

const SPARE = 6; // rows beyond both ends of the view

/**
 * Its owner says what it shows:
 *
 * - `columns`: [{key, title, width, cell(row) → node or text, sort?: true, kind?: "number"}]; widths as grid-template-columns has them
 * - `rowAt(index)`: the row, or undefined where it is not known yet; a row that changed is another object
 * - `want(from, to)`: these rows are in view
 * - `act(row, index, event)`: a row was clicked, or Enter was pressed on it
 * - `mark(row, index)`: a row's class, or ""
 *
 * It says "sort" with a column's key, and "active" with an index.
 */
export class VirtualTable extends Part {
  total = 0;
  active = -1;
  #rows = new Map(); // index: {element, row}
  #loose = oncePerFrame(() => this.#render());

  open() {
    if (this.of) this.#build();
  }

  show(of) {
    this.of = { want: () => {}, act: () => {}, mark: () => "", rowHeight: 34, ...of };
    if (this.isConnected) this.#build();
  }

  /** How it is sorted now: "key" or "-key". */
  set sorted(by) {
    for (const cell of this.head?.children ?? []) {
      const key = cell.dataset.key;
      mark(cell, "aria-sort", by === key ? "ascending" : by === `-${key}` ? "descending" : null);
    }
  }

  /** There are so many rows, and those in view may have changed. */
  refresh(total = this.total) {
    this.total = total;
    if (!this.body) return;
    this.body.style.height = `${total * this.of.rowHeight}px`;
    mark(this.view, "aria-rowcount", total + 1);
    if (this.active >= total) this.active = total - 1;
    this.#loose();
  }

  /** Bring a row into view; `block`: "nearest" or "center". */
  reveal(index, block = "nearest") {
    const [top, height] = [index * this.of.rowHeight, this.of.rowHeight];
    const room = this.view.clientHeight - this.head.offsetHeight;
    const { scrollTop } = this.view;
    if (top >= scrollTop && top + height <= scrollTop + room) return;
    if (block === "center") this.view.scrollTop = top - (room - height) / 2;
    else this.view.scrollTop = top < scrollTop ? top : top + height - room;
  }

  /** Make a row the one that the keyboard acts on. */
  activate(index, block = "nearest") {
    if (!this.view || index < 0 || index >= this.total) return;
    this.active = index;
    this.reveal(index, block);
    this.#loose();
  }

  focus() {
    this.view?.focus();
  }

  #build() {
    const { columns, label } = this.of;
    this.style.setProperty("--columns", columns.map((one) => one.width).join(" "));
    this.style.setProperty("--row", `${this.of.rowHeight}px`);
    this.head = h("div", { class: "head", role: "row" }, columns.map((one) => h("div", {
      role: "columnheader", class: one.kind ?? null, "data-key": one.key,
    }, one.sort
      ? h("button", { type: "button", onclick: () => this.#say("sort", one.key), title: `Sort by ${one.title.toLowerCase()}` }, one.title)
      : one.head ?? one.title)));
    this.body = h("div", { class: "rows", role: "presentation" });
    this.view = h("div", { class: "view", role: "grid", tabindex: "0", "aria-label": label }, this.head, this.body);
    this.#rows.clear();
    fill(this, this.view);
    this.listen(this.view, "scroll", this.#loose, { passive: true });
    this.listen(this.view, "keydown", (event) => this.#key(event));
    const observer = new ResizeObserver(this.#loose);
    observer.observe(this.view);
    this.signal.addEventListener("abort", () => observer.disconnect());
    this.refresh();
  }

  #render() {
    if (!this.isConnected || !this.view) return;
    const { rowHeight, rowAt, want } = this.of;
    const room = this.view.clientHeight;
    const from = Math.max(0, Math.floor(this.view.scrollTop / rowHeight) - SPARE);
    const to = Math.min(this.total, Math.ceil((this.view.scrollTop + room) / rowHeight) + SPARE);
    for (const [index, { element }] of this.#rows) {
      if (index >= from && index < to) continue;
      element.remove();
      this.#rows.delete(index);
    }
    for (let index = from; index < to; index += 1) this.#place(index, rowAt(index));
    if (to > from) want(from, to);
  }

  #place(index, row) {
    let known = this.#rows.get(index);
    if (!known) {
      const element = h("div", { class: "row", role: "row", "aria-rowindex": index + 2 });
      element.style.transform = `translateY(${index * this.of.rowHeight}px)`;
      element.addEventListener("click", (event) => {
        this.active = index;
        this.#say("active", index);
        const now = this.#rows.get(index)?.row;
        if (now) this.of.act(now, index, event);
        this.#loose();
      });
      this.body.append(element);
      known = { element, row: null };
      this.#rows.set(index, known);
    }
    if (known.row !== row || row === undefined) {
      known.row = row;
      fill(known.element, this.of.columns.map((one) =>
        h("div", { role: "gridcell", class: one.kind ?? null }, row === undefined ? "" : one.cell(row, index))));
    }
    mark(known.element, "class", `row ${row === undefined ? "unknown" : this.of.mark(row, index)}`.trim());
    mark(known.element, "aria-selected", index === this.active ? "true" : null);
  }

  /** Draw the rows in view anew, though they are the same: something else that they show has changed. */
  repaint() {
    for (const known of this.#rows.values()) known.row = null;
    this.#loose();
  }

  #key(event) {
    if (event.target !== this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.view.clientHeight / this.of.rowHeight) - 2);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      const index = Math.min(this.total - 1, Math.max(0, this.active + moves[event.key]));
      this.activate(index);
      this.#say("active", index);
    } else if (event.key === "Enter" && this.active >= 0) {
      const row = this.of.rowAt(this.active);
      if (row) this.of.act(row, this.active, event);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

customElements.define("virtual-table", VirtualTable);

// Rows of something long, fetched in blocks when they are wanted, and kept within a bound.

const BLOCK = 200;
const KEPT = 60; // blocks

export class RowCache {
  #blocks = new Map(); // number: rows, or null while they are on their way
  #fetch;
  #arrived;
  #wanted = [];
  #running = 0;
  #stale = 0; // what was asked for before this counts no more

  /** `fetch(offset, limit)` gives a promise of rows; `arrived()` is called when some are there. */
  constructor(fetch, arrived) {
    this.#fetch = fetch;
    this.#arrived = arrived;
  }

  /** The row, or undefined where it is not here. */
  at(index) {
    return this.#blocks.get(Math.floor(index / BLOCK))?.[index % BLOCK];
  }

  /** See that these rows come; what was wanted before and is not fetched yet is forgotten. */
  want(from, to) {
    this.#wanted = [];
    for (let block = Math.floor(from / BLOCK); block * BLOCK < to; block += 1) {
      if (!this.#blocks.has(block)) this.#wanted.push(block);
    }
    this.#go();
  }

  /** Forget everything. */
  clear() {
    this.#stale += 1;
    this.#blocks.clear();
    this.#wanted = [];
  }

  /** Fetch the rows from..to again, and leave them standing until the new ones are there. */
  async renew(from, to) {
    const stale = this.#stale;
    for (const block of this.#blocks.keys()) {
      if (block * BLOCK < to && (block + 1) * BLOCK > from) continue;
      if (this.#blocks.get(block) !== null) this.#blocks.delete(block);
    }
    for (let block = Math.floor(from / BLOCK); block * BLOCK < to; block += 1) {
      const rows = await this.#fetch(block * BLOCK, BLOCK);
      if (stale !== this.#stale) return;
      this.#blocks.set(block, rows);
    }
    this.#arrived();
  }

  async #go() {
    if (this.#running >= 2 || !this.#wanted.length) return;
    const block = this.#wanted.shift();
    const stale = this.#stale;
    this.#blocks.set(block, null);
    this.#running += 1;
    try {
      const rows = await this.#fetch(block * BLOCK, BLOCK);
      if (stale !== this.#stale) return;
      this.#blocks.set(block, rows);
      for (const old of this.#blocks.keys()) {
        if (this.#blocks.size <= KEPT) break;
        if (old !== block) this.#blocks.delete(old);
      }
      this.#arrived();
    } catch {
      if (stale === this.#stale) this.#blocks.delete(block); // it is asked for again when it is next in view
    } finally {
      this.#running -= 1;
      this.#go();
    }
  }
}

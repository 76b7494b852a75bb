// Which step a frame of a video shows, and which frame shows a step.

/**
 * Made from the columns of an episode's steps (`step`, `frame`, `frames`, `video`) and the place of the picture after
 * the reset, for one of the videos that show the episode.
 */
export class Frames {
  #steps = [0];
  #first = [0];
  #last = [0];

  constructor(columns, video, firstFrame) {
    const length = columns?.step.length ?? 0;
    this.#steps = new Int32Array(length + 1);
    this.#first = new Int32Array(length + 1);
    this.#last = new Int32Array(length + 1);
    let size = 0;
    const add = (step, first, last) => {
      this.#steps[size] = step;
      this.#first[size] = first;
      this.#last[size] = last;
      size += 1;
    };
    if (firstFrame !== null) add(0, firstFrame, firstFrame);
    for (let row = 0; row < length; row += 1) {
      const frame = columns.frame[row];
      if (frame < 0 || columns.video[row] !== video) continue;
      add(columns.step[row], frame - Math.max(1, columns.frames[row]) + 1, frame);
    }
    this.size = size;
  }

  /** The step whose picture a frame is; null where the frame shows none of this episode. */
  stepAt(frame) {
    const place = lastAtMost(this.#first, this.size, frame);
    return place < 0 || frame > this.#last[place] ? null : this.#steps[place];
  }

  /** The frame with the picture after a step; where that has none, the nearest one before it, or the first. */
  frameFor(step) {
    if (!this.size) return null;
    return this.#last[Math.max(0, lastAtMost(this.#steps, this.size, step))];
  }

  /** Whether a step has a picture of its own. */
  shows(step) {
    const place = lastAtMost(this.#steps, this.size, step);
    return place >= 0 && this.#steps[place] === step;
  }
}

/** The last of the first `size` entries, which ascend, that is at most `value`; -1 where there is none. */
export function lastAtMost(entries, size, value) {
  let [low, high] = [0, size];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

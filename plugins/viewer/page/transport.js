// Where in an episode we are: the step that is shown, playing and seeking. Two kinds with one face, that say "moved".

const DOUBT_SECONDS = 0.4;
const MOST_TRIES = 3;

/** With a video: the clock is the picture that is shown, and nothing else. */
export class VideoTransport extends EventTarget {
  step = 0;
  frame = null; // that is shown; null: not told yet
  rate = 1;
  within = true; // false while the picture is of another episode
  #video;
  #frames;
  #fps;
  #count;
  #wanted = null; // the step that was asked for, until its picture is shown
  #next = null; // the frame to seek to when the seek under way has ended
  #aim = null; // the frame that the last seek was for
  #tries = 0; // how often it was asked for again
  #doubt = 0; // a timer: since the last seek ended, its picture was not heard of

  /** `fps` and `count` are the video's frames a second and in all. */
  constructor(video, frames, { fps, count, first, last }, signal) {
    super();
    this.#video = video;
    this.#frames = frames;
    this.#fps = fps;
    this.#count = count;
    this.first = first;
    this.last = last;
    for (const type of ["play", "pause", "ended"]) video.addEventListener(type, () => this.#moved(), { signal });
    for (const type of ["pause", "ended"]) video.addEventListener(type, () => this.#halt(), { signal });
    video.addEventListener("seeked", () => this.#seeked(), { signal });
    video.addEventListener("loadedmetadata", () => this.#seeked(), { signal });
    signal.addEventListener("abort", () => clearTimeout(this.#doubt));
    const shown = (_, { mediaTime }) => {
      if (signal.aborted) return;
      this.#show(Math.round(mediaTime * fps));
      video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
  }

  get playing() {
    return !this.#video.paused && !this.#video.ended;
  }

  /** Whether the picture that was asked for is still on its way: until it is told of, nothing is said of it. */
  get busy() {
    return this.frame === null || this.#wanted !== null || this.#next !== null || this.#video.seeking;
  }

  /** The step to count from: the one on its way to the screen, where there is one. */
  get target() {
    return this.#wanted ?? this.step;
  }

  play() {
    if (this.frame === this.#count - 1) this.seek(this.first);
    this.#video.playbackRate = this.rate;
    this.#video.play().catch(() => {}); // it was paused again before it began
  }

  pause() {
    this.#video.pause();
    this.#halt();
  }

  setRate(rate) {
    this.rate = rate;
    this.#video.playbackRate = rate;
    this.#moved();
  }

  /** Show a step. While a seek is under way, only the last step asked for is sought next. */
  seek(step) {
    const wanted = Math.min(this.last, Math.max(this.first, step));
    const frame = this.#frames.frameFor(wanted);
    if (frame === null) return;
    this.#wanted = wanted;
    this.#next = null; // its event may still be on its way, with the video ready to be sought by now
    if (this.#video.seeking || this.#video.readyState === 0) {
      this.#next = frame;
    } else if (frame === this.frame && frame === (this.#aim ?? frame) && !this.playing) {
      // It is shown, and no other one was sought: that one's picture may be told of later than the one before it.
      this.#arrive(wanted);
    } else {
      this.#seekTo(frame);
    }
    this.dispatchEvent(new CustomEvent("sought", { detail: wanted }));
  }

  // The middle of a frame's time: a seek to its beginning shows the frame before in every second case.
  #seekTo(frame, within = 0.5) {
    this.#aim = frame;
    this.frame = null;
    this.#video.currentTime = (Math.min(frame, this.#count - 1) + within) / this.#fps;
  }

  #seeked() {
    const frame = this.#next;
    this.#next = null;
    clearTimeout(this.#doubt);
    if (frame !== null && frame !== this.#aim) this.#seekTo(frame);
    else if (this.frame !== this.#aim) this.#doubt = setTimeout(() => this.#again(this.#tries + 1), DOUBT_SECONDS * 1000);
    this.#moved();
  }

  // A browser that has much to do may not tell of a picture: ask for it again, from another moment of its time.
  #again(tries) {
    if (this.#aim === null || this.frame === this.#aim || this.playing || this.#video.seeking) return;
    if (tries > MOST_TRIES) {
      this.#tries = 0;
      this.#wanted = null;
      this.#show(this.frame ?? this.#aim);
      return;
    }
    this.#seekTo(this.#aim, tries % 2 ? 0.4 : 0.6);
    this.#tries = tries;
  }

  // Playing has stopped, and the last picture may not have been told of: what we name is brought to the screen.
  #halt() {
    if (this.frame === null || this.#video.seeking || this.#next !== null) return;
    const frame = this.#video.ended ? this.#count - 1 : this.frame;
    this.#wanted = this.#frames.stepAt(frame);
    this.#seekTo(frame);
    this.#moved();
  }

  #show(frame) {
    this.frame = frame;
    if (frame === this.#aim) this.#tries = 0;
    if (this.#wanted !== null && frame === this.#frames.frameFor(this.#wanted)) {
      this.#arrive(this.#wanted);
      return;
    }
    if (this.playing && !this.#video.seeking && this.#next === null) this.#wanted = null; // it plays on
    const step = this.#frames.stepAt(frame);
    this.within = step !== null;
    this.step = step ?? this.step;
    this.#moved();
  }

  #arrive(step) {
    this.step = step;
    this.within = true;
    this.#wanted = null;
    this.#moved();
  }

  #moved() {
    this.dispatchEvent(new Event("moved"));
  }
}

/** Without a video: the steps themselves, as many a second as the environment would be shown. */
export class StepTransport extends EventTarget {
  rate = 1;
  frame = null;
  within = true;
  playing = false;
  #fps;
  #signal;

  constructor({ fps, first, last }, signal) {
    super();
    this.#fps = fps;
    this.#signal = signal;
    this.first = first;
    this.last = last;
    this.step = first;
  }

  busy = false;

  get target() {
    return this.step;
  }

  play() {
    if (this.playing) return;
    if (this.step >= this.last) this.step = this.first;
    this.playing = true;
    let [before, exact] = [performance.now(), this.step];
    const tick = (now) => {
      if (!this.playing || this.#signal.aborted) return;
      if (Math.floor(exact) !== this.step) exact = this.step; // somebody sought
      exact = Math.min(this.last, exact + ((now - before) / 1000) * this.#fps * this.rate);
      before = now;
      if (exact >= this.last) this.playing = false;
      this.#move(Math.floor(exact));
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.#move(this.step);
  }

  pause() {
    this.playing = false;
    this.#move(this.step);
  }

  setRate(rate) {
    this.rate = rate;
    this.#move(this.step);
  }

  seek(step) {
    this.#move(Math.min(this.last, Math.max(this.first, step)));
    this.dispatchEvent(new CustomEvent("sought", { detail: this.step }));
  }

  #move(step) {
    this.step = step;
    this.dispatchEvent(new Event("moved"));
  }
}

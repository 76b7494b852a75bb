// The one WebSocket: events, workers and pictures. It comes back by itself, and goes on where it was.

const LONGEST_WAIT = 5;

class Stream extends EventTarget {
  connected = false;
  workers = [];
  #socket = null;
  #seq = null;
  #wait = 0.25;
  #watched = new Map(); // who looks: which workers' pictures
  #told = "";

  /** Begin; `after` is the seq behind which events are wanted. */
  start(after) {
    this.#seq = after;
    this.#open();
  }

  /** Look at these workers' pictures, on behalf of `who`; none: an empty list. */
  watch(who, workers) {
    if (workers.length) this.#watched.set(who, workers);
    else this.#watched.delete(who);
    this.#tellWatched();
  }

  /** A picture was drawn: the next one of its worker may come. */
  ack(picture) {
    this.#send({ type: "ack", picture });
  }

  /** Call `listener(message)` for messages of a type, until `signal` is aborted. */
  on(type, listener, signal) {
    this.addEventListener(type, (event) => listener(event.detail), { signal });
  }

  /** Call `listener(event, record)` for each logged event of these types. */
  onEvents(types, listener, signal) {
    this.on("events", ({ records }) => {
      for (const record of records) if (types.includes(record.event.type)) listener(record.event, record);
    }, signal);
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#wait = 0.25;
      this.#send({ type: "subscribe", after: this.#seq });
      this.#told = "";
      this.#tellWatched();
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#hear(JSON.parse(data)) : this.#see(data));
    socket.onclose = () => {
      this.connected = false;
      this.#say("connection", { connected: false });
      setTimeout(() => this.#open(), this.#wait * 1000);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    };
    this.#socket = socket;
  }

  #hear(message) {
    if (message.type === "hello") {
      this.connected = true;
      this.#say("connection", { connected: true });
    }
    if (message.type === "events") this.#seq = message.seq;
    if (message.type === "workers") this.workers = message.workers;
    this.#say(message.type, message);
  }

  #see(data) {
    const size = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
    this.#say("picture", { ...header, jpeg: new Blob([new Uint8Array(data, 4 + size)], { type: "image/jpeg" }) });
  }

  #tellWatched() {
    const workers = [...new Set([...this.#watched.values()].flat())].sort();
    const message = JSON.stringify(workers);
    if (message === this.#told || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#told = message;
    this.#send({ type: "watch", workers, fps: 10 });
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export const stream = new Stream();

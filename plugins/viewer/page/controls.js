// The controls, a drawer over every page: capture, sessions, retention. Each is an event in the log, asked for by the viewer.

import { change, get } from "./api.js";
import { fill, h, mark, Part } from "./element.js";
import { bytes, count, shortSession } from "./format.js";
import { attempt, confirm, notify } from "./notice.js";
import { stream } from "./stream.js";

const MODES = [
  ["every", "Every N-th episode"],
  ["cubic", "Cubic: 0, 1, 8, 27, …, then every 1000th"],
  ["eval", "Evaluation episodes"],
  ["manual", "Only what is asked for"],
  ["off", "None"],
];

const button = document.querySelector("#controls");

/** Open or close the drawer. */
export function toggleControls() {
  const open = document.querySelector("controls-drawer");
  if (open) open.remove();
  else document.body.append(h("controls-drawer"));
  mark(button, "aria-expanded", String(!open));
}

function inWords(settings) {
  if (!settings) return "as configured";
  return settings.mode === "every" ? (settings.every === 1 ? "every episode" : `every ${count(settings.every)} episodes`) : settings.mode;
}

export class ControlsDrawer extends Part {
  async open() {
    this.setAttribute("aria-label", "Controls");
    this.setAttribute("role", "complementary");
    this.capture = h("section", {});
    this.sessions = h("section", {});
    this.retention = h("section", {});
    fill(this, h("header", {}, h("h2", {}, "Controls"), h("span", { class: "spring" }),
      h("button", { type: "button", class: "quiet", "aria-label": "Close", title: "Close (C)", onclick: toggleControls }, "✕")),
    h("div", { class: "scrolls" }, this.capture, this.sessions, this.retention));
    this.listen(window, "keydown", (event) => event.key === "Escape" && !event.target.closest("dialog") && toggleControls());
    await this.#load(true);
    let timer = 0;
    const soon = () => {
      timer ||= setTimeout(() => {
        timer = 0;
        if (!this.signal.aborted) this.#load(false);
      }, 400);
    };
    stream.on("tables", soon, this.signal);
    stream.on("workers", soon, this.signal);
    stream.onEvents(["CaptureAsked", "CaptureApplied", "SessionAsked", "SessionStarted", "SessionEnded"], soon, this.signal);
    this.dataset.ready = "";
  }

  // Only a first look builds the forms: what is being typed stays.
  async #load(first) {
    await attempt(async () => {
      const [about, capture, { sessions }] = await Promise.all([
        get("/api/about", {}, this.signal), get("/api/capture", {}, this.signal), get("/api/sessions", {}, this.signal),
      ]);
      this.about = about;
      if (first) {
        this.#showCapture(capture, sessions);
        this.#showRetention((await get("/api/system", { seconds: 1 }, this.signal)).prune);
      }
      this.#showApplied(capture);
      this.#showSessions(sessions);
      if (!about.writable) for (const one of this.querySelectorAll(".scrolls button, .scrolls input, .scrolls select")) one.disabled = true;
    });
  }

  // What the user asked for goes to the log, and comes back as an event.
  async #ask(method, path, body, said) {
    const answer = await attempt(() => change(method, path, body));
    if (!answer) return;
    notify(answer.kernel === "running" ? said : `${said} It waits for the next kernel.`);
  }

  #showCapture(capture, sessions) {
    const asked = capture.asked ?? capture.workers[0] ?? { mode: "every", every: 1 };
    const mode = h("select", { "aria-label": "Which episodes", class: "mode" }, MODES.map(([value, text]) => h("option", { value, selected: value === asked.mode }, text)));
    const every = h("input", { type: "number", min: 1, step: 1, value: asked.every ?? 1, "aria-label": "N", class: "every" });
    const scope = h("select", { "aria-label": "Which sessions", class: "scope" }, h("option", { value: "" }, "All sessions, and later ones"),
      sessions.filter((one) => one.running).map((one) => h("option", { value: one.session }, `Only ${one.label || shortSession(one.session)}`)));
    const shape = () => (every.hidden = mode.value !== "every");
    mode.addEventListener("change", shape);
    shape();
    const session = () => scope.value || null;
    this.applied = h("div", { class: "applied" });
    fill(this.capture, h("h3", {}, "Capture"),
      h("form", {
        onsubmit: (event) => {
          event.preventDefault();
          const settings = { mode: mode.value, every: Math.max(1, Math.round(Number(every.value)) || 1), session: session() };
          this.#ask("POST", "/api/capture", settings, "Asked for. Workers take it up at their next episode.");
        },
      }, h("div", { class: "line" }, mode, every), h("div", { class: "line" }, scope),
      h("div", { class: "line" }, h("button", { type: "submit", class: "primary apply" }, "Apply"),
        h("button", { type: "button", class: "once", onclick: () => this.#ask("POST", "/api/capture/once", { session: session() }, "Each worker's next episode will be recorded.") }, "Record the next episode"))),
      this.applied);
  }

  #showApplied({ asked, held, workers }) {
    const kept = asked ? `Asked for: ${inWords(asked)}. Kept in the home, for later runs too.` : "Nothing was asked for: each session does as it is configured.";
    const table = workers.length ? h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "worker"), h("th", {}, "does"), h("th", {}, "since episode"))),
      h("tbody", {}, workers.map((one) => h("tr", {}, h("td", { title: one.session }, `${shortSession(one.session)} · ${one.worker}`),
        h("td", {}, one.mode ? inWords(one) : "as configured"), h("td", {}, one.episode === null ? "–" : count(one.episode)))))) : h("p", { class: "faint" }, "No worker is running.");
    fill(this.applied, h("p", { class: "asked" }, kept), held ? h("p", { class: "bad" }, "Free disk space is low, so no new recording begins.") : null, table);
  }

  #showSessions(sessions) {
    const open = sessions.filter((one) => one.running);
    const action = (one, name, text, danger = false) => h("button", {
      type: "button", class: danger ? "danger" : null, disabled: one.kind !== "runner" || this.about.kernel !== "running",
      title: one.kind === "runner" ? null : "A training script is in its own hands",
      onclick: async () => {
        if (danger && !(await confirm("Stop this session?", { detail: `${one.label || one.session}. Its open episodes are aborted, its videos finished.`, yes: "Stop" }))) return;
        this.#ask("POST", `/api/sessions/${encodeURIComponent(one.session)}/${name}`, {}, `Asked to ${name}.`);
      },
    }, text);
    const stored = sessions.filter((one) => one.videos > 0).slice(0, 8);
    const key = JSON.stringify([open.map((one) => [one.session, one.paused]), stored.map((one) => [one.session, one.videos, one.pinned]), this.about.kernel]);
    if (key === this.shownSessions) return;
    this.shownSessions = key;
    fill(this.sessions, h("h3", {}, "Running sessions"),
      open.length ? open.map((one) => h("div", { class: "session", "data-session": one.session }, h("strong", {}, one.label || shortSession(one.session)), h("span", { class: "faint" }, ` ${one.env_id}`), one.paused ? h("span", { class: "warn" }, " paused") : null,
        h("div", { class: "line" }, one.paused ? action(one, "resume", "Resume") : action(one, "pause", "Pause"), action(one, "stop", "Stop…", true)))) : h("p", { class: "faint" }, "None."),
      h("h3", {}, "Videos"),
      stored.length ? stored.map((one) => h("div", { class: "session" }, h("div", { class: "line" },
        h("span", { class: "grow", title: one.session }, one.label || shortSession(one.session), h("small", {}, ` ${count(one.videos)} · ${bytes(one.video_bytes)}${one.pinned ? ` · ${count(one.pinned)} pinned` : ""}`)),
        h("button", { type: "button", class: "quiet danger", onclick: () => this.#deleteAll(one) }, "Delete all…")))) : h("p", { class: "faint" }, "None stands."));
  }

  async #deleteAll(session) {
    const free = session.videos - session.pinned;
    if (!free) {
      notify("All of its videos are pinned. Unpin them first.", true);
      return;
    }
    const detail = `${session.label || session.session}, ${session.env_id}.${session.pinned ? ` ${count(session.pinned)} pinned stay.` : ""} The steps stay.`;
    if (!(await confirm(`Delete ${count(free)} videos?`, { detail, yes: "Delete" }))) return;
    this.#ask("DELETE", `/api/sessions/${encodeURIComponent(session.session)}/videos`, {}, "They will be removed.");
  }

  #showRetention(prune) {
    fill(this.retention, h("h3", {}, "Retention"));
    if (!prune) {
      this.retention.append(h("p", { class: "faint" }, "This home's configuration has no pruner: videos stay until you delete them."));
      return;
    }
    const { limits } = prune;
    const field = (name, text, scale = 1) => {
      const input = h("input", { type: "number", min: 0, step: "any", name, value: limits[name] ? limits[name] / scale : "", placeholder: "no limit" });
      input.dataset.scale = scale;
      return [h("label", { class: "line" }, h("span", { class: "grow" }, text), input), input];
    };
    const fields = [field("max_videos_per_session", "Videos a session"), field("max_bytes", "GB of videos", 2 ** 30), field("max_age_days", "Days")];
    const evict = h("select", { "aria-label": "What goes first" }, ["oldest", "thin"].map((one) => h("option", { value: one, selected: one === limits.evict }, `${one} first`)));
    if (limits.evict && !["oldest", "thin"].includes(limits.evict)) evict.prepend(h("option", { value: limits.evict, selected: true }, limits.evict));
    this.retention.append(h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        const wish = { evict: evict.value };
        for (const [, input] of fields) {
          const value = Number(input.value || 0) * Number(input.dataset.scale);
          wish[input.name] = input.name === "max_age_days" ? value : Math.round(value);
        }
        this.#ask("PUT", "/api/retention", wish, "Asked for: the pruner keeps to these limits.");
      },
    }, fields.map(([label]) => label), h("div", { class: "line" }, h("button", { type: "submit" }, "Apply limits"), evict)),
    h("p", { class: "faint" }, prune.removals.length ? `The next prune would remove ${count(prune.removals.length)} videos (${bytes(prune.removals.reduce((sum, one) => sum + one.bytes, 0))}).` : "The next prune would remove nothing. Pinned videos always stay."));
  }
}

customElements.define("controls-drawer", ControlsDrawer);

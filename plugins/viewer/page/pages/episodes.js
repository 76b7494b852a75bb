// Episodes: all sessions' episodes in one table, however many.

import { address, amend, go, query } from "../address.js";
import { change, get, rows } from "../api.js";
import { fill, h, mark, Part, say, whenQuiet } from "../element.js";
import { age, bytes, clock, count, duration, number, shortSession } from "../format.js";
import { bind } from "../keys.js";
import { attempt, confirm, empty, notify } from "../notice.js";
import { RowCache } from "../row-cache.js";
import { stream } from "../stream.js";
import { thumbnail } from "../thumbnail.js";
import "../virtual-table.js";

const FILTERS = ["session", "env", "worker", "outcome", "agent", "video", "evaluation", "success", "pinned", "failed", "q"];
const MARKS = [["best", "b"], ["worst", "w"], ["longest", "l"], ["latest", "a"], ["failed", "f"]];
const MOST = 4; // episodes beside each other

export class EpisodesPage extends Part {
  async open() {
    this.selected = new Map(); // id: row
    this.asOf = null;
    this.generation = 0;
    this.spans = new Map(); // environment: lowest and highest return that was seen, for the bars
    const asked = query();
    this.sort = asked.sort ?? "-started";
    this.filters = Object.fromEntries(FILTERS.filter((name) => name in asked).map((name) => [name, asked[name]]));
    this.cache = new RowCache((offset, limit) => this.#fetch(offset, limit), () => this.table.refresh());
    this.#frame();
    this.#bindKeys();
    await attempt(async () => {
      this.sessions = (await get("/api/sessions", {}, this.signal)).sessions;
      this.#showFilters();
    });
    await this.#reload();
    this.table.focus();
    this.dataset.ready = "";
    this.#follow();
  }

  #frame() {
    this.filterBar = h("div", { class: "bar filters", role: "search" });
    this.newer = h("button", { type: "button", class: "newer", hidden: true, onclick: () => this.#reload() });
    this.total = h("output", { class: "faint" });
    this.marks = h("div", { class: "group" }, MARKS.map(([name, key]) => h("button", {
      type: "button", class: "quiet", title: `Open the ${name} episode of these (${key.toUpperCase()})`, onclick: () => this.#openMark(name),
    }, name)));
    this.actions = h("div", { class: "group", hidden: true });
    this.table = h("virtual-table", { class: "episodes" });
    this.nothing = h("div", { class: "cover", hidden: true });
    fill(this, this.filterBar, h("div", { class: "bar second" }, this.total, this.newer, h("span", { class: "spring" }), this.actions, this.marks), h("div", { class: "fills" }, this.table, this.nothing));
    this.#showFilters();
    this.table.show({
      label: "Episodes",
      rowHeight: 36,
      columns: this.#columns(),
      rowAt: (index) => this.cache.at(index),
      want: (from, to) => {
        this.inView = [from, to];
        this.cache.want(from, to);
      },
      act: (row, index, event) => this.#act(row, index, event),
      mark: (row) => (this.selected.has(row.id) ? "chosen" : ""),
    });
    this.table.sorted = this.sort;
    this.listen(this.table, "sort", ({ detail }) => this.#sortBy(detail));
  }

  #columns() {
    return [
      { key: "chosen", title: "", width: "30px", cell: (row) => this.#checkbox(row) },
      { key: "picture", title: "", width: "70px", cell: (row) => h("a", { href: this.#href(row), tabindex: "-1", class: "still" }, thumbnail(row.thumbnail, row.strip)) },
      { key: "episode", title: "Episode", width: "74px", kind: "number", sort: true, cell: (row) => h("a", { href: this.#href(row), tabindex: "-1" }, count(row.episode)) },
      { key: "env", title: "Environment", width: "minmax(90px, 1.1fr)", sort: true, cell: (row) => h("span", { title: row.env }, row.env, row.agent && row.agent !== "agent_0" ? h("small", {}, ` ${row.agent}`) : null, row.evaluation ? h("small", { class: "tag" }, "eval") : null) },
      { key: "session", title: "Session", width: "minmax(80px, 1fr)", sort: true, cell: (row) => h("span", { title: row.session }, row.label || shortSession(row.session)) },
      { key: "worker", title: "Worker", width: "58px", kind: "number", sort: true, cell: (row) => row.worker },
      { key: "return", title: "Return", width: "150px", kind: "amounts", sort: true, cell: (row) => this.#returnBar(row) },
      { key: "length", title: "Length", width: "74px", kind: "number", sort: true, cell: (row) => count(row.length) },
      { key: "outcome", title: "Outcome", width: "96px", sort: true, cell: (row) => outcome(row) },
      { key: "seconds", title: "Duration", width: "76px", kind: "number", sort: true, cell: (row) => duration(row.seconds) },
      { key: "size", title: "Video", width: "minmax(150px, 1.4fr)", sort: true, cell: (row) => this.#video(row) },
      { key: "started", title: "Age", width: "62px", kind: "number", sort: true, cell: (row) => h("time", { title: clock(row.started) }, age(row.started)) },
    ];
  }

  #href(row) {
    return address(`/episodes/${encodeURIComponent(row.id)}`);
  }

  #checkbox(row) {
    const box = h("input", { type: "checkbox", tabindex: "-1", checked: this.selected.has(row.id), "aria-label": `Choose episode ${row.episode}` });
    box.addEventListener("click", (event) => {
      event.stopPropagation();
      this.#choose(row, box.checked);
    });
    return h("label", { class: "choose", onclick: (event) => event.stopPropagation() }, box);
  }

  #returnBar(row) {
    const [from, to] = this.spans.get(row.env) ?? [0, 0];
    const share = row.return === null ? 0 : (row.return - from) / Math.max(1e-9, to - from);
    const meter = h("span", { class: "meter" }, h("i", {}));
    meter.firstChild.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    return [meter, h("span", { class: "amount" }, number(row.return))];
  }

  #video(row) {
    if (row.video_state === "available") {
      return [
        h("a", { class: "button watch", href: this.#href(row), tabindex: "-1", title: "Play the recording" }, "▶ ", duration(row.video_seconds)),
        h("small", { class: "size" }, bytes(row.video_bytes)),
        row.pinned ? h("span", { class: "pinned", title: "Pinned: the pruner keeps it" }, "pinned") : null,
      ];
    }
    return h("span", { class: `why ${row.video_state}`, title: row.video_text }, row.video_text || row.video_state.replace("_", " "));
  }

  #act(row, index, event) {
    if (event.target.closest?.("a, button, label")) return;
    if (event.shiftKey || event.ctrlKey || event.metaKey) this.#choose(row, !this.selected.has(row.id));
    else go(this.#href(row));
  }

  // What is asked for.

  async #fetch(offset, limit) {
    const asked = this.generation;
    const answer = await get("/api/episodes", { ...this.filters, sort: this.sort, offset, limit, as_of: this.asOf }, this.signal);
    if (asked !== this.generation) return [];
    this.asOf ??= answer.as_of;
    const found = rows(answer.columns);
    this.#span(found);
    this.#counted(answer);
    return found;
  }

  #span(found) {
    let grown = false;
    for (const row of found) {
      if (row.return === null) continue;
      const [low, high] = this.spans.get(row.env) ?? [0, 0]; // a bar begins at 0, or below
      if (this.spans.has(row.env) && row.return >= low && row.return <= high) continue;
      this.spans.set(row.env, [Math.min(low, row.return), Math.max(high, row.return)]);
      grown = true;
    }
    if (grown) this.table.repaint();
  }

  #counted({ total, newer }) {
    say(this.total, total === 1 ? "1 episode" : `${count(total)} episodes`);
    say(this.newer, `${count(newer)} newer · show`);
    this.newer.hidden = newer === 0;
    this.nothing.hidden = total > 0;
    if (total === 0 && !this.nothing.childElementCount) fill(this.nothing, this.#whyNone());
    if (this.table.total !== total) this.table.refresh(total);
  }

  #whyNone() {
    if (Object.keys(this.filters).length) {
      return empty("No episode is like that", h("button", { type: "button", onclick: () => this.#filterBy({}, true) }, "Show all episodes"));
    }
    return empty("No episodes yet", h("p", {}, "Start a run: ", h("code", {}, "python -m kernel config/quickstart.toml")),
      "Episodes appear here as soon as they begin. The tables of the home are needed: the sqlite plugin keeps them.");
  }

  async #reload() {
    this.generation += 1;
    this.asOf = null;
    this.cache.clear();
    fill(this.nothing);
    amend({ ...Object.fromEntries(FILTERS.map((name) => [name, this.filters[name]])), sort: this.sort === "-started" ? null : this.sort });
    if (this.table.view) this.table.view.scrollTop = 0;
    this.table.active = -1;
    await attempt(() => this.cache.renew(0, 1));
  }

  // New rows never move what is looked at: the list stays as it was asked for, and its rows are renewed where they stand.
  #follow() {
    let busy = false;
    const renew = async () => {
      if (busy || document.hidden || this.signal.aborted) return;
      busy = true;
      await attempt(() => (this.table.total ? this.cache.renew(...(this.inView ?? [0, 1])) : this.#reload()));
      busy = false;
    };
    let timer = 0;
    stream.on("tables", () => {
      timer ||= setTimeout(() => {
        timer = 0;
        renew();
      }, 1200);
    }, this.signal);
    this.every(30, () => this.table.repaint()); // ages
  }

  #sortBy(key) {
    const descends = ["return", "length", "seconds", "size", "started", "ended", "success"].includes(key);
    const first = descends ? `-${key}` : key;
    this.sort = this.sort === first ? (descends ? key : `-${key}`) : first;
    this.table.sorted = this.sort;
    this.#reload();
  }

  #filterBy(changes, anew = false) {
    this.filters = anew ? {} : { ...this.filters };
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") delete this.filters[name];
      else this.filters[name] = value;
    }
    this.#showFilters();
    this.#reload();
  }

  #showFilters() {
    const choice = (name, all, options) => {
      const select = h("select", { "aria-label": name, "data-filter": name }, h("option", { value: "" }, all),
        options.map(([value, text]) => h("option", { value, selected: this.filters[name] === value }, text)));
      select.addEventListener("change", () => this.#filterBy({ [name]: select.value }));
      if (this.filters[name]) select.classList.add("set");
      return select;
    };
    const sessions = this.sessions ?? [];
    const envs = [...new Set(sessions.map((one) => one.env_id))].sort();
    const had = document.activeElement === this.search;
    if (!this.search) {
      this.search = h("input", { type: "search", placeholder: "Search (/)", "aria-label": "Search", value: this.filters.q ?? "" });
      const soon = whenQuiet(0.25, () => this.#filterBy({ q: this.search.value.trim() }));
      this.listen(this.search, "input", soon);
      this.listen(this.search, "keydown", (event) => event.key === "Escape" && this.table.focus());
    } else if ((this.filters.q ?? "") !== this.search.value.trim()) {
      this.search.value = this.filters.q ?? "";
    }
    fill(this.filterBar, this.search,
      choice("session", "All sessions", sessions.map((one) => [one.session, `${one.label || shortSession(one.session)} · ${one.env_id} · ${age(one.started)}`])),
      envs.length > 1 ? choice("env", "All environments", envs.map((env) => [env, env])) : null,
      choice("video", "Any video", [["available", "with video"], ["encoding", "encoding"], ["recording", "recording"], ["failed", "encoding failed"], ["discarded", "discarded"], ["pruned", "pruned"], ["not_captured", "not captured"]]),
      choice("outcome", "Any outcome", [["terminated", "terminated"], ["truncated", "truncated"], ["aborted", "aborted"]]),
      choice("evaluation", "Training and evaluation", [["false", "training"], ["true", "evaluation"]]),
      h("button", { type: "button", class: "quiet", "aria-pressed": String(this.filters.failed === "true"), title: "Without success, or aborted", onclick: () => this.#filterBy({ failed: this.filters.failed ? null : "true" }) }, "failures"),
      h("button", { type: "button", class: "quiet", "aria-pressed": String(this.filters.pinned === "true"), onclick: () => this.#filterBy({ pinned: this.filters.pinned ? null : "true" }) }, "pinned"),
      Object.keys(this.filters).length ? h("button", { type: "button", class: "quiet", onclick: () => this.#filterBy({}, true) }, "clear") : null);
    if (had) this.search.focus();
  }

  // What is done with what was chosen.

  #choose(row, chosen) {
    if (chosen) this.selected.set(row.id, row);
    else this.selected.delete(row.id);
    this.table.repaint();
    this.#showActions();
  }

  #showActions() {
    const chosen = [...this.selected.values()];
    const videos = chosen.filter((row) => row.video_state === "available");
    const pin = videos.some((row) => !row.pinned);
    this.actions.hidden = !chosen.length;
    fill(this.actions, h("span", { class: "faint" }, `${chosen.length} chosen`),
      h("button", { type: "button", class: "quiet", disabled: chosen.length < 2 || chosen.length > MOST, title: `Two to ${MOST} episodes side by side (Enter)`, onclick: () => this.#compare() }, "Compare"),
      h("button", { type: "button", class: "quiet", disabled: !videos.length, onclick: () => this.#pin(videos, pin) }, pin ? "Pin" : "Unpin"),
      h("button", { type: "button", class: "quiet danger", disabled: !videos.length, onclick: () => this.#delete(videos) }, "Delete…"),
      h("button", { type: "button", class: "quiet", onclick: () => this.#chooseNone() }, "None"));
  }

  #chooseNone() {
    this.selected.clear();
    this.table.repaint();
    this.#showActions();
  }

  #compare() {
    if (this.selected.size >= 2 && this.selected.size <= MOST) go(address("/compare", { ids: [...this.selected.keys()].join(",") }));
  }

  async #pin(videos, pin) {
    await attempt(async () => {
      for (const row of videos) await change(pin ? "PUT" : "DELETE", `/api/videos/${row.video}/pin`);
      notify(`${count(videos.length)} ${pin ? "pinned" : "unpinned"}.`);
    });
    this.#chooseNone();
  }

  async #delete(videos) {
    const free = videos.filter((row) => !row.pinned);
    const size = free.reduce((sum, row) => sum + (row.video_bytes ?? 0), 0);
    const kept = videos.length - free.length;
    if (!free.length) {
      notify("Pinned videos are not deleted. Unpin them first.", true);
      return;
    }
    const what = free.length === 1 ? "this video" : `${count(free.length)} videos`;
    const detail = `${bytes(size)}. Their steps stay.${kept ? ` ${count(kept)} pinned ${kept === 1 ? "one stays" : "ones stay"}.` : ""}`;
    if (!(await confirm(`Delete ${what}?`, { detail, yes: "Delete" }))) return;
    await attempt(async () => {
      for (const row of free) await change("DELETE", `/api/videos/${row.video}`);
      notify("They will be removed.");
    });
    this.#chooseNone();
  }

  async #openMark(name) {
    const marks = await attempt(() => get("/api/episodes/marks", this.filters, this.signal));
    if (!marks) return;
    if (marks[name]) go(address(`/episodes/${encodeURIComponent(marks[name])}`));
    else notify(`There is no ${name} episode among these.`);
  }

  #bindKeys() {
    const active = () => this.cache.at(this.table.active);
    bind("Episodes", [
      { keys: ["ArrowDown", "ArrowUp"], does: "Next, previous row", run: () => this.table.focus() },
      { keys: ["Enter"], does: "Open it", run: () => active() && go(this.#href(active())) },
      { keys: [" ", "x"], does: "Choose it", run: () => active() && this.#choose(active(), !this.selected.has(active().id)) },
      { keys: ["m"], does: "Compare what is chosen", run: () => this.#compare() },
      { keys: ["/"], does: "Search", run: () => this.search.focus() },
      { keys: ["n"], does: "Show newer episodes", run: () => this.#reload() },
      ...MARKS.map(([name, key]) => ({ keys: [key], does: name === "failed" ? "Open the latest failed episode" : `Open the ${name} episode`, run: () => this.#openMark(name) })),
    ], this.signal);
  }
}

function outcome(row) {
  const text = row.outcome ?? "running";
  const kind = row.success === true ? "good" : row.success === false ? "bad" : row.outcome === "aborted" ? "bad" : row.outcome ? "" : "accent";
  const result = row.success === true ? "success" : row.success === false ? "failure" : null;
  return h("span", { class: `outcome ${kind}`, title: result ? `${text}, ${result}` : text }, result ?? text);
}

customElements.define("episodes-page", EpisodesPage);

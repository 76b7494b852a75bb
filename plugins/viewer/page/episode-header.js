// The line above a replay: which episode it is, and what can be done with it.

import { address, go } from "./address.js";
import { h } from "./element.js";
import { age, bytes, clock, count, number, shortSession } from "./format.js";
import { icon } from "./icon.js";

/**
 * Its parts. `episode` and `video` are as the server says them; `step()` is the step that is looked at, and `does` has
 * what the buttons do: `pin`, `copyLink`, `remove`.
 */
export function episodeHeader({ id, path, episode, video, length, step, does }) {
  return [
    h("h1", {}, h("a", { href: address("/episodes", { session: episode.session }), title: episode.session }, episode.label || shortSession(episode.session)),
      h("span", { class: "slash" }, "/"), `episode ${count(episode.episode)}`),
    facts(id, episode, length, step),
    h("span", { class: "spring" }),
    neighbours(episode),
    h("div", { class: "group" },
      pinButton(video, does.pin),
      h("button", { type: "button", class: "quiet", title: "Copy a link to this step (Y)", onclick: does.copyLink }, "Copy link"),
      downloads({ id, path, episode, video, remove: does.remove })),
  ];
}

/** The button that pins a video, or unpins it. */
export function pinButton(video, pin) {
  const pinned = video?.pinned ?? false;
  const title = pinned ? "Unpin: the pruner decides again (P)" : "Pin: the pruner keeps this video (P)";
  return h("button", {
    type: "button", class: "quiet pin", "aria-pressed": String(pinned), disabled: !video, title: video ? title : "There is no video to pin", onclick: pin,
  }, pinned ? "Pinned" : "Pin");
}

function facts(id, episode, length, step) {
  const fact = (name, text, kind = "") => h("span", { class: `fact ${kind}` }, name && h("small", {}, name), text);
  const outcome = episode.outcome ?? (episode.running ? "running" : "open");
  return [
    fact("", episode.env), fact("worker", episode.worker),
    episode.agents.length > 1 ? agentChoice(id, episode.agents, step) : null,
    episode.evaluation ? fact("", "evaluation", "accent") : null,
    fact("return", number(episode.return), "strong"), fact("length", count(length)), fact("", outcome, outcome),
    episode.success === null ? null : fact("", episode.success ? "success" : "failure", episode.success ? "good" : "bad"),
    fact("seed", episode.seed ?? "–"), fact("", h("time", { title: clock(episode.started) }, `${age(episode.started)} ago`)),
  ];
}

function agentChoice(id, agents, step) {
  const choice = h("select", { "aria-label": "Agent" }, agents.map((one) => h("option", { value: one.id, selected: one.id === id }, one.agent)));
  choice.addEventListener("change", () => go(address(`/episodes/${encodeURIComponent(choice.value)}`, { step: step() })));
  return choice;
}

function neighbours(episode) {
  const link = (id, text, title) => h("a", {
    class: "button quiet", title, href: id ? address(`/episodes/${encodeURIComponent(id)}`) : null, "aria-disabled": id ? null : "true",
  }, text);
  return h("nav", { class: "group", "aria-label": "Episodes" },
    link(episode.previous, icon("left"), "Previous episode (J)"), link(episode.next, icon("right"), "Next episode (K)"),
    link(episode.best, "Best", "The session's best episode (B)"), link(episode.worst, "Worst", "The session's worst episode (W)"));
}

function downloads({ id, path, episode, video, remove }) {
  const [twin] = episode.same_seed;
  return h("details", { class: "menu" }, h("summary", { class: "button quiet" }, "Download"), h("div", { class: "sheet" },
    video ? h("a", { href: video.download, download: "" }, "Video (MP4)", h("small", {}, bytes(video.bytes))) : h("span", { class: "off" }, "No video"),
    h("a", { href: `${path}/steps.csv`, download: "" }, "Steps (CSV)"),
    h("a", { href: `${path}/steps.json`, download: "" }, "Steps (JSON)"),
    twin ? h("a", { href: address("/compare", { ids: `${id},${twin.id}` }) }, "Compare with the same seed", h("small", {}, twin.label || shortSession(twin.session))) : null,
    video ? h("button", { type: "button", class: "danger", onclick: remove }, "Delete the video…") : null));
}

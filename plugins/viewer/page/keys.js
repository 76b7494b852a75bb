// The keyboard: what stands binds its keys, and ? lists those that are bound.

import { h } from "./element.js";

const bound = new Set();

/**
 * Bind keys while `signal` lasts. Each binding has `keys` (names as KeyboardEvent has them, "Shift+" before them where
 * it matters), `does` (for the help) and `run`.
 */
export function bind(title, bindings, signal) {
  const group = { title, bindings };
  bound.add(group);
  signal?.addEventListener("abort", () => bound.delete(group));
}

/** Begin to listen. */
export function listen() {
  bind("Everywhere", [
    { keys: ["?"], does: "This help", run: showHelp },
    { keys: ["Escape"], does: "Close what is open", run: () => {} },
  ]);
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
    if (document.querySelector("dialog[open]")) return;
    for (const group of [...bound].reverse()) {
      for (const binding of group.bindings) {
        if (!binding.keys.some((key) => matches(key, event))) continue;
        // A button that has the focus keeps its own Space and Enter.
        if ((event.key === " " || event.key === "Enter") && event.target.closest?.("button, a, summary, select")) return;
        binding.run(event);
        if (event.key !== "Escape") event.preventDefault();
        return;
      }
    }
  });
}

function matches(key, event) {
  if (key.startsWith("Shift+")) return event.shiftKey && event.key === key.slice(6);
  const shifted = key.length === 1 || !event.shiftKey; // "?" needs Shift on most keyboards
  return shifted && (event.key === key || (key.length === 1 && event.key.toLowerCase() === key));
}

function isTyping(event) {
  const field = event.target.closest?.("input, textarea, [contenteditable]");
  return Boolean(field) && !["checkbox", "radio", "range", "button"].includes(field.type);
}

const NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

function keyName(key) {
  if (key.startsWith("Shift+")) return `⇧ ${keyName(key.slice(6))}`;
  return NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** Show which keys are bound now. */
export function showHelp() {
  const lists = [...bound].reverse().filter((group) => group.bindings.some((binding) => binding.does)).map((group) =>
    h("section", {}, h("h3", {}, group.title), h("dl", { class: "keys" }, group.bindings.filter((binding) => binding.does)
      .map((binding) => h("div", {},
        h("dt", {}, binding.keys.map((key) => h("kbd", {}, keyName(key)))), h("dd", {}, binding.does))))));
  const dialog = h("dialog", { class: "help", "aria-label": "Keyboard" },
    h("header", {}, h("h2", {}, "Keyboard"),
      h("button", { class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
    h("div", { class: "columns" }, lists));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

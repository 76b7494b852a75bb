// The page's frame: which page the address means, the navigation, and what is known of the home.

import { go } from "./address.js";
import { about, look } from "./about.js";
import { h, mark, say } from "./element.js";
import { bind, listen, showHelp } from "./keys.js";
import { empty, notify } from "./notice.js";
import { stream } from "./stream.js";
import { toggleControls } from "./controls.js";
import "./pages/compare.js";
import "./pages/episodes.js";
import "./pages/live.js";
import "./pages/progress.js";
import "./pages/replay.js";
import "./pages/system.js";

const PAGES = [
  { path: "/", name: "Progress", element: "progress-page", key: "1" },
  { path: "/live", name: "Live", element: "live-page", key: "2" },
  { path: "/episodes", name: "Episodes", element: "episodes-page", key: "3" },
  { path: "/compare", name: "Compare", element: "compare-page", key: "4" },
  { path: "/system", name: "System", element: "system-page", key: "5" },
];

const main = document.querySelector("#page");
const navigation = document.querySelector("#pages");
const state = document.querySelector("#state");

function show() {
  const path = location.pathname;
  const replay = path.startsWith("/episodes/");
  const page = PAGES.find((one) => one.path === (replay ? "/episodes" : path));
  for (const link of navigation.children) mark(link, "aria-current", link.dataset.path === page?.path ? "page" : null);
  const element = replay ? "replay-page" : page?.element;
  document.title = `${page?.name ?? "Not found"} · Stepreel`;
  main.replaceChildren(element ? h(element) : empty("There is no such page", h("p", {}, h("a", { href: "/" }, "Progress"))));
  scrollTo(0, 0);
}

async function showState() {
  try {
    await look();
  } catch (error) {
    say(state, error.status === 401 ? "not signed in" : "no answer");
    mark(state, "class", "bad");
    return;
  }
  const words = about.kernel === "running" ? "running" : about.writable ? "no kernel" : "read only";
  say(state, about.database === "ready" ? words : { behind: "catching up", missing: "no tables", unreadable: "tables unreadable" }[about.database]);
  mark(state, "class", about.kernel === "running" && about.database === "ready" ? "good" : "");
  mark(state, "title", [
    `Home ${about.name} (${about.home})`,
    about.kernel === "running" ? "A kernel is running on it." : "No kernel is running on it.",
    about.writable ? "" : "It cannot be written to, so nothing can be changed.",
    { behind: "The tables are catching up with the log.", missing: "There are no tables: add the sqlite plugin, or record something.", unreadable: "The tables cannot be read." }[about.database] ?? "",
  ].filter(Boolean).join("\n"));
}

// Links of this site change the page in place.
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const to = new URL(link.href);
  if (to.origin !== location.origin || to.pathname.startsWith("/api/") || link.hasAttribute("download") || link.target) return;
  event.preventDefault();
  go(to.pathname + to.search);
});
// A menu closes when something else is clicked, or on Escape.
addEventListener("pointerdown", (event) => closeMenus(event.target));
addEventListener("keydown", (event) => event.key === "Escape" && closeMenus(document.body));

function closeMenus(clicked) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(clicked)) menu.open = false;
}

addEventListener("popstate", show);
addEventListener("went", show);
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") {
    event.preventDefault(); // its page was left
  } else {
    notify(event.reason?.message ?? String(event.reason), true);
  }
});

navigation.append(...PAGES.map(({ path, name, key }) => h("a", { href: path, "data-path": path, title: `${name} (${key})` }, name)));
document.querySelector("#controls").addEventListener("click", toggleControls);
document.querySelector("#help").addEventListener("click", showHelp);
listen();
bind("Pages", [
  ...PAGES.map(({ path, name, key }) => ({ keys: [key], does: name, run: () => go(path) })),
  { keys: ["c"], does: "Controls", run: toggleControls },
]);
show();
showState();
stream.start(null);
stream.addEventListener("connection", showState);
setInterval(() => document.hidden || showState(), 5000);

// The few signs on buttons, drawn by us so that they look alike everywhere.

import { svg } from "./element.js";

const PATHS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  first: "M3 3h2v10H3zM13 3v10L6 8z",
  last: "M11 3h2v10h-2zM3 3v10l7-5z",
  back: "M11 3v10L4 8z",
  forth: "M5 3v10l7-5z",
  left: "M10.5 2.5 5 8l5.5 5.5 1-1L7 8l4.500-4.500z",
  right: "M5.500 2.500 11 8l-5.500 5.500-1-1L9 8 4.500 3.500z",
};

/** A sign, in the colour of the text around it. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}

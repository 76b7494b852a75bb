// Plotly, fetched when the first chart is drawn, and what all our charts have in common.

let loading = null;

/** Plotly's own bundle. */
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/vendor/plotly.min.js";
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("The charts' library could not be loaded."));
    };
    document.head.append(script);
  });
  return loading;
}

/** A colour of the style sheet, by its variable's name. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The colour of the n-th line of a chart. */
export function seriesColour(place) {
  return colour(`series-${(place % 8) + 1}`);
}

/** Call `redraw` when the system goes from light to dark or back. */
export function onTheme(redraw, signal) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(), { signal });
}

/** An axis in the page's colours. */
export function axis(more = {}) {
  return {
    gridcolor: colour("grid"),
    zerolinecolor: colour("rule"),
    linecolor: colour("rule"),
    tickfont: { size: 10, color: colour("faint") },
    title: { text: "", font: { size: 11, color: colour("faint") } },
    automargin: false,
    fixedrange: true,
    ...more,
  };
}

/** A layout in the page's colours. */
export function layout(more = {}) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("ink") },
    showlegend: false,
    hovermode: false,
    dragmode: false,
    ...more,
  };
}

export const CONFIG = { displayModeBar: false, responsive: false, staticPlot: true, doubleClick: false };

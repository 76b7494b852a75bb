// The series of an episode's steps: which are shown at first, in which charts, and a series' value in a step's row.

const SHOWN_AT_FIRST = { reward: 2, terms: 6, action: 4, observation: 4, info: 4 };
const TITLES = { terms: "Reward terms", action: "Action", observation: "Observation", info: "Info", timing: "Step time" };

/** Names of the series that are shown unless the user chose others. */
export function chosenAtFirst(series) {
  const left = { ...SHOWN_AT_FIRST };
  return series.filter((one) => (left[one.group] ?? 0) > 0 && left[one.group]-- > 0).map((one) => one.name);
}

/** Charts for the chosen series: [{key, title, series}]. Reward and return have one each; the other groups share one. */
export function charts(series, chosen) {
  const shown = series.filter((one) => chosen.includes(one.name));
  const made = [];
  for (const one of shown.filter((each) => each.group === "reward")) {
    made.push({ key: one.name, title: one.name === "return" ? "Return so far" : "Reward", series: [short(one)] });
  }
  for (const group of ["terms", "action", "observation", "info", "timing"]) {
    const members = shown.filter((one) => one.group === group).map(short);
    if (!members.length) continue;
    if (group === "terms") {
      const total = series.find((one) => one.name === "reward");
      const all = members.map((one) => ({ ...one, term: true }));
      made.push({ key: group, title: TITLES[group], series: total ? [...all, { ...short(total), label: "total" }] : all });
    } else {
      made.push({ key: group, title: TITLES[group], series: members });
    }
  }
  return made;
}

/** How a series is called within its chart. */
function short(one) {
  const label = one.name.replace(/^(action|observation|info)\.?/, "") || one.name;
  return { ...one, label: one.label && one.label !== one.name ? one.label : label };
}

/** A series' value in a row as `rows` gives it: a number, or undefined where it has none. */
export function valueIn(row, name) {
  const [field, ...path] = name.split(".");
  const value = dig(row[field], path);
  return typeof value === "boolean" ? Number(value) : typeof value === "number" ? value : undefined;
}

// A key may hold dots itself, as flattened Dict spaces do: the longest one that is there is taken.
function dig(value, path) {
  if (!path.length) return value;
  if (value === null || typeof value !== "object") return undefined;
  for (let length = path.length; length > 0; length -= 1) {
    const key = path.slice(0, length).join(".");
    if (Object.hasOwn(value, key)) return dig(value[key], path.slice(length));
  }
  return undefined;
}

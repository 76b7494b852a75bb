// What the server is asked for, over HTTP.

/** An answer that was an error; its message is the server's sentence for the user. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET JSON. `values` become the query: arrays repeat their name, and what is null or empty is left out. */
export async function get(path, values = {}, signal = undefined) {
  return (await ask(path + queryOf(values), { signal })).json();
}

/** Ask for a change: POST, PUT or DELETE with a JSON object. */
export async function change(method, path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method, headers, body: JSON.stringify(body) })).json();
}

/**
 * Columns of an episode's steps, by name, each a typed array of the same length; and what the header says of them
 * (`rows`, `total`, `from`, `to`, `sampled`, `nonfinite`).
 */
export async function steps(episode, columns, range = {}, signal = undefined) {
  const path = `/api/episodes/${encodeURIComponent(episode)}/steps`;
  const answer = await ask(path + queryOf({ columns: columns.join(","), ...range }), { signal });
  return decode(await answer.arrayBuffer());
}

const KINDS = { f64: Float64Array, i32: Int32Array, u8: Uint8Array };

function decode(buffer) {
  const size = new DataView(buffer).getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const columns = {};
  for (const { name, kind, offset, length } of header.columns) columns[name] = new KINDS[kind](buffer, offset, length);
  return { ...header, columns };
}

export function queryOf(values) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") search.append(name, one);
    }
  }
  return search.size ? `?${search}` : "";
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The viewer does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refusal(answer.status, said?.error ?? `${path} answered ${answer.status}`);
}

/** A table that came as columns, as rows. */
export function rows(columns) {
  const names = Object.keys(columns);
  const length = names.length ? columns[names[0]].length : 0;
  return Array.from({ length }, (_, index) => Object.fromEntries(names.map((name) => [name, columns[name][index]])));
}

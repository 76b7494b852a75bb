// How numbers, times and sizes are shown. What is missing is an en dash.

const NOTHING = "–";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count, as 12,345. */
export function count(value) {
  return missing(value) ? NOTHING : whole.format(value);
}

/** A measured number with about four figures: 0.001235, 12.35, 12,346, 1.235e9. */
export function number(value) {
  if (typeof value === "boolean") return String(value);
  if (missing(value)) return NOTHING;
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return whole.format(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return value.toExponential(3);
  if (size >= 1e4) return whole.format(value);
  return String(Number(value.toPrecision(4)));
}

/** A length of time: 0.42 s, 12.3 s, 4:05, 1:02:03, 3 d 4 h. */
export function duration(seconds) {
  if (missing(seconds)) return NOTHING;
  if (seconds < 0.0995) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  const [days, hours, minutes, left] = [
    Math.floor(rounded / 86400),
    Math.floor(rounded / 3600) % 24,
    Math.floor(rounded / 60) % 60,
    rounded % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours}:${two(minutes)}:${two(left)}`;
  return `${minutes}:${two(left)}`;
}

/** How long ago a Unix time was: now, 12 s, 5 min, 3 h, 4 d. */
export function age(time) {
  if (missing(time)) return NOTHING;
  const seconds = Math.max(0, Date.now() / 1000 - time);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400 * 2) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A Unix time as 2026-11-22 06:27:18, in the reader's own zone. */
export function clock(time) {
  if (missing(time)) return NOTHING;
  const at = new Date(time * 1000);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A size: 512 B, 31 KB, 4.2 MB, 20 GB. */
export function bytes(size) {
  if (missing(size)) return NOTHING;
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 9.95 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** A share: 0.4213 as 42 %. */
export function percent(share) {
  return missing(share) ? NOTHING : `${Math.round(share * 100)} %`;
}

/** An action, an observation or an info as one short line. */
export function value(anything) {
  if (missing(anything)) return NOTHING;
  if (typeof anything === "number") return number(anything);
  if (typeof anything === "string") return anything;
  if (Array.isArray(anything)) return `[${anything.map(value).join(", ")}]`;
  if (typeof anything === "object") {
    return Object.entries(anything).map(([name, entry]) => `${name} ${value(entry)}`).join("  ");
  }
  return String(anything);
}

/** The last part of a session's name, by which people tell sessions apart. */
export function shortSession(session) {
  return session.split("-").at(-1);
}

function missing(value) {
  return value === null || value === undefined || Number.isNaN(value);
}

function two(value) {
  return String(value).padStart(2, "0");
}

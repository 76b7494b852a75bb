// Building the page: every string becomes a text node or an attribute, never markup.

/**
 * A new element. Properties that begin with "on" are listeners, `class`, `data-…`, `aria-…` and the like are
 * attributes; null, undefined and false leave an attribute out. Children are nodes or text; null and false are left out.
 */
export function h(tag, properties = {}, ...children) {
  return dress(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function dress(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...kept(children));
  return element;
}

function kept(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Put these children, and no others, into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
  return element;
}

/** Set an element's text where it differs, so that what stands is not laid out again. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
  return element;
}

/** Set or remove an attribute where it differs. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value === true ? "" : value)) {
    element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/** What has a life in the document: `open` when it is put in, and `signal` is aborted when it is taken out. */
export class Part extends HTMLElement {
  connectedCallback() {
    this.life = new AbortController();
    this.open();
  }

  disconnectedCallback() {
    this.life.abort();
    this.close();
  }

  open() {}

  close() {}

  get signal() {
    return this.life.signal;
  }

  listen(target, type, listener, options = {}) {
    target.addEventListener(type, listener, { ...options, signal: this.life.signal });
  }

  /** Call `work` every so often while this stands and the page is visible. */
  every(seconds, work) {
    const timer = setInterval(() => document.hidden || work(), seconds * 1000);
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }
}

/** Calls of what this gives are put together into one, at the next picture of the screen. */
export function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/** Calls of what this gives are put together into one, when none came for so long. */
export function whenQuiet(seconds, work) {
  let timer = 0;
  return (...what) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...what), seconds * 1000);
  };
}

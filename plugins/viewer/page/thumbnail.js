// An episode's small picture; hovering plays a strip of it.

import { h } from "./element.js";

const TILES = 10;
const TILE_SECONDS = 0.18;

let popup = null;
let timer = 0;

/** A thumbnail of `thumbnail` (a URL or null), which plays `strip` while the pointer is on it. */
export function thumbnail(picture, strip, placeholder = "") {
  if (!picture) return h("span", { class: "thumb none" }, placeholder);
  const element = h("span", { class: "thumb" }, h("img", { src: picture, alt: "", loading: "lazy", decoding: "async", draggable: "false" }));
  if (strip) hoverPlays(element, () => strip);
  return element;
}

/** While the pointer is on an element, play the strip whose URL `strip()` gives, beside it. */
export function hoverPlays(element, strip) {
  element.addEventListener("pointerenter", () => play(element, strip()));
  element.addEventListener("pointerleave", stop);
}

function play(element, strip) {
  stop();
  if (!strip) return;
  const picture = new Image();
  const shown = h("div", { class: "strip" });
  popup = shown;
  picture.onload = () => {
    if (popup !== shown || !element.isConnected) return;
    shown.style.backgroundImage = `url("${strip}")`;
    shown.style.aspectRatio = `${picture.naturalWidth / TILES} / ${picture.naturalHeight}`;
    const box = element.getBoundingClientRect();
    document.body.append(shown);
    const below = box.bottom + 8 + shown.offsetHeight < innerHeight;
    shown.style.left = `${Math.min(innerWidth - shown.offsetWidth - 8, box.left)}px`;
    shown.style.top = below ? `${box.bottom + 6}px` : `${Math.max(4, box.top - shown.offsetHeight - 6)}px`;
    let tile = 0;
    const next = () => {
      if (!element.isConnected) return stop();
      shown.style.backgroundPositionX = `${(tile / (TILES - 1)) * 100}%`;
      shown.dataset.tile = tile;
      tile = (tile + 1) % TILES;
      return undefined;
    };
    next();
    timer = setInterval(next, TILE_SECONDS * 1000);
  };
  picture.src = strip;
}

function stop() {
  clearInterval(timer);
  popup?.remove();
  popup = null;
}

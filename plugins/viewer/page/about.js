// What is known of the home, as `/api/about` says; `look` asks anew, and "about" is said on the window when it did.

import { get } from "./api.js";

export const about = { kernel: "none", writable: false, frame_cache: 5 };

export async function look() {
  Object.assign(about, await get("/api/about"));
  dispatchEvent(new Event("about"));
}

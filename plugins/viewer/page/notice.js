// What the page says for a moment, and what it asks before something is gone.

import { h } from "./element.js";

/** Say something for a moment, at the window's lower edge; `bad` for what went wrong. */
export function notify(text, bad = false) {
  const corner = document.querySelector("#notices");
  const notice = h("p", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : "status" }, text);
  corner.append(notice);
  while (corner.children.length > 3) corner.firstElementChild.remove();
  setTimeout(() => notice.remove(), bad ? 9000 : 3500);
}

/** Do something that may be refused; says why it was. Gives what it gave, or undefined. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") notify(error.message, true);
    return undefined;
  }
}

/** Ask before something that cannot be undone. Gives whether the user wants it. */
export function confirm(question, { detail = "", yes }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "ask", "aria-label": question },
      h("h2", {}, question), detail && h("p", {}, detail),
      h("footer", {},
        h("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A part of a page where there is nothing to show: what that means, and what to do. */
export function empty(title, ...text) {
  return h("div", { class: "empty" }, h("h2", {}, title), text.map((one) => (typeof one === "string" ? h("p", {}, one) : one)));
}

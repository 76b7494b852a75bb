// The page's address: which page, and what is looked at in it. What is there can be copied, bookmarked and gone back to.

/** The address's query as a plain object of text. */
export function query() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

/** An address of this site; values that are null, undefined or empty are left out. */
export function address(path, values = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, value);
  }
  // A comma and a slash say what they mean, and are allowed in a query.
  const text = search.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  return text ? `${path}?${text}` : path;
}

/** Change some of the query's values in place: the page stays, and so does the place in the history. */
export function amend(values) {
  const wanted = address(location.pathname, { ...query(), ...values });
  if (wanted !== location.pathname + location.search) history.replaceState(history.state, "", wanted);
}

/** Go to another page of this site. */
export function go(to) {
  if (to === location.pathname + location.search) return;
  history.pushState(null, "", to);
  dispatchEvent(new Event("went"));
}

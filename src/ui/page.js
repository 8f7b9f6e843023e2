// What the pages share: addresses, words for numbers, copying.

const html = document.documentElement;

/** The address of the wall; every other one is relative to it. */
export const root = new URL(html.dataset.root, location.href);
root.search = root.hash = "";

/** The token of the link through which this page was opened, if it was. */
export const token = new URLSearchParams(location.search).get("token");

/** The age in ms from which on a frame is not live any more. */
export const staleAfter = Number(html.dataset.staleAfterMs);

/** An address of this server, with the link's token where there is one, unless `parameters` has another. */
export function address(path, parameters = {}) {
  const url = new URL(path, root);
  for (const [name, value] of Object.entries({ token, ...parameters })) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

/**
 * Asks the server for something. It is told that a script asks: a login that has ended is then for the page to speak of, and
 * not for a dialog of the browser's own.
 */
export const ask = (url, { headers, ...options } = {}) =>
  fetch(url, { cache: "no-store", headers: { "X-Requested-With": "XMLHttpRequest", ...headers }, ...options });

export const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `text`, `data-…` and other attributes) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Changes a text only where it is another: nothing is drawn or read out again for nothing. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** A span of time in words: `40 ms`, `1.2 s`, `12 s`, `3 min`. */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

/** A time of day, with its date where that is not today's. */
export function clock(date) {
  const time = date.toLocaleTimeString();
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

/** A line of text with a button that copies it. */
export function copyable(text, label) {
  const code = element("code", { text });
  const button = element("button", { type: "button", class: "plain copy", "aria-label": `Copy ${label}`, text: "Copy" });
  button.addEventListener("click", () => copy(code.textContent, button));
  const line = element("div", { class: "copyable" }, element("div", { class: "line" }, code), button);
  line.write = (changed) => say(code, changed);
  return line;
}

/** Copies a text; where the browser does not let a page of plain HTTP do that, in the way that it once was done. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { readonly: "", class: "visually-hidden" });
    area.value = text;
    button.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

// The wall: a tile for each session. Tiles that are seen show live pictures; the others cost nothing.

import { Live } from "./live.js";
import { address, byId, copyable, element, plural, root, say, span, staleAfter } from "./page.js";

/** How often tiles are looked at for what time does to them, in ms: often enough that none is called live for long. */
const TICK = 250;
/** Tiles at most. Who has more sessions filters by name. */
const MAX_TILES = 500;
/** How long the tile of a session that has ended stays, in ms, so that a camera that has gone is missed. */
const ENDED_KEPT = 600_000;
/** The least width of tiles by size, in rem. */
const WIDTHS = [8, 12, 16, 24, 36];
/** How far outside of what is seen tiles begin to show pictures. */
const MARGIN = "200px";

const wall = byId("wall");
const tiles = new Map();
let tooMany = 0;

/** What is shown, and in which order; kept in the page's address. */
const choices = ["filter", "show", "sort", "size"].map(byId);
const [filter, show, sort, size] = choices;

const live = new Live({ onstats: update });
const seen = new IntersectionObserver((changes) => changes.forEach(({ target, isIntersecting }) => {
  tiles.get(target.dataset.session)?.see(isIntersecting);
}), { rootMargin: MARGIN });

class Tile {
  stats = null;
  #at = 0;
  #feed = null;

  constructor(session) {
    this.session = session;
    this.img = element("img", { alt: `Picture of ${session}` });
    this.badge = element("span", { class: "badge", text: "connecting" });
    const fact = (name, label) => [element("dt", { text: label }), (this[name] = element("dd", { class: name }))];
    const link = element("a", { href: address(`view/${session}`), text: session });
    this.item = element("li", { class: "tile", "data-session": session, "data-state": "connecting" },
      element("div", { class: "picture" }, this.img, this.badge),
      element("div", { class: "words" }, element("h2", { title: session }, link),
        element("dl", {}, ...fact("age", "Age"), ...fact("fps", "Rate"), ...fact("viewers", "Viewers"), ...fact("queue", "Queue"))));
  }

  /** The tile comes into view, or goes out of it. */
  see(isSeen) {
    if (isSeen && !this.#feed) {
      this.#feed = live.watch(this.session, this.img, (frame) => {
        this.item.dataset.seq = frame.seq;
        this.tick();
      });
    } else if (!isSeen && this.#feed) {
      live.unwatch(this.session);
      this.#feed = null;
      this.tick();
    }
  }

  update(stats) {
    if (stats) this.#at = performance.now();
    this.stats = stats;
    say(this.fps, stats ? `${Number(stats.fps.toFixed(stats.fps < 10 ? 1 : 0))} fps` : "");
    say(this.viewers, stats ? plural(stats.viewers, "viewer") : "");
    say(this.queue, stats ? `${stats.len.toLocaleString()} waiting` : "");
  }

  /** How long the session has not been listed, in ms. */
  get ended() {
    return this.stats ? 0 : performance.now() - this.#at;
  }

  /** Milliseconds since its last frame was received, as /stats says. */
  get ageMs() {
    return this.stats ? this.stats.ageMs + performance.now() - this.#at : Infinity;
  }

  /** How the session stands by /stats: also for tiles that are not seen. */
  get state() {
    if (!this.stats) return "empty";
    return this.ageMs < staleAfter ? "live" : "stale";
  }

  tick() {
    const unseen = { state: "connecting", words: "connecting" };
    const { state, age, words } = this.#feed ? live.standing(this.#feed) : unseen;
    this.item.dataset.state = state;
    say(this.badge, words);
    const shown = state === "live" || state === "stale" ? age : undefined;
    say(this.age, shown === undefined ? "" : shown < 1000 ? "now" : `${span(shown)} old`);
  }
}

const ORDERS = {
  name: () => 0,
  activity: (one, other) => one.ageMs - other.ageMs,
  rate: (one, other) => (other.stats?.fps ?? 0) - (one.stats?.fps ?? 0),
  viewers: (one, other) => (other.stats?.viewers ?? 0) - (one.stats?.viewers ?? 0),
  queue: (one, other) => (other.stats?.len ?? 0) - (one.stats?.len ?? 0),
  state: (one, other) => TROUBLE.indexOf(one.state) - TROUBLE.indexOf(other.state),
};
const TROUBLE = ["stale", "empty", "live"];

/** /stats has come. */
function update(sessions) {
  const listed = new Map(sessions.map((stats) => [stats.id, stats]));
  for (const [session, tile] of tiles) {
    tile.update(listed.get(session) ?? null);
    listed.delete(session);
    if (tile.ended > ENDED_KEPT) remove(tile);
  }
  for (const [session, stats] of listed) {
    if (tiles.size >= MAX_TILES) break;
    const tile = new Tile(session);
    tile.update(stats);
    tiles.set(session, tile);
  }
  tooMany = Math.max(sessions.length - tiles.size, 0);
  arrange();
}

function remove(tile) {
  tile.see(false);
  seen.unobserve(tile.item);
  tile.item.remove();
  tiles.delete(tile.session);
}

/** Puts tiles where they belong. Nothing moves away under a pointer or a finger, or from under the keyboard. */
function arrange(isAsked = false) {
  const words = filter.value.trim().toLowerCase();
  const isWanted = (tile) => tile.session.toLowerCase().includes(words) && (show.value === "all" || tile.state === show.value);
  const wanted = [...tiles.values()].filter(isWanted);
  const byName = (one, other) => one.session.localeCompare(other.session, undefined, { numeric: true });
  wanted.sort((one, other) => (ORDERS[sort.value] ?? ORDERS.name)(one, other) || byName(one, other));

  const isHeld = !isAsked && wall.matches(":hover, :focus-within");
  const items = new Set(wanted.map((tile) => tile.item));
  for (const tile of tiles.values()) {
    if (items.has(tile.item) || !tile.item.isConnected) continue;
    seen.unobserve(tile.item);
    tile.item.remove();
    tile.see(false);
  }
  const order = isHeld ? [...wall.children].filter((item) => items.has(item)) : [...items];
  for (const item of items) if (!order.includes(item)) order.push(item);
  order.forEach((item, place) => {
    if (wall.children[place] === item) return;
    const isNew = !item.isConnected;
    wall.insertBefore(item, wall.children[place] ?? null);
    if (isNew) seen.observe(item);
  });

  count();
  byId("start").hidden = tiles.size > 0;
  byId("none").hidden = tiles.size === 0 || wanted.length > 0;
}

function count() {
  const alive = [...tiles.values()].filter((tile) => tile.state === "live").length;
  // Without a connection nobody knows.
  const known = live.isConnected ? `, ${alive.toLocaleString()} live` : "";
  const more = tooMany ? `, ${tooMany.toLocaleString()} more: filter by name` : "";
  say(byId("count"), tiles.size ? plural(tiles.size, "session") + known + more : "");
}

/** Choices are kept in the address, so that a wall can be bookmarked as it is. */
function keep() {
  const url = new URL(location.href);
  for (const choice of choices) {
    const isDefault = choice.value === (choice.getAttribute("value") ?? choice.options?.[0].value ?? "");
    if (isDefault) url.searchParams.delete(choice.id);
    else url.searchParams.set(choice.id, choice.value);
  }
  history.replaceState(null, "", url);
}

function choose() {
  document.documentElement.style.setProperty("--tile", `${WIDTHS[size.value - 1]}rem`);
  arrange(true);
}

for (const choice of choices) {
  const kept = new URLSearchParams(location.search).get(choice.id);
  if (kept !== null) choice.value = kept;
  if (choice.value === "") choice.value = choice.options?.[0].value ?? "";
  choice.addEventListener("input", () => {
    keep();
    choose();
  });
}
document.documentElement.style.setProperty("--tile", `${WIDTHS[size.value - 1]}rem`);

const login = byId("curl").dataset.user ? `-u ${byId("curl").dataset.user} ` : "";
byId("curl").append(copyable(`curl ${login}--data-binary @picture.jpg ${new URL("image/camera", root)}`, "the curl line"));
byId("demo").append(copyable("cargo run --release -- demo", "the demo's line"));
setInterval(() => {
  tiles.forEach((tile) => tile.tick());
  count();
}, TICK);

// Live pictures of any number of sessions over one WebSocket, and how each session stands.
//
// A picture never claims to be live because nothing was heard to the contrary: it is live for as long as the frame that is
// shown is younger than STALE_AFTER, by what the server said of its age and by this device's own clocks since.

import { address, ask, byId, clock, element, root, staleAfter, token } from "./page.js";

/** The pause between two looks at /stats, in ms. They also tell a connection that is dead from one that is silent. */
const STATS_PAUSE = 2000;
/** How long an answer may take, in ms: a network that is slower than that shows nothing that is live. */
const ANSWER_WITHIN = 5000;
/** Timers that are later than this, in ms, tell that the device has slept. Its connections have not outlived that. */
const SLEPT = 10_000;
/** The pause before the first and before every later try to connect again, in ms. */
const FIRST_RETRY = 500;
const LAST_RETRY = 5000;
/** Sockets that do not open, one after the other, while plain requests are answered: then pictures are polled. */
const REFUSED_SOCKETS = 2;
/** How long pictures are polled before a socket is tried again, in ms. */
const POLLED_TIME = 30_000;
/** Pictures that are asked for at once when polling: a browser opens six connections to a server. */
const POLLERS = 3;
/** The pause between two such questions for one session, in ms. */
const POLL_PAUSE = 250;
/** Sessions that one socket shows at most: the server's limit. */
const MAX_FEEDS = 256;
/** How long the quickest message is remembered that others are compared with, in ms. */
const QUICKEST_KEPT = 30_000;

const LOST = "Connection lost. Trying again…";
const POLLING = "Live connections do not get through here: pictures are polled instead.";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** An age that goes on growing. One clock may stand still while the device sleeps, the other may be set. */
class Age {
  #date = Date.now();
  #monotonic = performance.now();

  constructor(ms) {
    this.initial = ms;
  }

  get ms() {
    return this.initial + Math.max(Date.now() - this.#date, performance.now() - this.#monotonic, 0);
  }
}

/** A session that is shown in an `<img>`. */
class Feed {
  /** The frame that is shown. */
  shown = null;
  isEmpty = false;
  isBroken = false;
  /** Whether a frame has come since this connection began: the first one may have waited for that, and was not late. */
  isFollowed = false;
  etag = null;
  polled = -Infinity;
  #img;
  #next = null;
  #isLoading = false;
  #onshown;

  constructor(session, img, onshown) {
    this.session = session;
    this.#img = img;
    this.#onshown = onshown;
  }

  /** Shows a frame; while another is being decoded, the newest waits. */
  show(frame) {
    this.isEmpty = false;
    if (this.#isLoading) {
      this.#next = frame;
      return;
    }
    this.#isLoading = true;
    const url = URL.createObjectURL(new Blob([frame.bytes]));
    const done = (isShown) => {
      URL.revokeObjectURL(url);
      this.#isLoading = false;
      this.isBroken = !isShown;
      if (isShown && !this.isEmpty) {
        this.shown = frame;
        this.#onshown?.(frame);
      } else {
        this.#img.removeAttribute("src");
      }
      const next = this.#next;
      this.#next = null;
      if (next) this.show(next);
    };
    this.#img.onload = () => done(true);
    this.#img.onerror = () => done(false);
    this.#img.src = url;
  }

  /** There is no frame any more. */
  clear() {
    this.isEmpty = true;
    this.shown = this.etag = this.#next = null;
    if (!this.#isLoading) this.#img.removeAttribute("src");
  }
}

/** The sessions of one page. A frame is `{seq, age, delay, bytes}`: the delay in ms, null where it is not known. */
export class Live {
  /** `connecting`, `open` (by WebSocket), `polling` or `ended`. */
  connection = "connecting";
  #feeds = new Map();
  #only;
  #onstats;
  #socket = null;
  /** Gives up what is going on; a later run has another. */
  #run = null;
  #drop = () => {};
  #changes = { subscribe: new Set(), unsubscribe: new Set() };
  #quickest = [];
  /** When the socket has last brought something. */
  #heard = -Infinity;

  /** Shows sessions while the page is seen. `onstats` is told of those of /stats, or of the `only` one. */
  constructor({ only = null, onstats = () => {} } = {}) {
    this.#only = only;
    this.#onstats = onstats;
    const follow = () => (document.visibilityState === "visible" ? this.#start() : this.#stop());
    document.addEventListener("visibilitychange", follow);
    addEventListener("pagehide", () => this.#stop());
    addEventListener("pageshow", follow);
    follow();
  }

  /** Shows a session in an `<img>`; `onshown` is told of each frame once it is there. */
  watch(session, img, onshown) {
    const feed = new Feed(session, img, onshown);
    if (this.#feeds.size >= MAX_FEEDS) return feed;
    this.#feeds.set(session, feed);
    this.#change("subscribe", session);
    return feed;
  }

  /** Stops that: it costs nothing any more. */
  unwatch(session) {
    if (this.#feeds.delete(session)) this.#change("unsubscribe", session);
  }

  /** Whether pictures come, one way or the other. */
  get isConnected() {
    return this.connection === "open" || this.connection === "polling";
  }

  /** How a feed stands: `{state, age, words}`, the age in ms where a frame is shown, the words for its badge. */
  standing(feed) {
    const age = feed.shown?.age.ms;
    const stateNow = () => {
      if (!this.isConnected || this.#feeds.get(feed.session) !== feed) return "connecting";
      if (feed.isEmpty) return "empty";
      if (feed.isBroken) return "stale";
      if (age === undefined) return "connecting";
      return age < staleAfter ? "live" : "stale";
    };
    const state = stateNow();
    const words = state === "stale" && age !== undefined ? `stale since ${clock(new Date(Date.now() - age))}` : state;
    return { state, age, words };
  }

  #start() {
    if (this.#run || this.connection === "ended") return;
    this.#run = {};
    this.#connect(this.#run);
  }

  #stop() {
    this.#run = null;
    this.#drop();
    if (this.connection !== "ended") this.#say("connecting");
  }

  /** Tells how the connection is, in the page and for `standing`. */
  #say(connection, ...message) {
    this.connection = connection;
    document.documentElement.dataset.connection = connection;
    const line = byId("connection");
    if (line.textContent !== message.map((part) => part.textContent ?? part).join("")) line.replaceChildren(...message);
  }

  /** The login or the link has ended: nothing helps but another. */
  #end() {
    const next = new URLSearchParams({ next: location.pathname + location.search });
    const login = element("a", { href: new URL(`login?${next}`, root), text: "Log in" });
    const message = token ? "This link has run out or was taken back. Ask for a new one." : "You are not logged in any more. ";
    this.#run = null;
    this.#drop();
    this.#say("ended", ...(token ? [message] : [message, login]));
  }

  async #connect(run) {
    const isCurrent = () => run === this.#run;
    let refused = 0;
    let retry = 0;
    this.#say("connecting");
    while (isCurrent()) {
      // Not one after the other: a browser may try a plain request on connections that have been dead for long.
      const asked = this.#ask(run);
      if (refused < REFUSED_SOCKETS) {
        const hasOpened = await this.#listen(run);
        refused = !hasOpened && (await asked) ? refused + 1 : 0;
        if (hasOpened) retry = 0;
        if (refused === REFUSED_SOCKETS) continue;
      } else if ((await asked) && (await this.#poll(run))) {
        // Perhaps sockets get through by now: one is tried.
        refused -= 1;
        continue;
      } else {
        refused = 0;
      }
      if (!isCurrent()) return;
      this.#say("connecting", LOST);
      retry = Math.min(retry ? retry * 2 : FIRST_RETRY, LAST_RETRY);
      // Not all viewers of a server that comes back are to ask in the same moment.
      await this.#rest(retry * (0.5 + Math.random() / 2));
    }
  }

  /** Waits, but not once the network is back. */
  #rest(ms) {
    return new Promise((done) => {
      const end = () => {
        removeEventListener("online", end);
        clearTimeout(timer);
        done();
      };
      const timer = setTimeout(end, ms);
      addEventListener("online", end);
      this.#drop = end;
    });
  }

  /** Asks for /stats. Tells whether the server answers. */
  async #ask(run) {
    try {
      const url = address("stats", { session: this.#only });
      const answer = await ask(url, { signal: AbortSignal.timeout(ANSWER_WITHIN) });
      const stats = answer.ok ? await answer.json() : null;
      if (run !== this.#run) return true;
      if (answer.status === 401) this.#end();
      if (stats) this.#onstats(stats.sessions);
      return true;
    } catch {
      return false;
    }
  }

  /** Asks again and again, until there is no answer and nothing else is heard. */
  async #keepAsking(run, isOver) {
    do {
      const before = Date.now();
      await pause(STATS_PAUSE);
      if (isOver() || Date.now() - before > SLEPT) return;
    } while ((await this.#ask(run)) || performance.now() - this.#heard < ANSWER_WITHIN);
  }

  /** Shows what a WebSocket brings, until it ends. Tells whether it has opened. */
  #listen(run) {
    return new Promise((done) => {
      const socket = new WebSocket(Object.assign(address("ws/view", { clock: 1 }), { protocol: root.protocol.replace("http", "ws") }));
      socket.binaryType = "arraybuffer";
      let hasOpened = false;
      const end = () => {
        clearTimeout(patience);
        // One that is dead would take its time to say so.
        socket.onopen = socket.onmessage = socket.onclose = null;
        socket.close();
        if (this.#socket === socket) this.#socket = null;
        done(hasOpened);
      };
      const patience = setTimeout(end, ANSWER_WITHIN);
      this.#drop = end;
      socket.onclose = end;
      socket.onopen = () => {
        clearTimeout(patience);
        hasOpened = true;
        this.#socket = socket;
        this.#quickest = [];
        this.#feeds.forEach((feed) => (feed.isFollowed = false));
        this.#changes = { subscribe: new Set(this.#feeds.keys()), unsubscribe: new Set() };
        this.#send();
        this.#say("open");
        this.#keepAsking(run, () => this.#socket !== socket).then(() => this.#socket === socket && end());
      };
      socket.onmessage = ({ data }) => {
        this.#heard = performance.now();
        if (typeof data === "string") this.#hear(JSON.parse(data));
        else this.#see(data);
      };
    });
  }

  #change(kind, session) {
    const other = kind === "subscribe" ? "unsubscribe" : "subscribe";
    const isFirst = this.#changes.subscribe.size + this.#changes.unsubscribe.size === 0;
    this.#changes[other].delete(session);
    this.#changes[kind].add(session);
    // Many tiles change at once when a wall is scrolled.
    if (isFirst) queueMicrotask(() => this.#send());
  }

  #send() {
    const changes = this.#changes;
    this.#changes = { subscribe: new Set(), unsubscribe: new Set() };
    if (!this.#socket || changes.subscribe.size + changes.unsubscribe.size === 0) return;
    this.#socket.send(JSON.stringify({ subscribe: [...changes.subscribe], unsubscribe: [...changes.unsubscribe] }));
  }

  /** A session's state has changed. Pictures come by themselves; that there is none any more has to be said. */
  #hear({ session, state, error }) {
    if (error) this.#say(this.connection, `${error.message}.`);
    else if (state === "empty") this.#feeds.get(session)?.clear();
  }

  /** A picture, as docs/API.md describes it. */
  #see(message) {
    const view = new DataView(message);
    const length = view.getUint8(0);
    const session = String.fromCharCode(...new Uint8Array(message, 1, length));
    const at = 1 + length;
    const sent = Number(view.getBigUint64(at + 16));
    const late = Date.now() - sent;
    const feed = this.#feeds.get(session);
    // What waited in the network has grown older there than it was when it was sent.
    const age = view.getUint32(at + 24) + late - this.#quickestOf(late);
    const bytes = new Uint8Array(message, at + 28);
    feed?.show({ seq: view.getBigUint64(at), age: new Age(age), delay: feed.isFollowed ? age : null, bytes });
    if (feed) feed.isFollowed = true;
  }

  /**
   * The difference between the two clocks and the network's shortest time together, in ms: what the quickest message took of
   * late. What another took more than that, it has waited somewhere.
   */
  #quickestOf(late) {
    const now = performance.now();
    this.#quickest = this.#quickest.filter((one) => now - one.at < QUICKEST_KEPT && one.late < late);
    this.#quickest.push({ late, at: now });
    return this.#quickest[0].late;
  }

  /** Asks for pictures one by one, for a while. Tells whether the server has answered all the time. */
  async #poll(run) {
    this.#say("polling", POLLING);
    const end = performance.now() + POLLED_TIME;
    let answers = true;
    const isOver = () => run !== this.#run || !answers || performance.now() > end;
    this.#drop = () => (answers = false);
    const poller = async () => {
      while (!isOver()) {
        const due = [...this.#feeds.values()].filter((feed) => performance.now() - feed.polled > POLL_PAUSE);
        const feed = due.sort((one, other) => one.polled - other.polled)[0];
        if (!feed) await pause(POLL_PAUSE / 4);
        else answers = (await this.#pollOne(feed)) && answers;
      }
    };
    this.#keepAsking(run, isOver).then(() => (answers = isOver() && answers));
    await Promise.all(Array.from({ length: POLLERS }, poller));
    return answers;
  }

  async #pollOne(feed) {
    feed.polled = performance.now();
    try {
      const headers = feed.etag ? { "If-None-Match": feed.etag } : {};
      const url = address(`snapshot/${feed.session}`, { empty: 204 });
      const answer = await ask(url, { headers, signal: AbortSignal.timeout(ANSWER_WITHIN) });
      if (answer.status === 401) this.#end();
      if (answer.status === 204) feed.clear();
      if (answer.status !== 200) return true;
      // Its age was told when the server had the question: on the way here it has grown.
      const asked = (performance.now() - feed.polled) / 2;
      const bytes = new Uint8Array(await answer.arrayBuffer());
      const age = Number(answer.headers.get("X-Frame-Age-Ms")) + performance.now() - feed.polled - asked;
      feed.etag = answer.headers.get("ETag");
      feed.show({ seq: BigInt(answer.headers.get("X-Frame-Seq")), age: new Age(age), delay: age, bytes });
      return true;
    } catch {
      return false;
    }
  }
}

// Drives a vehicle, beside its picture.
//
// Nothing here goes on by itself. A vehicle moves for as long as somebody holds something down, on a page that is seen, has the
// focus, is connected and keeps its time. When one of that ends, everything is released: it counts again once it has been let go
// of. A command that could not be sent at once is not sent later.

import { Live } from "./live.js";
import { address, ask, byId, root, say, span } from "./page.js";

/** The longest and the shortest pause between two commands, in ms, and how many there are in a vehicle's lease. */
const [LONGEST_BEAT, SHORTEST_BEAT, BEATS_IN_LEASE] = [100, 20, 3];
/** A beat that comes so many ms after the one before tells that the page was held up. */
const HELD_UP = 300;
/** How often a stop is said: a lost one does no harm. */
const STOPS = 3;
/** What sticks move when nobody touches them. */
const DEAD_ZONE = 0.12;
/** From when on a direction counts where there are no speeds. */
const LEAST_DIRECTION = 0.25;
/** The buttons of a gamepad that stop. */
const STOP_BUTTONS = [0, 1, 2, 3];
/** The first and the longest pause before a connection is tried again, in ms. */
const [FIRST_RETRY, LAST_RETRY] = [250, 3000];
/** The server says how things stand once a second: after this many ms without a word the link is bad, and then dead. */
const [SILENT, DEAD] = [1500, 3000];
/** Bytes that may wait for the network. */
const MOST_WAITING = 4096;
/** Round trips, in ms, from which on a link is slow, and bad. */
const [SLOW_TRIP, BAD_TRIP] = [150, 400];
/** How long a link bears the mark of something bad, in ms. */
const MARKED = 3000;
/** How long it is shown what went wrong, in ms, and how many things: a page that was held up hears of what came of that, too. */
const [TOLD_FOR, MOST_TOLD] = [15_000, 2];
/** Vehicles whose words are shown, how much of them, and the age in ms from which on it is told. */
const [MOST_SPEAKERS, MOST_WORDS, OLD_WORDS] = [8, 200, 5000];

const KEYS = {
  KeyW: [1, 0], KeyS: [-1, 0], KeyA: [0, 1], KeyD: [0, -1],
  ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, 1], ArrowRight: [0, -1],
};
const NEUTRAL = { forward: 0, turn: 0 };
const LETTERS = { forward: "F", backward: "B", left: "L", right: "R", halt: "S" };
const WORDS = { good: "good", slow: "slow", bad: "bad", none: "no vehicle", connecting: "connecting" };
const FIELDS = "input, select, textarea";

const main = document.querySelector("main");
const session = main.dataset.session;
const stage = byId("stage");
const form = byId("settings");
const [limit, stick] = ["limit", "stick"].map(byId);

const isRecent = (at, ms) => performance.now() - at < ms;
const isAttended = () => document.visibilityState === "visible" && document.hasFocus();

/** The connection to the server, and through it to the vehicles. */
class Link {
  /** What the server has last said of how things stand; null while there is no connection. */
  status = null;
  #socket = null;
  #retry = 0;
  #timer;
  #heard = 0;
  #droppedAt = -Infinity;
  #leaseEndedAt = -Infinity;
  #onmessage;

  /** `onmessage` is told of `told` and `telemetry`. */
  constructor(onmessage) {
    this.#onmessage = onmessage;
  }

  /** Connects, anew if need be; with `take` it takes the wheel over from whoever has it. */
  connect(take = 0) {
    this.close();
    const url = address(`ws/control/${session}`, { role: "operator", take });
    url.protocol = root.protocol.replace("http", "ws");
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.#socket.onclose = () => this.#lose();
    this.#heard = performance.now();
  }

  close() {
    clearTimeout(this.#timer);
    this.status = null;
    if (!this.#socket) return;
    // One that is dead would take its time to say so.
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  /** Gives up a connection that has died without a word. */
  look() {
    if (this.#socket && !isRecent(this.#heard, DEAD)) this.#lose();
  }

  /** Sends a text, now or not at all; what is urgent, even if the network is slow to take it. Tells whether it was sent. */
  send(text, isUrgent = false) {
    if (!this.status || this.#socket.readyState !== WebSocket.OPEN || (this.#isClogged && !isUrgent)) return false;
    this.#socket.send(text);
    return true;
  }

  /** How good the link is: a key of `WORDS`, and why, in words. */
  get quality() {
    if (!this.status) return ["connecting", ""];
    const { vehicles, rttMs, operatorRttMs } = this.status;
    const trip = (rttMs ?? 0) + (operatorRttMs ?? 0);
    const way = `${span(trip)} ${rttMs === null ? "to the server and back; the vehicle's way is not known" : "to the vehicle and back"}.`;
    if (vehicles === 0) return ["none", "No vehicle is connected."];
    if (this.#isClogged) return ["bad", "The network does not take what is sent: commands are left out."];
    if (!isRecent(this.#heard, SILENT)) return ["bad", "Nothing comes from the server."];
    if (isRecent(this.#leaseEndedAt, MARKED)) return ["bad", "A vehicle was stopped, as nothing came to it in time."];
    if (operatorRttMs === null) return ["slow", "How long it takes is not known yet."];
    if (trip >= BAD_TRIP) return ["bad", way];
    if (isRecent(this.#droppedAt, MARKED)) return ["slow", "Commands were dropped."];
    return [trip >= SLOW_TRIP ? "slow" : "good", way];
  }

  get #isClogged() {
    return this.#socket.bufferedAmount > MOST_WAITING;
  }

  #hear(message) {
    const now = (this.#heard = performance.now());
    if (message.type !== "status") {
      if (message.code === "lease_ended") this.#leaseEndedAt = now;
      return this.#onmessage(message);
    }
    if (message.dropped > (this.status?.dropped ?? message.dropped)) this.#droppedAt = now;
    this.status = message;
    this.#retry = 0;
  }

  #lose() {
    const hasWorked = this.status !== null;
    this.close();
    if (!hasWorked) this.#diagnose();
    this.#retry = Math.min(this.#retry ? this.#retry * 2 : FIRST_RETRY, LAST_RETRY);
    // Nobody has the wheel taken over because the network was away for a moment.
    this.#timer = setTimeout(() => this.connect(), this.#retry * (0.5 + Math.random() / 2));
  }

  /** Finds out why a WebSocket failed, which browsers do not tell. That a login has ended, the picture's connection says. */
  async #diagnose() {
    try {
      const answer = await ask(address(`ws/control/${session}`), { signal: AbortSignal.timeout(DEAD) });
      // 426: it would have been let in.
      if (answer.status !== 426 && answer.status !== 401) this.#onmessage({ type: "told", ...(await answer.json()).error });
    } catch {
      // The server is away, or what answered is not the server.
    }
  }
}

/** What somebody does with keys, stick and gamepads, together. */
class Controls {
  /** Whether nothing counts until everything has been let go of. */
  isLocked = true;
  #keys = new Set();
  #pointer = null;
  #stick = NEUTRAL;

  /** `onchange` is told when something is pressed or let go of. */
  constructor(onchange) {
    addEventListener("keyup", ({ code }) => this.#keys.delete(code) && onchange());
    stick.addEventListener("pointerdown", (event) => {
      if (this.#pointer !== null || event.button !== 0) return;
      stick.setPointerCapture(event.pointerId);
      this.#pointer = event.pointerId;
      this.#drag(event);
      onchange();
    });
    stick.addEventListener("pointermove", (event) => event.pointerId === this.#pointer && this.#drag(event));
    stick.addEventListener("lostpointercapture", ({ pointerId }) => {
      if (pointerId !== this.#pointer) return;
      this.#pointer = null;
      this.#stick = NEUTRAL;
      onchange();
    });
    stick.addEventListener("contextmenu", (event) => {
      // A finger that rests is no wish for a menu.
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /** Takes note of a key that drives; tells whether that is news. */
  press(code) {
    const isNew = !this.#keys.has(code);
    this.#keys.add(code);
    return isNew;
  }

  /** Lets go of what is held, as what becomes of it is not told to a page that nobody attends. */
  forget() {
    this.isLocked = true;
    this.#keys.clear();
    this.#pointer = null;
    this.#stick = NEUTRAL;
  }

  /** How all is held now: `{forward, turn, isStop, isTouched}`, whether it counts or not. */
  read() {
    const pads = [...(navigator.getGamepads?.() ?? [])].filter((pad) => pad?.connected && pad.mapping === "standard");
    const zeroed = (value) => (Math.abs(value) < DEAD_ZONE ? 0 : value);
    const moves = [
      ...[...this.#keys].map((code) => ({ forward: KEYS[code][0], turn: KEYS[code][1] })),
      { forward: zeroed(this.#stick.forward), turn: zeroed(this.#stick.turn) },
      ...pads.map(({ axes }) => ({ forward: -zeroed(axes[1]), turn: -zeroed(axes[0]) })),
    ];
    const sum = (way) => Math.max(-1, Math.min(1, moves.reduce((all, move) => all + move[way], 0)));
    const isStop = pads.some(({ buttons }) => STOP_BUTTONS.some((at) => buttons[at]?.pressed));
    // Two that cancel each other out are held all the same.
    const isTouched = isStop || this.#keys.size > 0 || this.#pointer !== null || moves.some(isMove);
    return { forward: sum("forward"), turn: sum("turn"), isStop, isTouched };
  }

  /** Where the knob is. */
  get knob() {
    return this.isLocked ? NEUTRAL : this.#stick;
  }

  #drag({ clientX, clientY }) {
    const { left, top, width, height } = stick.getBoundingClientRect();
    const [x, y] = [((clientX - left) / width) * 2 - 1, ((clientY - top) / height) * 2 - 1];
    const far = Math.max(1, Math.hypot(x, y));
    this.#stick = { forward: -y / far, turn: -x / far };
  }
}

/** What the form says, by the names of its fields; kept in the browser. */
class Settings {
  #key = `image-streamer-drive ${root.pathname}`;
  #defaults = Object.fromEntries([...form.querySelectorAll(FIELDS)].map(({ id, value }) => [id, value]));

  constructor() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(this.#key)) ?? {};
    } catch {
      // What is kept is not ours, or the browser keeps nothing.
    }
    Object.keys(this.#defaults).forEach((id) => this.#adopt(id, kept[id]));
  }

  /** Puts what a field says to work. */
  change({ id, value }) {
    this.#adopt(id, value);
    try {
      localStorage.setItem(this.#key, JSON.stringify({ ...this }));
    } catch {
      // Then it holds until the page is left.
    }
  }

  /** What makes no sense gives way to what was there at first: an empty command would be a ping, and stop nothing. */
  #adopt(id, value) {
    const field = byId(id);
    field.value = value ?? this.#defaults[id];
    if (field.value === "" || !field.checkValidity()) field.value = this.#defaults[id];
    this[id] = field.value;
  }
}

const isMove = ({ forward, turn }) => forward !== 0 || turn !== 0;

/** The direction that a move has most of: a key of `LETTERS`. */
function direction({ forward, turn }) {
  if (Math.max(Math.abs(forward), Math.abs(turn)) <= LEAST_DIRECTION) return "halt";
  if (Math.abs(forward) >= Math.abs(turn)) return forward > 0 ? "forward" : "backward";
  return turn > 0 ? "left" : "right";
}

/** A move in the words of the vehicle. */
function command(move) {
  if (settings.commands === "letters") return LETTERS[direction(move)];
  if (settings.commands === "own") return settings[direction(move)];
  const scaled = (value, full) => Number(((value * full * settings.limit) / 100).toFixed(3));
  return JSON.stringify({
    linear: { x: scaled(move.forward, settings.speed) },
    angular: { z: scaled(move.turn, settings.rotation) },
  });
}

const settings = new Settings();
const live = new Live({ only: session });
const feed = live.watch(session, stage.querySelector("img"));
const link = new Link(hear);
const controls = new Controls(beat);
/** The newest words of each vehicle, and when they came. */
const speakers = new Map();

let stopsOwed = 0;
let wasAttended = false;
let lastBeat = performance.now();
let beatTimer;
/** What was told of late: `{text, at}`, the newest first. */
let notes = [];

/** Whether what somebody does here may reach a vehicle: nobody else drives. */
const mayDrive = () => link.status !== null && (link.status.driving || link.status.driver === null);

function note(text) {
  notes = [{ text, at: performance.now() }, ...notes.filter((one) => one.text !== text)].slice(0, MOST_TOLD);
}

function hear({ type, message, vehicle, text }) {
  if (type === "told") note(message);
  if (type !== "telemetry") return;
  // The one that was silent for longest makes room.
  speakers.delete(vehicle);
  speakers.set(vehicle, { text: text.slice(0, MOST_WORDS).replaceAll(/\s+/g, " "), at: performance.now() });
  if (speakers.size > MOST_SPEAKERS) speakers.delete(speakers.keys().next().value);
}

function order(move, isUrgent) {
  const text = command(move);
  const isSent = link.send(text, isUrgent);
  if (isSent) say(byId("sent"), text);
  return isSent;
}

/** Releases everything, and stops the vehicle if this page has it in hand; tells whether it has. */
function release() {
  const isInHand = link.status?.driving || stopsOwed > 0;
  controls.isLocked = true;
  stopsOwed = isInHand && order(NEUTRAL, true) ? STOPS - 1 : 0;
  return isInHand;
}

/** Somebody wants a stop, whether this page has the vehicle in hand or not. */
function stop() {
  controls.isLocked = true;
  if (order(NEUTRAL, true)) stopsOwed = STOPS - 1;
  else note("Not connected: the stop was not sent. A vehicle stops by itself when it hears nothing for its lease.");
  show();
}

/** Nobody attends to this page any more: it stops the vehicle and then says nothing, not even that it is there. */
function leave() {
  // A page that loses the focus because it is hidden hears of both.
  if (wasAttended) release();
  wasAttended = false;
  stopsOwed = 0;
  controls.forget();
  show();
}

/** Sends what is due: now, and again after a while. */
function beat() {
  const now = performance.now();
  const gap = now - lastBeat;
  lastBeat = now;
  clearTimeout(beatTimer);
  const lease = link.status?.leaseMs ?? Infinity;
  beatTimer = setTimeout(beat, Math.max(SHORTEST_BEAT, Math.min(LONGEST_BEAT, lease / BEATS_IN_LEASE)));
  if (live.connection === "ended") link.close();
  link.look();
  // A page that is not seen has slow timers, and nothing to miss.
  const wasHere = wasAttended;
  wasAttended = isAttended();
  if (wasHere && wasAttended && gap > HELD_UP && release()) {
    note(`This page was held up for ${span(gap)}: everything was released.`);
  }
  if (wasAttended) drive();
  show();
}

function drive() {
  const held = controls.read();
  if (held.isStop) stop();
  if (!mayDrive()) {
    controls.isLocked = true;
    stopsOwed = 0;
    return;
  }
  if (!held.isTouched) controls.isLocked = false;
  if (!controls.isLocked && isMove(held)) {
    stopsOwed = STOPS;
    order(held);
  } else if (stopsOwed > 0) {
    if (order(NEUTRAL)) stopsOwed -= 1;
  } else if (link.status.driving) {
    link.send("");
  }
}

/** Who drives. */
function wheel({ driving, driver }) {
  if (driving) return "You are at the wheel";
  return driver === null ? "The wheel is free: driving takes it" : `Driver: ${driver}`;
}

/** What somebody should know who drives, or wonders why it does not. */
function hint() {
  if (!link.status) return "Not connected: nothing that you do here has any effect.";
  if (!mayDrive()) return "Another drives: nothing that you do here has any effect, until you take the wheel.";
  if (!isAttended()) return "This page does not have the focus: click on it to drive.";
  if (controls.isLocked) return "Everything is released: let go of keys, stick and gamepad, then drive on.";
  if (document.activeElement?.matches(FIELDS)) return "Keys go to the field that has the focus, except for Esc, which stops.";
  return "W A S D, arrows, the stick or a gamepad drive. Esc, space or a gamepad's four buttons stop.";
}

function show() {
  const { state, age, words } = live.standing(feed);
  const { status } = link;
  const [quality, why] = link.quality;
  const ms = (value) => (typeof value === "number" ? span(value) : "–");
  stage.dataset.state = state;
  main.dataset.link = quality;
  say(stage.querySelector(".badge"), words);
  say(byId("blind"), state === "live" ? "" : "No live picture: driving is blind now.");
  say(byId("age"), state === "empty" ? "–" : age < 1000 ? "now" : ms(age));
  say(byId("quality"), live.connection === "ended" ? "not connected" : WORDS[quality]);
  say(byId("why"), why);
  say(byId("wheel"), status ? wheel(status) : "");
  byId("take").hidden = !status || mayDrive();
  byId("short").hidden = !(status?.leaseMs / 2 < status?.rttMs);
  say(byId("vehicles"), status ? status.vehicles.toLocaleString() : "–");
  say(byId("operator-rtt"), ms(status?.operatorRttMs));
  say(byId("vehicle-rtt"), ms(status?.rttMs));
  say(byId("dropped"), status ? status.dropped.toLocaleString() : "–");
  say(byId("hint"), hint());
  say(byId("told"), notes.filter(({ at }) => isRecent(at, TOLD_FOR)).map(({ text }) => text).join("\n"));
  say(byId("telemetry"), [...speakers].sort().map(([name, said]) => spoken(name, said)).join("\n") || "Nothing so far.");
  stick.style.setProperty("--x", -controls.knob.turn);
  stick.style.setProperty("--y", -controls.knob.forward);
}

function spoken(vehicle, { text, at }) {
  const age = performance.now() - at;
  return `${vehicle}: ${text}${age < OLD_WORDS ? "" : ` (${span(age)} ago)`}`;
}

function showSettings() {
  say(byId("limit-value"), `${settings.limit} %`);
  form.querySelectorAll("[data-for]").forEach((part) => (part.hidden = !part.dataset.for.includes(settings.commands)));
}

addEventListener("keydown", (event) => {
  const { code, ctrlKey, altKey, metaKey, target } = event;
  const isField = target instanceof Element && target.matches(FIELDS);
  if (code === "Escape") return stop();
  // With these keys held down, some systems do not tell when another is let go of.
  if (ctrlKey || altKey || metaKey) return controls.forget();
  if (isField || !(code === "Space" || code in KEYS)) return;
  event.preventDefault();
  if (event.repeat) return;
  if (code === "Space") stop();
  else if (controls.press(code)) beat();
});

// Neither waits for a finger to be lifted, nor is it heard twice.
byId("stop").addEventListener("pointerdown", stop);
byId("stop").addEventListener("click", ({ detail }) => detail === 0 && stop());

byId("take").addEventListener("click", () => {
  controls.isLocked = true;
  link.connect(1);
});

form.addEventListener("submit", (event) => event.preventDefault());
limit.addEventListener("input", () => {
  settings.change(limit);
  showSettings();
});
form.addEventListener("change", ({ target }) => {
  // What moves is stopped in the words that it knows.
  if (target !== limit) release();
  settings.change(target);
  showSettings();
  // A field that was changed with the mouse is not to keep the keys.
  if (!target.matches(":focus-visible")) target.blur();
});

// What is let go of while a menu is open, a list, or something is dragged, pages are not told.
for (const event of ["contextmenu", "dragstart"]) addEventListener(event, () => controls.forget());
form.addEventListener("focusin", ({ target }) => target !== limit && controls.forget());

addEventListener("blur", leave);
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && leave());
addEventListener("pagehide", () => {
  leave();
  link.close();
});
addEventListener("pageshow", ({ persisted }) => persisted && link.connect());

showSettings();
link.connect();
beat();

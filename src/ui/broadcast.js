// This device as a camera.
//
// A picture is taken when it is due and there is room for it on the way, otherwise not at all: what waited would be late, and
// whatever came after it too.

import { address, ask, byId, copyable, element, say, token } from "./page.js";

/** Pictures on the way at once, at most: 30 a second with half a second there and back. */
const MOST_ON_THE_WAY = 16;
/** An answer is late that took this many times the lowest time of late, … */
const LATE_FACTOR = 1.5;
/** … and this many ms more: fast networks waver by as much. */
const LATE_SLACK_MS = 50;
/** From this many ms on it is late in any network: nobody would call that live. */
const LATE_ANYWAY_MS = 2000;
/** For how many ms the lowest time counts: networks change. */
const LOWEST_FOR_MS = 15_000;
/** A connection is dead after this many ms without an answer, … */
const SILENCE_MS = 6000;
/** … and the time that what is on the way takes at this many bytes a ms, the slowest network that is waited for. */
const SLOWEST_BYTES_PER_MS = 16;
/** How many ms a connection may take to open, and the server to say whether it is there. */
const OPEN_WITHIN_MS = 8000;
/** The first attempt comes between half of this many ms and all of them; twice as many after each that fails, … */
const RETRY_FIRST_MS = 1000;
/** … up to this many: who has waited long enough to look again should not wait once more. */
const RETRY_MOST_MS = 5000;
/** WebSockets that may fail in a row while the server is there. */
const SOCKET_TRIES = 2;
/** How many ms to leave a server alone that takes no pictures. */
const REFUSED_PAUSE_MS = 1000;
/** Rates are those of the last so many ms: five pictures at least at the lowest rate. */
const MEASURED_MS = 5000;
/** How often they are shown, in ms: as fast as one reads. */
const SHOWN_EVERY_MS = 500;
/** What a camera is asked for at least, in pixels: in smaller modes many show only a part of what they see. */
const [LEAST_WIDTH, LEAST_HEIGHT] = [640, 480];
/** Refusals that trying again does not change. */
const FINAL = ["login_needed", "bad_credentials", "bad_token", "forbidden", "right_ended", "cross_site", "bad_session"];
const SESSION_ID = /^(?!\.{1,2}$)[\w.@-]{1,128}$/;

const main = document.querySelector("main");
const [preview, camera, resolution, rate, quality, button] =
  ["preview", "camera", "resolution", "rate", "quality", "start"].map(byId);
const contentType = main.dataset.contentType;
const ticker = new Worker(new URL("ticker.js", import.meta.url));
const viewLine = copyable("", "the address");

let session = new URLSearchParams(location.search).get("session");
/** What there is from Start to Stop: camera, connection, counts. */
let run = null;
let isTaking = false;
/** What the worker's next picture is for. */
let encoded = null;
let sessionFound = Promise.resolve();

/** How many pictures may be on the way: one more with each round of timely answers, half as many when they come late. */
class Pace {
  constructor(most) {
    Object.assign(this, { most, room: 1, sent: [], lastAnswerAt: 0, halvedAt: 0 });
    this.forget();
  }

  get isFull() {
    return this.sent.length >= Math.floor(this.room);
  }

  /** Forgets how long answers take: pictures are of another size now. */
  forget() {
    this.lowest = Infinity;
    this.lowestUntil = performance.now() + LOWEST_FOR_MS;
  }

  halve(now) {
    this.room = Math.max(1, this.room / 2);
    this.halvedAt = now;
  }

  add(bytes) {
    this.sent.push({ at: performance.now(), bytes });
  }

  /** Takes note of an answer; tells how many bytes it is for. */
  answered(now) {
    const wasFull = this.isFull;
    const { at, bytes } = this.sent.shift() ?? { at: now, bytes: 0 };
    const took = now - at;
    this.lastAnswerAt = now;
    if (now > this.lowestUntil) {
      // With less on the way, what is measured next is the network's own time and not that of our queue.
      this.forget();
      this.halve(now);
    }
    this.lowest = Math.min(this.lowest, took);
    if (took > Math.min(this.lowest * LATE_FACTOR + LATE_SLACK_MS, LATE_ANYWAY_MS)) {
      // What was sent before the last halving tells nothing of the time since.
      if (at >= this.halvedAt) this.halve(now);
    } else if (wasFull) {
      this.room = Math.min(this.most, this.room + 1 / this.room);
    }
    return bytes;
  }

  isDead(now) {
    if (this.sent.length === 0) return false;
    const bytes = this.sent.reduce((sum, picture) => sum + picture.bytes, 0);
    return now - Math.max(this.lastAnswerAt, this.sent[0].at) > SILENCE_MS + bytes / SLOWEST_BYTES_PER_MS;
  }
}

/** Pictures by WebSocket, answered in their order. */
class SocketLine {
  pace = new Pace(MOST_ON_THE_WAY);

  constructor(answered, ended) {
    const url = address(`ws/push/${session}`);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.onmessage = ({ data }) => answered(JSON.parse(data));
    this.socket.onclose = ended;
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(picture) {
    this.socket.send(picture);
  }

  close() {
    // A dead connection's own farewell may take minutes.
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}

/** Pictures by one request each. Only one at a time: two could overtake each other. */
class PostLine {
  pace = new Pace(1);
  isOpen = true;

  constructor(answered, ended) {
    Object.assign(this, { answered, ended, ending: new AbortController() });
  }

  async send(picture) {
    const { signal } = this.ending;
    try {
      const headers = { Accept: "application/json", "Content-Type": contentType };
      const response = await ask(address(`image/${session}`), { method: "POST", body: picture, headers, signal });
      const answer = await response.json();
      this.answered({ viewers: Number(response.headers.get("X-Viewers")), ...answer });
    } catch {
      if (!signal.aborted) this.ended();
    }
  }

  close() {
    this.isOpen = false;
    this.ending.abort();
  }
}

function show(state, connection = "") {
  main.dataset.state = state;
  say(byId("state"), { idle: "off", starting: "starting", sending: "live", waiting: "not sending" }[state]);
  say(byId("connection"), connection);
  say(button, state === "idle" ? "Start" : "Stop");
}

function complain(...parts) {
  const problem = byId("problem");
  if (parts.length || problem.textContent) problem.replaceChildren(...parts);
}

/** What to do about an answer that is an error. */
function advise({ code, message }) {
  if (code === "cross_site" || code === "bad_session") return complain(message);
  if (token) return complain(`This link does not let you publish here (any more): ask for a new one, with the right “publish”.`);
  const here = new URL(location);
  const login = element("a", { text: "Log in", href: address("login", { next: here.pathname + here.search }) });
  const who = code === "forbidden" ? " as somebody who may publish here" : "";
  complain(login, `${who}, or ask for a link with the right “publish”.`);
}

/** What to do about a camera that does not open. */
function cameraProblem({ name, message }) {
  switch (name) {
    case "NotAllowedError":
      return "The camera was not allowed. Allow it beside the browser's address or in the system's settings, then press Start.";
    case "NotFoundError":
      return "No camera was found. Connect one, then press Start.";
    case "OverconstrainedError":
      return "That camera is gone. Pick another, then press Start.";
    case "NotReadableError":
    case "AbortError":
      return "The camera is in use or does not start. Close the program that uses it, then press Start.";
    default:
      return `The camera does not open: ${message}`;
  }
}

/** Names the session in everything that leads to it. */
function adopt(id) {
  session = id;
  const here = new URL(location);
  here.searchParams.set("session", id);
  history.replaceState(null, "", here);
  // A token that lets one publish is not for viewers.
  const view = address(`view/${id}`, { token: null });
  Object.assign(byId("session-link"), { href: view, textContent: id });
  viewLine.write(view.href);
  byId("share").hidden = false;
}

/** Asks for a session where there is none. */
async function findSession() {
  if (session) return;
  try {
    const response = await ask(address("session"), { headers: { Accept: "application/json" } });
    const answer = await response.json();
    if (answer.session) adopt(answer.session);
    else advise(answer.error);
  } catch {
    complain("The server cannot be reached. Try again in a moment.");
  }
}

const frame = () => {
  const [width, height] = resolution.value.split("x").map(Number);
  return { width, height };
};

function constraints() {
  const { width, height } = frame();
  const which = camera.value ? { deviceId: { exact: camera.value } } : { facingMode: "environment" };
  const size = { width: { ideal: Math.max(width, LEAST_WIDTH) }, height: { ideal: Math.max(height, LEAST_HEIGHT) } };
  // A browser that scales cuts off what does not fit: that is done here.
  return { ...which, ...size, frameRate: { ideal: Number(rate.value) }, resizeMode: "none" };
}

async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  // Browsers tell names only to pages that have been allowed a camera.
  if (cameras.length === 0) return;
  const chosen = run?.stream?.getVideoTracks()[0].getSettings().deviceId ?? camera.value;
  const options = cameras.map(({ deviceId, label }, at) => new Option(label || `Camera ${at + 1}`, deviceId));
  if (!chosen) options.unshift(new Option("Any camera", ""));
  camera.replaceChildren(...options);
  camera.value = chosen;
  if (camera.selectedIndex < 0) camera.selectedIndex = 0;
}

function closeCamera() {
  run.stream?.getTracks().forEach((track) => track.stop());
  run.stream = preview.srcObject = null;
}

/** Opens the camera that is picked. Some devices can have only one open, so the one before is closed first. */
async function openCamera() {
  const mine = run;
  closeCamera();
  const turn = ++mine.cameraTurn;
  const isWanted = () => run === mine && mine.cameraTurn === turn;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: constraints(), audio: false });
    if (!isWanted()) return stream.getTracks().forEach((track) => track.stop());
    mine.stream = preview.srcObject = stream;
    stream.getVideoTracks()[0].onended = () => isWanted() && fail("The camera is gone. Connect it or pick another, then press Start.");
    await listCameras();
  } catch (error) {
    if (isWanted()) fail(cameraProblem(error));
  }
}

/** A picture in the camera's own proportions and no larger than chosen; undefined where the camera has none. */
async function take() {
  const { videoWidth, videoHeight } = preview;
  const track = run.stream?.getVideoTracks()[0];
  if (!videoWidth || !track || track.muted) return undefined;
  const { width, height } = frame();
  const [across, down] = videoWidth < videoHeight ? [height, width] : [width, height];
  const scale = Math.min(1, across / videoWidth, down / videoHeight);
  const size = { width: Math.round(videoWidth * scale), height: Math.round(videoHeight * scale) };
  const encoding = { type: contentType, quality: Number(quality.value) / 100 };
  if (!window.OffscreenCanvas) {
    const canvas = Object.assign(document.createElement("canvas"), size);
    canvas.getContext("2d", { alpha: false }).drawImage(preview, 0, 0, size.width, size.height);
    return new Promise((done) => canvas.toBlob(done, encoding.type, encoding.quality));
  }
  const image = await createImageBitmap(preview).catch(() => null);
  if (!image) return undefined;
  ticker.postMessage({ image, ...size, ...encoding }, [image]);
  return new Promise((done) => (encoded = done));
}

async function push(line) {
  isTaking = true;
  const picture = await take();
  isTaking = false;
  // A connection that has come since gets newer pictures.
  if (picture === undefined || run?.line !== line || !line.isOpen) return;
  if (picture?.type !== contentType) {
    return fail(`This server takes pictures of the type ${contentType} only, which this browser cannot make. Try another browser.`);
  }
  line.pace.add(picture.size);
  line.send(picture);
}

function tick() {
  if (!run) return;
  const now = performance.now();
  const { line } = run;
  if (now - run.shownAt >= SHOWN_EVERY_MS) showRates(now);
  if (!line) {
    if (now >= run.retryAt) connect();
  } else if (line.isOpen ? line.pace.isDead(now) : now - line.since > OPEN_WITHIN_MS) {
    lost(line);
  } else if (line.isOpen && now >= run.pausedUntil) {
    if (!isTaking && !line.pace.isFull) push(line);
    else run.skipped += 1;
  }
}

function connect() {
  const Line = run.deafSockets < SOCKET_TRIES ? SocketLine : PostLine;
  const line = new Line((answer) => answered(line, answer), () => lost(line));
  run.line = Object.assign(line, { since: performance.now(), hasAnswered: false });
}

function answered(line, { error, viewers }) {
  if (run?.line !== line) return;
  const now = performance.now();
  const bytes = line.pace.answered(now);
  line.hasAnswered = true;
  if (line instanceof SocketLine) run.deafSockets = 0;
  if (error) return refused(line, error, now);
  run.backoff = RETRY_FIRST_MS;
  run.measured.push({ at: now, bytes });
  run.viewers = viewers;
  complain();
  show("sending", line instanceof PostLine ? "Live connection not possible here: sending picture by picture instead." : "");
}

function refused(line, error, now) {
  if (FINAL.includes(error.code)) {
    stop();
    return advise(error);
  }
  line.pace.halve(now);
  run.pausedUntil = now + REFUSED_PAUSE_MS;
  complain(`The server does not take the pictures: ${error.message}`);
  show("waiting", "Trying again…");
}

function lost(line) {
  if (run?.line !== line) return;
  line.close();
  run.line = null;
  run.retryAt = performance.now() + (run.backoff * (1 + Math.random())) / 2;
  run.backoff = Math.min(RETRY_MOST_MS, run.backoff * 2);
  show("waiting", "Connection lost. Trying again…");
  if (line instanceof SocketLine && !line.hasAnswered) diagnose(run);
}

/** Finds out why a WebSocket failed, which browsers do not tell: the server is away, it refuses us, or something between. */
async function diagnose(mine) {
  const look = (path) => ask(address(path), { signal: AbortSignal.timeout(OPEN_WITHIN_MS) });
  try {
    const { ok } = await look("healthz");
    if (!ok || run !== mine) return;
    mine.deafSockets += 1;
    if (mine.deafSockets === SOCKET_TRIES) mine.retryAt = 0;
    const { error } = await (await look(`ws/push/${session}`)).json();
    if (run === mine && FINAL.includes(error?.code)) {
      stop();
      advise(error);
    }
  } catch {
    // The server is away, or what answered is not the server.
  }
}

function showRates(now) {
  run.shownAt = now;
  const pictures = (run.measured = run.measured.filter(({ at }) => now - at < MEASURED_MS));
  // Between pictures nothing is missing yet; after the longest time between two, something is.
  const ms = pictures.length > 1 ? Math.max(pictures.at(-1).at, now - 1000) - pictures[0].at : Infinity;
  const bytes = pictures.slice(1).reduce((sum, picture) => sum + picture.bytes, 0);
  say(byId("sent-rate"), (((pictures.length - 1) * 1000) / ms || 0).toFixed(1));
  say(byId("sent-bytes"), (bytes / ms).toFixed(bytes / ms < 10 ? 1 : 0));
  say(byId("viewers"), String(run.viewers));
  say(byId("skipped"), String(run.skipped));
}

/** Keeps the screen on, without which phones end the camera. Browsers let go of it when the page is hidden. */
async function stayAwake() {
  const mine = run;
  if (!mine || document.hidden) return;
  try {
    const lock = await navigator.wakeLock.request("screen");
    if (run === mine) mine.lock = lock;
    else lock.release();
  } catch {
    // Not in this browser, or not with so little battery: it goes on until the screen sleeps.
  }
}

const tickAtRate = () => ticker.postMessage({ every: 1000 / Number(rate.value) });

async function start() {
  const mine = (run = {
    stream: null, cameraTurn: 0, line: null, lock: null, backoff: RETRY_FIRST_MS, retryAt: 0, deafSockets: 0, pausedUntil: 0,
    measured: [], shownAt: 0, viewers: 0, skipped: 0,
  });
  complain();
  show("starting");
  await (sessionFound = sessionFound.then(findSession));
  if (run !== mine) return;
  if (!session) return stop();
  await openCamera();
  if (run !== mine) return;
  stayAwake();
  tickAtRate();
}

function stop() {
  if (!run) return;
  ticker.postMessage({ every: null });
  closeCamera();
  run.lock?.release();
  run.line?.close();
  run.measured = [];
  showRates(0);
  run = null;
  show("idle");
}

function fail(text) {
  stop();
  complain(text);
}

/** Puts changed settings to work. */
function change() {
  say(byId("rate-value"), rate.value);
  say(byId("quality-value"), quality.value);
  if (!run) return;
  run.line?.pace.forget();
  // A camera that cannot is scaled by us.
  run.stream?.getVideoTracks()[0].applyConstraints(constraints()).catch(() => {});
}

function prepare() {
  change();
  byId("share").append(viewLine);
  if (session !== null && !SESSION_ID.test(session)) {
    return complain(`“${session}” cannot be a session's name: expected 1 to 128 characters of A-Z a-z 0-9 . _ @ -`);
  }
  if (session) adopt(session);
  if (!navigator.mediaDevices) {
    const [secure, local] = [new URL(location), new URL(location)];
    secure.protocol = "https:";
    local.hostname = "localhost";
    return complain("Browsers show cameras to secure pages only. Open this page over HTTPS: ",
      element("a", { text: secure.href, href: secure }), `. On the machine that the server runs on, ${local.origin} will do.`);
  }
  button.disabled = false;
  sessionFound = findSession();
  listCameras();
  navigator.mediaDevices.addEventListener("devicechange", listCameras);
  button.addEventListener("click", () => (run ? stop() : start()));
  camera.addEventListener("change", () => run && openCamera());
  resolution.addEventListener("change", change);
  quality.addEventListener("input", change);
  rate.addEventListener("input", change);
  rate.addEventListener("change", () => run && tickAtRate());
  ticker.addEventListener("message", ({ data }) => (data ? encoded(data.picture) : tick()));
  document.addEventListener("visibilitychange", stayAwake);
  addEventListener("pagehide", stop);
  addEventListener("online", () => {
    if (!run) return;
    // Another network may let WebSockets through.
    Object.assign(run, { retryAt: 0, deafSockets: 0 });
    if (!run.line) connect();
  });
}

prepare();

// One session, large: its picture, how old and how late it is, and the ways to read it elsewhere.

import { Live } from "./live.js";
import { address, ask, byId, copy, copyable, element, root, say, span, token } from "./page.js";

/** How often the page is looked at for what time does to it, in ms. */
const TICK = 250;
/** How far back the plots go, in seconds: as many as they are wide. */
const PLOTTED = 180;
/** What the plots reach up to at least: frames a second, and ms. */
const LEAST_TOP = { rate: 5, delay: 200 };
/** The rate is that of the last so many seconds. */
const RATE_SECONDS = 3;

const session = document.querySelector("main").dataset.session;
const stage = byId("stage");
const img = stage.querySelector("img");
const badge = stage.querySelector(".badge");

/** What was shown in each of the last seconds: `{frames, delay}`, the longest delay in ms; null before this page was seen. */
const seconds = Array(PLOTTED).fill(null);
let now = { frames: 0, delay: null };

const live = new Live({ only: session, onstats: showStats });
const feed = live.watch(session, img, (frame) => {
  stage.dataset.seq = frame.seq;
  byId("snapshot").disabled = false;
  now.frames += 1;
  if (frame.delay !== null) now.delay = Math.max(now.delay ?? 0, frame.delay);
  stage.style.setProperty("--ratio", img.naturalWidth / img.naturalHeight);
  tick();
});

function tick() {
  const { state, age, words } = live.standing(feed);
  stage.dataset.state = state;
  say(badge, words);
  say(byId("age"), age === undefined || state === "empty" ? "–" : age < 1000 ? "now" : span(age));
  byId("snapshot").disabled = feed.shown === null;
}

function showStats(sessions) {
  const stats = sessions.find((one) => one.id === session);
  say(byId("viewers"), stats ? stats.viewers.toLocaleString() : "0");
  say(byId("queue"), stats ? stats.len.toLocaleString() : "0");
}

/** A second is over. */
function advance() {
  seconds.shift();
  seconds.push(live.isConnected ? now : null);
  now = { frames: 0, delay: null };
  const last = seconds.slice(-RATE_SECONDS).filter(Boolean);
  const rate = last.length ? last.reduce((sum, one) => sum + one.frames, 0) / last.length : null;
  const delay = last.reduce((most, one) => (one.delay === null ? most : Math.max(most ?? 0, one.delay)), null);
  say(byId("rate"), rate === null ? "–" : rate.toFixed(1));
  say(byId("delay"), delay === null ? "–" : span(delay));
  plot("rate", (one) => one.frames, (value) => `${value}`);
  plot("delay", (one) => one.delay, span);
}

/** Draws what is known; where nothing is, the line has a gap. */
function plot(name, valueOf, words) {
  const values = seconds.map((one) => one && valueOf(one));
  const known = values.filter((value) => value !== null);
  const top = Math.max(LEAST_TOP[name], ...known);
  let path = "";
  let isDrawing = false;
  values.forEach((value, x) => {
    if (value !== null) path += `${isDrawing ? "L" : "M"}${x} ${(98 - (value / top) * 96).toFixed(1)}`;
    isDrawing = value !== null;
  });
  byId(`${name}-plot`).querySelector("path").setAttribute("d", path);
  say(byId(`${name}-range`), known.length ? `${words(Math.min(...known))} to ${words(Math.max(...known))}` : "nothing yet");
}

/** What a file of these first bytes is called. */
function extension(bytes) {
  const begins = (...start) => start.every((byte, at) => bytes[at] === byte);
  if (begins(0x89, 0x50)) return "png";
  if (begins(0x47, 0x49)) return "gif";
  if (begins(0x52, 0x49)) return "webp";
  if (begins(0x42, 0x4d)) return "bmp";
  return begins(0xff, 0xd8) ? "jpg" : "avif";
}

byId("snapshot").addEventListener("click", () => {
  const { bytes, seq } = feed.shown;
  const url = URL.createObjectURL(new Blob([bytes]));
  element("a", { href: url, download: `${session}-${seq}.${extension(bytes)}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

const fullscreen = byId("fullscreen");
// Phones of one maker have it for videos only.
fullscreen.hidden = !stage.requestFullscreen;
fullscreen.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen()));
// The button is outside of what fills the screen, and so loses the focus.
document.addEventListener("fullscreenchange", () => document.fullscreenElement || fullscreen.focus());
stage.addEventListener("dblclick", () => fullscreen.click());

/** The lines of each way: what they are for, and the line for an address of that way. */
const WAYS = {
  live: [
    ["Address", "stream", {}, (url) => url],
    ["HTML", "stream", {}, (url) => `<img src="${url.replaceAll("&", "&amp;")}" alt="${session}">`],
    ["FFmpeg, to record", "stream", { repeat: 0, offline: "close" }, (url) => `ffmpeg -i "${url}" -c copy ${session}.mkv`],
    ["VLC", "stream", {}, (url) => `vlc "${url}"`],
    ["Home Assistant: MJPEG IP Camera, MJPEG URL", "stream", {}, (url) => url],
    ["OpenCV", "stream", { repeat: 0 }, (url) => `cv2.VideoCapture("${url}", cv2.CAP_FFMPEG)`],
  ],
  newest: [
    ["Address", "snapshot", {}, (url) => url],
    ["HTML", "snapshot", {}, (url) => `<img src="${url.replaceAll("&", "&amp;")}" alt="${session}">`],
    ["curl", "snapshot", {}, (url) => `curl -o ${session}.jpg "${url}"`],
    ["FFmpeg, to a file", "snapshot", {}, (url) => `ffmpeg -i "${url}" -frames:v 1 ${session}.png`],
    ["Home Assistant: MJPEG IP Camera, still image URL", "snapshot", {}, (url) => url],
    ["OpenCV", "snapshot", {}, (url) => `cv2.imdecode(numpy.frombuffer(urllib.request.urlopen("${url}").read(), numpy.uint8), 1)`],
  ],
  queued: [
    ["Address", "image", {}, (url) => url],
    ["HTML: another picture each time it is loaded", "image", {}, (url) => `<img src="${url.replaceAll("&", "&amp;")}" alt="${session}">`],
    ["curl, waiting for one", "image", { wait: 10 }, (url) => `curl -o next.jpg "${url}"`],
    ["How many wait", "image", {}, (url) => `curl -I "${url}"`],
  ],
};

/** Which right each way needs, and the tokens there are for it. */
const RIGHT = { live: "view", newest: "view", queued: "take" };
const tokens = { view: token, take: token };

const lines = Object.entries(WAYS).flatMap(([way, them]) => them.map(([label, route, parameters, make]) => {
  const line = copyable("", `the line for ${way}: ${label}`);
  byId(way).append(element("h3", { text: label }), line);
  return () => line.write(make(address(`${route}/${session}`, { token: tokens[RIGHT[way]], ...parameters }).href));
}));
const writeLines = () => lines.forEach((write) => write());
writeLines();

const link = byId("link");
link?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const right = link.elements.right.value;
  say(byId("link-problem"), "");
  try {
    const body = JSON.stringify({ session, right, expires_in: Number(link.elements.expires_in.value) });
    const answer = await ask(new URL("link", root), { method: "POST", body });
    const made = await answer.json();
    if (!answer.ok) throw new Error(made.error.message);
    tokens[right] = made.token;
    byId("link-url").value = linkTo(right, made.token);
    byId("link-result").hidden = false;
    byId("link-url").select();
    writeLines();
  } catch (error) {
    say(byId("link-problem"), `No link was made: ${error.message}.`);
  }
});
byId("link-copy")?.addEventListener("click", ({ target }) => copy(byId("link-url").value, target));

const drive = byId("drive");
// A guest's token goes along.
if (drive) drive.href = address(`drive/${session}`).href;

/** Where a link for this right leads a person to. */
function linkTo(right, token) {
  if (right === "view") return address(`view/${session}`, { token }).href;
  if (right === "publish") return address("broadcast", { session, token }).href;
  return address(`${right === "take" ? "image" : "drive"}/${session}`, { token }).href;
}

setInterval(tick, TICK);
setInterval(advance, 1000);

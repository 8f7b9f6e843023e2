// Says when a picture is due, and encodes it. In a tab that nobody looks at, a page's own timers and encoders are slowed down to
// one picture a second; those of a worker are not.

let timer;

/** Begins to tick every so many ms; with null it ends. */
function tickEvery(every) {
  clearTimeout(timer);
  if (every === null) return;
  let due = performance.now();
  const tick = () => {
    postMessage(null);
    const now = performance.now();
    // Never two for one: a device that slept does not catch up.
    due = Math.max(due + every, now);
    timer = setTimeout(tick, due - now);
  };
  tick();
}

let canvas;

async function encode({ image, width, height, type, quality }) {
  canvas ??= new OffscreenCanvas(width, height);
  // To set a canvas's size, even to what it is, makes it anew.
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d", { alpha: false }).drawImage(image, 0, 0, width, height);
  image.close();
  return canvas.convertToBlob({ type, quality });
}

addEventListener("message", async ({ data }) => {
  if (!data.image) return tickEvery(data.every);
  postMessage({ picture: await encode(data).catch(() => null) });
});

// Says when a picture is due. A worker's timers go on in a tab that nobody looks at; a page's are slowed down there.

let timer;

/** Begins to tick every so many ms; with null it ends. */
addEventListener("message", ({ data: every }) => {
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
});

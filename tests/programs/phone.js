// phone.js OPTIONS: phones that send pictures by Socket.IO, with socket.io-client 2.x or 4.x.
//
// OPTIONS is one JSON object, the same as phone.py's, which tells what they mean; "client" is "2" or "4". `deflate` false
// keeps WebSocket messages as they are, which the app does and this client by itself does not.

'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');

const options = JSON.parse(process.argv[2]);
const io = createRequire(path.join(__dirname, '../../target/test-node/'))(`socket.io-client-${options.client}`);

const { frames = 0, fps = 0, bytes = 10240, phones = 1, stay = 0 } = options;
/// How far frames may run ahead of the network: few enough that memory is bounded, enough that it never waits for them.
const MAX_PACKETS_AHEAD = 8;
const MAX_BYTES_AHEAD = 1 << 20;
/// How long saying goodbye may take.
const GOODBYE_MS = 2000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');

/// What pictures are filled with, over and over.
const FILLER = (() => {
  const filler = Buffer.alloc(65521);
  let state = 0x9e3779b9;
  for (let at = 0; at < filler.length; at++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    filler[at] = state & 0xff;
  }
  return filler;
})();

/// Picture `number` of a phone: the first bytes of a JPEG, who and which it is, filler that begins elsewhere in each, the end.
function picture(phone, number) {
  const frame = Buffer.allocUnsafe(bytes);
  const head = Buffer.from(`\xff\xd8\xff\xe0phone ${phone} frame ${number};`, 'latin1');
  head.copy(frame);
  let at = head.length;
  let from = (phone * 7919 + number * 104729) % FILLER.length;
  while (at < bytes - 2) {
    at += FILLER.copy(frame, at, from, Math.min(FILLER.length, from + bytes - 2 - at));
    from = 0;
  }
  frame.writeUInt16BE(0xffd9, bytes - 2);
  return frame;
}

let go;
const begun = options.hold ? new Promise((resolve) => (go = resolve)) : Promise.resolve();

class Phone {
  constructor(number) {
    this.number = number;
    this.user = phones > 1 && options.user ? `${options.user}-${number}` : options.user;
    this.next = 1;
    this.sent = 0;
    this.unanswered = new Set();
    this.acked = 0;
    /// Counts connections: whoever sends on an older one stops.
    this.connection = 0;
    this.over = new Promise((resolve) => (this.end = resolve));
  }

  say(event, more) {
    print({ phone: this.number, event, ...more });
  }

  start() {
    const socket = io(options.url, {
      path: options.path || '/socket.io/',
      transports: options.transports || ['polling', 'websocket'],
      forceNew: true,
      reconnection: !!options.reconnect,
      reconnectionDelay: 500,
      ca: options.ca && fs.readFileSync(options.ca),
      ...(options.deflate === false && { perMessageDeflate: false }),
    });
    this.socket = socket;
    socket.io.on('open', () => {
      const { engine } = socket.io;
      engine.on('upgrade', (transport) => this.say('upgrade', { transport: transport.name, frames: this.next - 1 }));
    });
    socket.on('connect', () => {
      this.connection++;
      this.say('connect', { transport: socket.io.engine.transport.name });
      if (options.password !== undefined) socket.emit('authenticate', this.user, options.password, this.callback);
      if (!options.wait) this.send(this.connection);
    });
    socket.on(this.callback, (value = null) => {
      this.say('authenticated', { value });
      if (options.wait && value === true) this.send(this.connection);
    });
    socket.on('disconnect', (reason) => {
      this.connection++;
      if (this.leaving) return;
      this.say('disconnect', { reason });
      if (!options.reconnect) this.end();
    });
    const failed = (error) => {
      this.say('error', { message: String((error && error.message) || error) });
      if (!options.reconnect && !socket.connected) this.end();
    };
    socket.on('connect_error', failed);
    socket.on('error', failed);
  }

  get callback() {
    return options.callback || 'onAuthentication';
  }

  /// What waits to be sent: packets in the client, and bytes in its socket.
  get ahead() {
    const { engine } = this.socket.io;
    const socket = engine.transport.ws;
    return [engine.writeBuffer.length, socket ? socket.bufferedAmount : 0];
  }

  async send(connection) {
    await begun;
    const here = () => this.connection === connection;
    const begin = Date.now() + (fps > 0 ? ((this.number - 1) / phones) * (1000 / fps) : 0);
    const first = this.next;
    while (this.next <= frames) {
      if (fps > 0) {
        await sleep(begin + ((this.next - first) * 1000) / fps - Date.now());
      } else if (options.ack) {
        while (here() && this.unanswered.size > 0) await sleep(1);
      }
      while (here() && fps <= 0 && (this.ahead[0] >= MAX_PACKETS_AHEAD || this.ahead[1] >= MAX_BYTES_AHEAD)) await sleep(1);
      if (!here()) return;
      const number = this.next++;
      const frame = picture(this.number, number);
      if (!options.ack) {
        this.socket.emit('receiveImage', frame);
        continue;
      }
      this.unanswered.add(number);
      this.socket.emit('receiveImage', frame, (value = null) => {
        this.unanswered.delete(number);
        this.acked++;
        this.say('ack', { frame: number, value });
      });
    }
    while (here() && this.ahead.some((waiting) => waiting > 0)) await sleep(1);
    if (!here()) return;
    this.sent = frames;
    this.say('sent', { frames, transport: this.socket.io.engine.transport.name });
    while (here() && this.unanswered.size > 0) await sleep(1);
    await sleep(stay * 1000);
    if (here()) this.end();
  }

  /// Ends the connection so that nothing is lost that has been sent.
  async hangUp() {
    const { engine } = this.socket.io;
    const socket = engine && engine.transport.ws;
    this.leaving = true;
    this.socket.disconnect();
    const deadline = Date.now() + GOODBYE_MS;
    const open = () => (socket ? socket.readyState !== socket.CLOSED : engine && engine.readyState !== 'closed');
    while (open() && Date.now() < deadline) await sleep(5);
  }
}

const all = Array.from({ length: phones }, (_, index) => new Phone(index + 1));
const began = Date.now();
const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => line === 'go' && go && go());
const closed = new Promise((resolve) => input.on('close', resolve));

for (const phone of all) phone.start();
Promise.race([closed, Promise.all(all.map((phone) => phone.over))]).then(async () => {
  await Promise.all(all.map((phone) => phone.hangUp()));
  const total = (what) => all.reduce((sum, phone) => sum + what(phone), 0);
  print({
    event: 'summary',
    handed: total((phone) => phone.next - 1),
    sent: total((phone) => phone.sent),
    acked: total((phone) => phone.acked),
    seconds: (Date.now() - began) / 1000,
  });
  process.exit(0);
});

// A client and worker of protocol.md: one connection, requests with their answers, what the broker pushes.
import net from 'node:net';
import {
  Reader,
  FRAME_BATCH,
  FRAME_MAX,
  PREAUTH_FRAME,
  ROWS_MAX,
  decode,
  encode,
  taskSize,
} from './frames.mjs';

const DEADLINE_MS = 5000;
const MISSED_HEARTBEATS = 2;
const DEFAULT_PORT = 2437;

/** An ERROR of the broker: it refused one request, or ended the connection. */
export class Refused extends Error {
  constructor({ code, message, details }) {
    super(`${code}: ${message}`);
    Object.assign(this, { code, details });
  }
}

/** A GOODBYE of the broker. */
export class Ended extends Error {
  constructor({ code, message }) {
    super(`${code}: ${message ?? 'no reason given'}`);
    this.code = code;
  }
}

/** What `chervil://[token@]host:port[/vhost]` and `chervil+unix:///path` say (section 3). */
function parseAddress(url) {
  const { protocol, username, hostname, port, pathname } = new URL(url);
  if (protocol === 'chervil+unix:') return { where: { path: pathname }, token: null, vhost: null };
  if (protocol !== 'chervil:') throw new Error(`no address of a broker: ${protocol}`);
  return {
    where: { host: hostname, port: Number(port || DEFAULT_PORT) },
    token: username || null,
    vhost: pathname.slice(1) || null,
  };
}

/** Waits for what must come within a deadline; `what` is for the failure's message. */
async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${DEADLINE_MS} ms: ${what}`)), DEADLINE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export class Client {
  sequence = 0; // of the last COMPLETE
  attempt = 0; // of the last HELLO that named a session
  unanswered = new Map(); // sequence -> completion rows
  heard = Date.now();
  ended = null; // why the connection ended
  #requests = 0;
  #waiting = new Map(); // what is answered -> { resolve, reject }
  #pushed = new Map(); // command -> rows that nobody has asked for yet
  #partial = new Map(); // request -> status rows of the STATUS frames so far
  #reader = new Reader(PREAUTH_FRAME);
  #saidGoodbye = false;

  static async connect(url, { token, versions = [1, 1], name = 'node', ...session } = {}) {
    const address = parseAddress(url);
    const client = new Client(url);
    client.hello = {
      min_version: versions[0],
      max_version: versions[1],
      features: [],
      name,
      token: token === undefined ? address.token : token,
      vhost: address.vhost,
      ...session,
    };
    await client.#open(address.where);
    return client;
  }

  /** Takes up the session of a connection that is gone. `welcome.resumed` says whether the broker has it. */
  static async resume(earlier, { attempt = earlier.attempt + 1 } = {}) {
    const { session, secret } = earlier.welcome;
    const { name, token } = earlier.hello;
    const options = new Map([[1, attempt]]);
    const client = await Client.connect(earlier.url, { name, token, resume: { session, secret }, options });
    client.attempt = attempt;
    if (client.welcome.resumed) {
      client.sequence = earlier.sequence;
      client.unanswered = earlier.unanswered;
    }
    return client;
  }

  constructor(url) {
    this.url = url;
    this.closed = new Promise((resolve) => {
      this.close = resolve;
    });
  }

  async #open(where) {
    this.socket = net.connect(where);
    this.socket.setNoDelay(true);
    this.socket.on('data', (chunk) => this.#receive(chunk));
    this.socket.on('error', (error) => {
      this.ended ??= error;
    });
    this.socket.on('close', () => this.#end());
    const welcome = this.#answer('WELCOME');
    this.send('HELLO', this.hello);
    this.welcome = await within(welcome, 'WELCOME');
  }

  #receive(chunk) {
    this.heard = Date.now();
    try {
      for (const payload of this.#reader.feed(chunk)) this.#dispatch(decode(payload));
    } catch (error) {
      this.ended = error;
      this.socket.destroy();
    }
  }

  #dispatch(message) {
    const { command, request } = message;
    if (command === 'WELCOME') {
      this.#reader.limit = FRAME_MAX;
      this.#settle('WELCOME', message);
    } else if (command === 'ERROR' && request === null) this.ended = new Refused(message);
    else if (command === 'ERROR') this.#settle(`request ${request}`, null, new Refused(message));
    else if (command === 'STATUS') this.#status(message);
    else if (command === 'OK' || command === 'CONFIRM' || command === 'REPORT') {
      this.#settle(`request ${request}`, message);
    } else if (command === 'COMPLETED') {
      this.unanswered.delete(message.sequence);
      this.#settle(`sequence ${message.sequence}`, message.exceptions ?? []);
    } else if (command === 'GOODBYE') {
      this.ended ??= new Ended(message);
      if (!this.#saidGoodbye) this.send('GOODBYE', { code: 'DONE' });
      this.socket.end();
    } else for (const item of message.tasks ?? [message]) this.#push(command, item);
  }

  #status({ request, tasks, more }) {
    const rows = [...(this.#partial.get(request) ?? []), ...tasks];
    this.#partial.set(request, rows);
    if (more) return;
    this.#partial.delete(request);
    this.#settle(`request ${request}`, rows);
  }

  #push(command, item) {
    if (this.#waiting.has(command)) return this.#settle(command, item);
    this.#pushed.set(command, [...(this.#pushed.get(command) ?? []), item]);
  }

  #answer(what) {
    return new Promise((resolve, reject) => {
      if (this.ended) reject(this.ended);
      else this.#waiting.set(what, { resolve, reject });
    });
  }

  #settle(what, value, error) {
    const waiting = this.#waiting.get(what);
    this.#waiting.delete(what);
    if (error) waiting?.reject(error);
    else waiting?.resolve(value);
  }

  #end() {
    clearInterval(this.beat);
    this.ended ??= new Error('the connection has ended');
    for (const { reject } of this.#waiting.values()) reject(this.ended);
    this.#waiting.clear();
    this.close(this.ended);
  }

  send(command, fields) {
    this.socket.write(encode(command, fields));
  }

  /** Sends bytes that need not be a frame. */
  sendRaw(bytes) {
    this.socket.write(bytes);
  }

  /** Sends a request and waits for its answer: OK's value, a list of status rows, a CONFIRM or a REPORT. */
  async request(command, fields = {}) {
    const request = ++this.#requests;
    const answer = this.#answer(`request ${request}`);
    this.send(command, { request, ...fields });
    const message = await within(answer, `the answer to ${command}`);
    if (message.command === 'OK') return message.value;
    return message.command === 'REPORT' ? message.report : message;
  }

  /** Publishes tasks in as many frames as they need; the exceptions of all, by the index in `tasks`. */
  async publish(tasks) {
    const batches = [[]];
    let size = 0;
    tasks.forEach((task, index) => {
      const more = taskSize(task);
      // 16 bytes for the frame around the rows.
      if (batches.at(-1).length === ROWS_MAX || (size + more > FRAME_BATCH - 16 && size > 0)) {
        batches.push([]);
        size = 0;
      }
      batches.at(-1).push(index);
      size += more;
    });
    const confirms = await Promise.all(
      batches.map((batch) => this.request('PUBLISH', { tasks: batch.map((index) => tasks[index]) })),
    );
    return {
      frames: batches.length,
      accepted: confirms.reduce((sum, { accepted }) => sum + accepted, 0),
      exceptions: confirms.flatMap(({ exceptions }, number) =>
        (exceptions ?? []).map((row) => ({ ...row, index: batches[number][row.index] })),
      ),
    };
  }

  /** Subscribes and gives credit; from here on this side owes heartbeats, and is owed them. */
  async consume(queues, credit, tasks = null) {
    const value = await this.request('SUBSCRIBE', {
      queues,
      tasks,
      options: new Map([
        [1, credit],
        [3, process.pid],
      ]),
    });
    this.credit(credit);
    return value;
  }

  credit(limit) {
    this.send('CREDIT', { limit });
    this.beat ??= setInterval(() => this.#heartbeat(), this.welcome.heartbeat_ms / 2);
  }

  #heartbeat() {
    if (Date.now() - this.heard > MISSED_HEARTBEATS * this.welcome.heartbeat_ms) {
      this.ended = new Error('the broker was not heard of');
      this.socket.destroy();
    } else this.send('HEARTBEAT');
  }

  /** Falls silent, as a process that is stopped. */
  fallSilent() {
    clearInterval(this.beat);
  }

  /** The next row of what the broker pushes: of DELIVER, RESULT or CANCEL; or a whole WINDOW or HEARTBEAT. */
  async next(command) {
    const pushed = this.#pushed.get(command) ?? [];
    return pushed.length > 0 ? pushed.shift() : within(this.#answer(command), command);
  }

  /** What of it has come and was not asked for. */
  come(command) {
    return this.#pushed.get(command) ?? [];
  }

  /** Sends completion rows and waits for the verdicts on those that were not applied. */
  complete(...tasks) {
    this.sequence += 1;
    this.unanswered.set(this.sequence, tasks);
    return this.#sendComplete(this.sequence);
  }

  #sendComplete(sequence) {
    const answer = this.#answer(`sequence ${sequence}`);
    this.send('COMPLETE', { sequence, tasks: this.unanswered.get(sequence) });
    return within(answer, `COMPLETED ${sequence}`);
  }

  /** RESUME, then what was not answered; how many leases are kept, and the verdicts by sequence. */
  async takeUp(inventory) {
    const kept = this.request('RESUME', { inventory, sequence: this.sequence });
    const again = [...this.unanswered.keys()].map(async (sequence) => [
      sequence,
      await this.#sendComplete(sequence),
    ]);
    return { kept: await kept, verdicts: new Map(await Promise.all(again)) };
  }

  /** Ends in order: the broker answers with its own GOODBYE and closes. */
  async goodbye(code = 'DONE') {
    this.#saidGoodbye = true;
    this.send('GOODBYE', { code });
    await within(this.closed, 'GOODBYE');
  }

  /** Ends as a pulled cable: unsent and unread bytes are gone. */
  async cut() {
    this.socket.resetAndDestroy();
    await this.closed;
  }
}

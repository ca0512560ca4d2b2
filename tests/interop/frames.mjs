// Frames of protocol.md, sections 2 and 4: messages to bytes and back. No socket, no clock.
import * as msgpack from '@msgpack/msgpack';

export const PREAUTH_FRAME = 4096;
export const FRAME_BATCH = 262144;
export const FRAME_MAX = 16908288;
export const ROWS_MAX = 8192;
const VALUES_MAX = 262144;

export const STAGES = [
  'UNKNOWN',
  'WAITING',
  'SCHEDULED',
  'QUEUED',
  'LEASED',
  'STARTED',
  'RETRY',
  'SUCCESS',
  'FAILURE',
  'DEAD',
  'REVOKED',
  'EXPIRED',
  'UPSTREAM_FAILED',
  'EVICTED',
];
export const OUTCOME = { SUCCESS: 1, FAILURE: 2, RETRY: 3, REJECT: 5, RELEASE: 7, REVOKED: 8, LOST: 9 };
export const VERDICT = { DUPLICATE: 1, STALE: 2 };

// A field is `name`, `name?` where it is optional, and its type after a colon where the type is an id,
// options (of a task: some are ids), a row, or a list of them: everything else travels as it is.
const ROWS = rows({
  task: 'id:id name queue priority options?:task_options headers? codec body',
  status: 'id:id stage codec? body? info?:options',
  delivery:
    'id:id lease redelivered attempts retries name queue priority options?:task_options ' +
    'headers? codec body inputs?',
  started: 'id:id lease early?',
  completion: 'id:id lease outcome codec? body? options?:options publishes?',
  cancel: 'id:id lease signal?',
  inventory: 'id:id lease state',
  exception: 'index code message',
  verdict: 'index verdict',
  resume: 'session secret',
  failure: 'kind type message? traceback? task_id:id task_name args_codec? args?',
});

const COMMANDS = rows({
  HELLO: 'min_version max_version features name token? vhost? resume?:resume options?:options',
  WELCOME: 'version features instance session secret resumed heartbeat_ms options?:options',
  GOODBYE: 'code message?',
  HEARTBEAT: '',
  ERROR: 'request code message details?',
  OK: 'request value?',
  RESUME: 'request inventory:[inventory] sequence more?',
  PUBLISH: 'request tasks:[task]',
  CONFIRM: 'request accepted exceptions?:[exception]',
  WINDOW: 'limit',
  WATCH: 'request ids:[id]',
  STATUS: 'request tasks:[status] more?',
  RESULT: 'tasks:[status]',
  UNWATCH: 'ids:[id]',
  QUERY: 'request ids:[id]',
  FORGET: 'request ids:[id]',
  HISTORY: 'request id:id',
  SUBSCRIBE: 'request queues tasks? options?:options',
  CREDIT: 'limit',
  DELIVER: 'tasks:[delivery]',
  STARTED: 'tasks:[started] request?',
  COMPLETE: 'sequence tasks:[completion]',
  COMPLETED: 'sequence exceptions?:[verdict]',
  CANCEL: 'tasks:[cancel]',
  STATS: 'request',
  REPORT: 'request report',
  PURGE: 'request queues',
  REVOKE: 'request ids:[id] terminate signal?',
  RERUN: 'request ids:[id]',
  LIST: 'request kind cursor? limit',
  GROW: 'request id:id inputs',
});

const NUMBERS = {
  HELLO: 1,
  WELCOME: 2,
  GOODBYE: 3,
  HEARTBEAT: 4,
  ERROR: 5,
  OK: 6,
  RESUME: 7,
  PUBLISH: 16,
  CONFIRM: 17,
  WINDOW: 18,
  WATCH: 32,
  STATUS: 33,
  RESULT: 34,
  UNWATCH: 35,
  QUERY: 36,
  FORGET: 37,
  HISTORY: 38,
  SUBSCRIBE: 48,
  CREDIT: 49,
  DELIVER: 50,
  STARTED: 51,
  COMPLETE: 52,
  COMPLETED: 53,
  CANCEL: 54,
  STATS: 64,
  REPORT: 65,
  PURGE: 66,
  REVOKE: 67,
  RERUN: 68,
  LIST: 69,
  GROW: 70,
};
const NAMES = new Map(Object.entries(NUMBERS).map(([name, number]) => [number, name]));

function rows(texts) {
  const parse = (text) => {
    const [, name, optional, type] = /^(\w+)(\??)(?::(.+))?$/.exec(text);
    return { name, optional: optional === '?', type: type ?? null };
  };
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => [name, text.split(' ').filter(Boolean).map(parse)]),
  );
}

/** What the receiver says of bytes that are no frame of this protocol. */
export class BadFrame extends Error {}

/** A message as a frame. Ids are text, rows are objects, what is left out is nil. */
export function encode(command, fields = {}) {
  const payload = pack([NUMBERS[command], ...toArray(COMMANDS[command], fields)]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(payload.length);
  return Buffer.concat([length, payload]);
}

/** The message in a frame's payload: its fields by name, and its name as `command`. */
export function decode(payload) {
  const values = unpack(payload);
  if (!Array.isArray(values) || values.length === 0) throw new BadFrame('not a msgpack array');
  const command = NAMES.get(values[0]);
  if (command === undefined) throw new Error(`UNKNOWN_COMMAND ${values[0]}`);
  return { command, ...toObject(COMMANDS[command], values.slice(1)) };
}

/** The message whose fields have these values by name, rows and ids as they travel. */
export function message(command, values) {
  return {
    command,
    ...toObject(
      COMMANDS[command],
      COMMANDS[command].map(({ name }) => values[name]),
    ),
  };
}

/** A failure record (section 5) as the bytes of a result whose codec is `failure`, and back. */
export const encodeFailure = (record) => pack(toArray(ROWS.failure, record));
export const decodeFailure = (body) => toObject(ROWS.failure, unpack(body));

/** How many bytes a task takes in a PUBLISH. */
export const taskSize = (task) => pack(toArray(ROWS.task, task)).length;

/** The bytes of a connection, cut into payloads. */
export class Reader {
  #bytes = Buffer.alloc(0);

  constructor(limit = FRAME_MAX) {
    this.limit = limit;
  }

  *feed(chunk) {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    while (this.#bytes.length >= 4) {
      const length = this.#bytes.readUInt32BE();
      if (length === 0 || length > this.limit) throw new BadFrame(`a length of ${length}`);
      if (this.#bytes.length < 4 + length) return;
      const payload = this.#bytes.subarray(4, 4 + length);
      this.#bytes = this.#bytes.subarray(4 + length);
      yield payload;
    }
  }
}

function toObject(spec, values) {
  return Object.fromEntries(
    spec.map(({ name, optional, type }, index) => {
      const value = values[index];
      if (value === undefined && !optional) throw new Error(`BAD_FIELD: ${name} is missing`);
      return [name, value == null ? null : fromWire(type, value)];
    }),
  );
}

function toArray(spec, fields) {
  const strange = Object.keys(fields).filter((key) => !spec.some(({ name }) => name === key));
  if (strange.length > 0) throw new Error(`no such field: ${strange}`);
  return spec.map(({ name, type }) => (fields[name] == null ? null : toWire(type, fields[name])));
}

function fromWire(type, value) {
  if (type === null) return value;
  if (type === 'id') return idFromWire(value);
  if (type === 'options') return value instanceof Map ? value : integerKeys(value);
  if (type === 'task_options') return mapIds(fromWire('options', value), idFromWire);
  if (type.startsWith('[')) return value.map((item) => fromWire(type.slice(1, -1), item));
  return toObject(ROWS[type], value);
}

function toWire(type, value) {
  if (type === null || type === 'options') return value;
  if (type === 'id') return idToWire(value);
  if (type === 'task_options') return mapIds(value, idToWire);
  if (type.startsWith('[')) return value.map((item) => toWire(type.slice(1, -1), item));
  return toArray(ROWS[type], value);
}

// The library decodes every map as an object, whose keys are text.
const integerKeys = (object) => new Map(Object.entries(object).map(([key, item]) => [Number(key), item]));

const ID_OPTIONS = [1, 3, 5]; // root_id, parent_id, group_id

function mapIds(options, convert) {
  return new Map(
    [...options].map(([key, value]) => [key, ID_OPTIONS.includes(key) ? convert(value) : value]),
  );
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function idToWire(text) {
  return UUID.test(text) ? Buffer.from(text.replaceAll('-', ''), 'hex') : text;
}

function idFromWire(id) {
  if (typeof id === 'string') return id;
  return id.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

// The library writes maps with text keys only, and options have integers for keys. So arrays, and Maps for
// what is in options, are put together here; objects stay what they are in JSON.
function pack(value) {
  if (Array.isArray(value)) return Buffer.concat([head(0x90, 0xdc, value.length), ...value.map(pack)]);
  if (value instanceof Map)
    return Buffer.concat([head(0x80, 0xde, value.size), ...[...value].flat().map(pack)]);
  // With useBigInt64, a number of more than 32 bits would become a float.
  return Buffer.from(msgpack.encode(value, { useBigInt64: typeof value === 'bigint' }));
}

function head(short, long, count) {
  if (count < 16) return Buffer.of(short | count);
  const bytes = Buffer.alloc(count < 65536 ? 3 : 5, count < 65536 ? long : long + 1);
  if (count < 65536) bytes.writeUInt16BE(count, 1);
  else bytes.writeUInt32BE(count, 1);
  return bytes;
}

const noExtensions = {
  tryToEncode: () => null,
  decode: (_, type) => {
    throw new BadFrame(`an ext type: ${type}`);
  },
};

function unpack(bytes) {
  const count = { left: VALUES_MAX };
  try {
    return tidy(msgpack.decode(bytes, { useBigInt64: true, extensionCodec: noExtensions }), count);
  } catch (error) {
    throw error instanceof BadFrame ? error : new BadFrame(error.message);
  }
}

/** What the library has decoded, with Buffers for bytes, and BigInt only for what no number holds. */
function tidy(value, count) {
  count.left -= 1;
  if (count.left < 0) throw new BadFrame('too many values');
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map((item) => tidy(item, count));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, tidy(item, count)]));
}

// The project's byte vectors (section 9): as this client writes and reads them, and as the broker refuses them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { Client } from '../client.mjs';
import { BadFrame, Reader, decode, encode, message } from '../frames.mjs';

/** The file; numbers beyond what JSON.parse reads exactly are BigInt. */
function load(path) {
  const text = readFileSync(path, 'utf8').replace(/(?<=[[ ])\d{16,}(?=[,\]}])/g, '{"big": "$&"}');
  return JSON.parse(text);
}

/** A value of the file as this client has it: {"hex": ..} is bytes, {"map": ..} a Map with integer keys. */
function value(json) {
  if (Array.isArray(json)) return json.map(value);
  if (json === null || typeof json !== 'object') return json;
  if ('big' in json) return BigInt(json.big);
  if ('hex' in json) return Buffer.from(json.hex, 'hex');
  if ('map' in json) return new Map(json.map.map(([key, item]) => [key, value(item)]));
  return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, value(item)]));
}

/** The message that a vector means. */
function meant({ command, fields }) {
  return message(
    command,
    Object.fromEntries(Object.entries(fields).map(([name, json]) => [name, value(json)])),
  );
}

/** The one message of a frame. */
function read(hex, limit) {
  const payloads = [...new Reader(limit).feed(Buffer.from(hex, 'hex'))];
  assert.equal(payloads.length, 1);
  return decode(payloads[0]);
}

export async function framesAreReadAndWrittenAsTheVectorsSay({ vectors }) {
  for (const vector of load(vectors).frames) {
    const { command, ...fields } = meant(vector);
    assert.deepEqual(read(vector.frame), { command, ...fields }, vector.title);
    assert.equal(encode(command, fields).toString('hex'), vector.frame, vector.title);
  }
}

export async function framesOfOtherWritersAreRead({ vectors }) {
  for (const vector of load(vectors).accepted)
    assert.deepEqual(read(vector.frame), meant(vector), vector.title);
}

export async function bytesThatAreNoFrameAreNotRead({ vectors }) {
  // The library replaces what is no UTF-8. The number of fields counts before WELCOME, for a broker only.
  const notSeenHere = ['str that is no UTF-8', 'a first frame of nine fields'];
  for (const { title, frame, code, limit } of load(vectors).refused) {
    if (code !== 'BAD_FRAME' || notSeenHere.includes(title)) continue;
    assert.throws(() => read(frame, limit), BadFrame, title);
  }
}

/** The refused vectors that a client can show to a broker. */
export async function brokerRefusesWhatTheVectorsSay({ url, vectors }) {
  let shown = 0;
  for (const { title, frame, code, side, state, limit } of load(vectors).refused) {
    const first = state === 'OPENING' || limit !== undefined;
    if (side === 'c' || ['GREETING', 'CLOSING', 'CLOSED'].includes(state)) continue;
    const answer = await (first ? asFirst(url, frame) : afterWelcome(url, frame));
    assert.equal(answer, code, title);
    shown += 1;
  }
  assert.ok(shown > 40);
}

async function afterWelcome(url, frame) {
  const client = await Client.connect(url);
  client.sendRaw(Buffer.from(frame, 'hex'));
  return (await client.closed).code;
}

async function asFirst(url, frame) {
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname, () => socket.write(Buffer.from(frame, 'hex')));
  const reader = new Reader();
  for await (const chunk of socket) {
    for (const payload of reader.feed(chunk)) return decode(payload).code;
  }
  return 'nothing';
}

// HELLO and WELCOME, section 3.
import assert from 'node:assert/strict';
import net from 'node:net';
import { Client } from '../client.mjs';
import { Reader, decode, encode } from '../frames.mjs';

export async function tokenIsWelcome({ url }) {
  const client = await Client.connect(url);
  const { version, features, instance, session, secret, resumed, heartbeat_ms, options } = client.welcome;
  assert.equal(version, 1);
  assert.deepEqual(features, []);
  assert.deepEqual([instance.length, session.length, secret.length], [16, 16, 32]);
  assert.equal(resumed, false);
  assert.equal(heartbeat_ms, 10000);
  assert.equal(options.get(1), 'memory');
  assert.match(options.get(3), /^\d+\.\d+\.\d+/);
  assert.equal(options.get(5), 1048576);
  await client.goodbye();
}

export async function unixSocketAsksForNoToken({ unix }) {
  const client = await Client.connect(unix);
  assert.equal(client.hello.token, null);
  await client.goodbye();
}

export async function wrongTokenIsRefused({ url, token }) {
  await assert.rejects(Client.connect(url, { token: 'x'.repeat(token.length) }), { code: 'AUTH_FAILED' });
}

export async function missingTokenIsAskedFor({ url }) {
  await assert.rejects(Client.connect(url, { token: null }), { code: 'AUTH_REQUIRED' });
}

export async function versionOfTheFutureIsRefused({ url }) {
  // The message names the broker's range: version 1.
  await assert.rejects(Client.connect(url, { versions: [1000, 1001] }), {
    code: 'VERSION_UNSUPPORTED',
    message: /\b1\b/,
  });
}

export async function highestCommonVersionIsSpoken({ url }) {
  const client = await Client.connect(url, { versions: [1, 7] });
  assert.equal(client.welcome.version, 1);
  await client.goodbye();
}

/** The first frame is cut into single bytes, and comes together with the second. */
export async function framesComeAsTheNetworkCutsThem({ url, token }) {
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname);
  socket.setNoDelay(true);
  const hello = encode('HELLO', { min_version: 1, max_version: 1, features: [], name: 'node', token });
  for (const byte of hello) socket.write(Buffer.of(byte));
  const reader = new Reader();
  const commands = [];
  for await (const chunk of socket) {
    for (const payload of reader.feed(chunk)) {
      const { command } = decode(payload);
      commands.push(command);
      if (command !== 'WELCOME') continue;
      socket.write(Buffer.concat([encode('STATS', { request: 1 }), encode('GOODBYE', { code: 'DONE' })]));
    }
  }
  assert.deepEqual(commands, ['WELCOME', 'REPORT', 'GOODBYE']);
}

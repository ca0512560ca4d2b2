// A broker that stops, section 3.
import assert from 'node:assert/strict';
import { Client } from '../client.mjs';
import { freshQueue } from '../tasks.mjs';

/** Says `consumes` when the broker may be stopped. */
export async function brokerThatStopsSaysGoodbye({ url }) {
  const worker = await Client.connect(url);
  await worker.consume([freshQueue()], 1);
  console.log('consumes');
  assert.equal((await worker.closed).code, 'SHUTDOWN');
}

// Heartbeats, section 3. These want a broker whose heartbeat_ms is short.
import assert from 'node:assert/strict';
import { Client } from '../client.mjs';
import { freshQueue, status, task } from '../tasks.mjs';

export async function heartbeatsAreOwedWhereThereIsCredit({ url }) {
  const idle = await Client.connect(url);
  const worker = await Client.connect(url);
  await worker.consume([freshQueue()], 1);
  // As long as a silent worker would have been taken for lost, and longer.
  for (let beat = 0; beat < 3; beat += 1) await worker.next('HEARTBEAT');
  assert.equal(worker.ended, null);
  assert.equal(idle.ended, null);
  assert.deepEqual(idle.come('HEARTBEAT'), []);
  await worker.goodbye();
  await idle.goodbye();
}

export async function silentWorkerIsTakenForLostAndMayComeBack({ url }) {
  const queue = freshQueue();
  const publisher = await Client.connect(url);
  const worker = await Client.connect(url);
  await publisher.publish([task(queue)]);
  await worker.consume([queue], 1);
  const { id, lease } = await worker.next('DELIVER');
  worker.fallSilent();
  const began = Date.now();
  assert.equal((await worker.closed).code, 'SLOW');
  assert.ok(Date.now() - began > 1.5 * worker.welcome.heartbeat_ms);
  assert.equal((await status(publisher, id)).stage, 'LEASED');
  const again = await Client.resume(worker);
  assert.equal(again.welcome.resumed, true);
  assert.equal((await again.takeUp([{ id, lease, state: 0 }])).kept, 1);
  await again.goodbye();
}

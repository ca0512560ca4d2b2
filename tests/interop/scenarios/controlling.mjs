// What people ask of a broker: how it is, what became of a task, call it off, run it again, forget it.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Client } from '../client.mjs';
import { OUTCOME, encodeFailure } from '../frames.mjs';
import { failureOf, freshQueue, status, task } from '../tasks.mjs';

async function working(url, credit = 10) {
  const queue = freshQueue();
  const client = await Client.connect(url, { name: 'node-both' });
  await client.consume([queue], credit);
  return { queue, client };
}

export async function statsCountTasksAndWorkers({ url }) {
  const { queue, client } = await working(url, 1);
  await client.publish([task(queue), task(queue, { options: [[2, 60_000]] }), task(queue)]);
  await client.next('DELIVER');
  const report = await client.request('STATS');
  assert.equal(report.durability, 'memory');
  assert.equal(report.instance, client.welcome.instance.toString('hex'));
  const own = report.queues.find((one) => one.name === queue);
  assert.deepEqual(
    ['ready', 'scheduled', 'leased', 'consumers', 'waiting_for'].map((key) => own[key]),
    [1, 1, 1, 1, 'no_credit'],
  );
  const worker = report.workers.find((one) => one.queues.includes(queue));
  assert.deepEqual(
    ['name', 'pid', 'concurrency', 'leased'].map((key) => worker[key]),
    ['node-both', process.pid, 1, 1],
  );
  await client.goodbye();
}

export async function historyTellsTheStoryInOrder({ url }) {
  const { queue, client } = await working(url);
  const told = task(queue);
  await client.publish([told]);
  const delivery = await client.next('DELIVER');
  client.send('STARTED', { tasks: [{ id: told.id, lease: delivery.lease }] });
  await client.complete({
    id: told.id,
    lease: delivery.lease,
    outcome: OUTCOME.SUCCESS,
    codec: 'json',
    body: Buffer.from('5'),
  });
  const report = await client.request('HISTORY', { id: told.id });
  const { id, stage, name, queue: where, worker, events } = report;
  assert.deepEqual([id, stage, name, where, worker], [told.id, 'SUCCESS', 'node.add', queue, 'node-both']);
  assert.deepEqual(
    events.map(({ event }) => event),
    ['published', 'delivered', 'started', 'ended'],
  );
  const times = events.map(({ at_ms: at }) => at);
  assert.deepEqual(times, times.toSorted());
  assert.equal(events[0].by, 'node-both');
  assert.equal(events[3].stage, 'SUCCESS');
  assert.equal(report.dropped_events, 0);
  const unknown = await client.request('HISTORY', { id: `nobody-${randomUUID()}` });
  assert.equal(unknown.stage, 'UNKNOWN');
  await client.goodbye();
}

export async function waitingTaskIsRevokedAtOnce({ url }) {
  const client = await Client.connect(url);
  const waiting = task(freshQueue());
  await client.publish([waiting]);
  assert.equal(await client.request('REVOKE', { ids: [waiting.id], terminate: false }), 1);
  assert.equal((await status(client, waiting.id)).stage, 'REVOKED');
  assert.equal(await client.request('REVOKE', { ids: [waiting.id], terminate: false }), 0);
  await client.goodbye();
}

export async function revokedBeforeItIsPublishedItNeverRuns({ url }) {
  const { queue, client } = await working(url);
  const late = task(queue);
  await client.request('REVOKE', { ids: [late.id], terminate: false });
  const { accepted, exceptions } = await client.publish([late]);
  assert.deepEqual([accepted, exceptions], [1, []]);
  assert.equal((await status(client, late.id)).stage, 'REVOKED');
  assert.deepEqual(client.come('DELIVER'), []);
  await client.goodbye();
}

export async function leasedTaskIsCancelledAndItsWorkerSaysSo({ url }) {
  const { queue, client } = await working(url);
  const [mild, hard] = [task(queue), task(queue)];
  await client.publish([mild, hard]);
  const leases = [await client.next('DELIVER'), await client.next('DELIVER')];
  await client.request('REVOKE', { ids: [mild.id], terminate: false });
  const { id, lease, signal } = await client.next('CANCEL');
  assert.deepEqual([id, lease, signal], [mild.id, leases[0].lease, null]);
  await client.request('REVOKE', { ids: [hard.id], terminate: true, signal: 9 });
  assert.equal((await client.next('CANCEL')).signal, 9);
  assert.equal((await status(client, mild.id)).stage, 'LEASED');
  const body = encodeFailure(failureOf(leases[0], new Error('called off'), 'revoked'));
  await client.complete(
    ...leases.map(({ id, lease }) => ({ id, lease, outcome: OUTCOME.REVOKED, codec: 'failure', body })),
  );
  assert.equal((await status(client, mild.id)).stage, 'REVOKED');
  assert.equal((await status(client, hard.id)).stage, 'REVOKED');
  await client.goodbye();
}

export async function deadLetterIsListedRunAgainAndForgotten({ url }) {
  const { queue, client } = await working(url);
  const letter = task(queue);
  await client.publish([letter]);
  const delivery = await client.next('DELIVER');
  const body = encodeFailure(failureOf(delivery, new Error('no such argument'), 'rejected'));
  await client.complete({
    id: letter.id,
    lease: delivery.lease,
    outcome: OUTCOME.REJECT,
    codec: 'failure',
    body,
  });
  const listed = await findDead(client, letter.id);
  assert.deepEqual(
    ['name', 'queue', 'attempts', 'worker'].map((key) => listed[key]),
    ['node.add', queue, 0, 'node-both'],
  );
  assert.equal(await client.request('RERUN', { ids: [letter.id] }), 1);
  const again = await client.next('DELIVER');
  assert.deepEqual([again.id, again.redelivered, again.retries], [letter.id, false, 0]);
  await client.complete({
    id: letter.id,
    lease: again.lease,
    outcome: OUTCOME.SUCCESS,
    codec: 'json',
    body: Buffer.from('5'),
  });
  assert.equal(await client.request('RERUN', { ids: [letter.id] }), 0);
  assert.equal(await client.request('FORGET', { ids: [letter.id, `nobody-${randomUUID()}`] }), 1);
  assert.equal((await status(client, letter.id)).stage, 'EVICTED');
  assert.equal((await client.publish([letter])).exceptions[0].code, 'DUPLICATE');
  await client.goodbye();
}

/** Looks through all pages of LIST. */
async function findDead(client, id) {
  for (let cursor = null; ;) {
    const page = await client.request('LIST', { kind: 'dead', cursor, limit: 1 });
    const found = page.tasks.find((letter) => letter.id === id);
    if (found) return found;
    cursor = page.cursor;
    assert.ok(cursor !== null, 'the letter is not listed');
  }
}

export async function purgeRevokesWhatIsReadyAndScheduled({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const tasks = [task(queue), task(queue, { options: [[2, 60_000]] })];
  await client.publish(tasks);
  assert.equal(await client.request('PURGE', { queues: [queue] }), 2);
  assert.equal((await status(client, tasks[1].id)).stage, 'REVOKED');
  await client.goodbye();
}

export async function laterCommandIsRefusedAndTheConnectionGoesOn({ url }) {
  const client = await Client.connect(url);
  await assert.rejects(client.request('GROW', { id: 'order-17', inputs: 2 }), { code: 'NOT_IMPLEMENTED' });
  await assert.rejects(client.request('LIST', { kind: 'workers', limit: 10 }), { code: 'NOT_IMPLEMENTED' });
  await assert.rejects(client.request('LIST', { kind: 'nonsense', limit: 10 }), { code: 'BAD_TASK' });
  await client.request('STATS');
  await client.goodbye();
}

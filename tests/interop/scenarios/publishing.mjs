// PUBLISH and CONFIRM, WATCH and QUERY.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Client } from '../client.mjs';
import { freshQueue, status, task } from '../tasks.mjs';

export async function batchIsConfirmed({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const tasks = [
    task(queue),
    task(queue, { id: `order-${randomUUID()}` }),
    task(queue, { id: `größe-${randomUUID()}` }),
  ];
  assert.deepEqual(await client.publish(tasks), { frames: 1, accepted: 3, exceptions: [] });
  const rows = await client.request('QUERY', { ids: tasks.map(({ id }) => id) });
  assert.deepEqual(
    rows.map(({ id }) => id),
    tasks.map(({ id }) => id),
  );
  for (const { stage, codec, body, info } of rows) {
    assert.equal(stage, 3);
    assert.deepEqual([codec, body], [null, null]);
    assert.deepEqual([info.get(1), info.get(3), info.get(9)], ['node.add', queue, 'no_consumer']);
  }
  await client.goodbye();
}

export async function duplicateMakesNothingAndCountsAsAccepted({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const first = task(queue);
  await client.publish([first]);
  const { accepted, exceptions } = await client.publish([task(queue), first]);
  assert.equal(accepted, 2);
  assert.deepEqual(
    exceptions.map(({ index, code }) => [index, code]),
    [[1, 'DUPLICATE']],
  );
  await client.goodbye();
}

export async function rowIsRefusedAndItsNeighboursAreNot({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const largest = client.welcome.options.get(5);
  const tasks = [
    task(queue),
    task(queue, {
      options: [
        [2, 1000],
        [4, Date.now() + 1000],
      ],
    }),
    task(queue, { body: Buffer.alloc(largest + 1) }),
    task(queue, { body: Buffer.alloc(largest) }),
  ];
  const { accepted, exceptions } = await client.publish(tasks);
  assert.equal(accepted, 2);
  assert.deepEqual(
    exceptions.map(({ index, code }) => [index, code]),
    [
      [1, 'BAD_TASK'],
      [2, 'BODY_TOO_LARGE'],
    ],
  );
  assert.equal((await status(client, tasks[1].id)).stage, 'UNKNOWN');
  await client.goodbye();
}

export async function batchBeyondOneFrameIsSplit({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const large = { body: Buffer.alloc(100_000) };
  const tasks = Array.from({ length: 5 }, () => task(queue, large));
  assert.deepEqual(await client.publish(tasks), { frames: 3, accepted: 5, exceptions: [] });
  await client.goodbye();
}

export async function oddOptionIsKeptAndEvenOneEndsTheConnection({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  await client.publish([task(queue, { options: [[101, ['kept', { y: null }]]] })]);
  await client.consume([queue], 1);
  const { options } = await client.next('DELIVER');
  assert.deepEqual(options.get(101), ['kept', { y: null }]);
  await assert.rejects(client.publish([task(queue, { options: [[102, true]] })]), { code: 'UNKNOWN_OPTION' });
}

export async function delayedTaskIsScheduledAndThenQueued({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const soon = task(queue, { options: [[2, 200]] });
  const later = task(queue, { options: [[4, Date.now() + 3_600_000]] });
  await client.publish([soon, later]);
  const { stage, info } = await status(client, later.id);
  assert.equal(stage, 'SCHEDULED');
  assert.ok(info.get(11) > 3_500_000 && info.get(11) <= 3_600_000, `due in ${info.get(11)} ms`);
  await client.consume([queue], 2);
  assert.equal((await client.next('DELIVER')).id, soon.id);
  assert.deepEqual(client.come('DELIVER'), []);
  await client.goodbye();
}

export async function expiredTaskIsPushedToWhoWatchesIt({ url }) {
  const client = await Client.connect(url);
  const short = task(freshQueue(), { options: [[6, 50]] });
  await client.publish([short]);
  const [{ stage }] = await client.request('WATCH', { ids: [short.id] });
  assert.ok(stage === 3 || stage === 11);
  const { id, stage: final } = await client.next('RESULT');
  assert.deepEqual([id, final], [short.id, 11]);
  await client.goodbye();
}

export async function unwatchedTaskIsNotPushed({ url }) {
  const client = await Client.connect(url);
  const queue = freshQueue();
  const [dropped, kept] = [task(queue), task(queue)];
  await client.publish([dropped, kept]);
  await client.request('WATCH', { ids: [dropped.id, kept.id, `nobody-${randomUUID()}`] });
  client.send('UNWATCH', { ids: [dropped.id] });
  await client.request('REVOKE', { ids: [dropped.id], terminate: false });
  await client.request('REVOKE', { ids: [kept.id], terminate: false });
  assert.equal((await client.next('RESULT')).id, kept.id);
  assert.deepEqual(client.come('RESULT'), []);
  await client.goodbye();
}

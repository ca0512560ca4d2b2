// SUBSCRIBE, CREDIT, DELIVER, STARTED and COMPLETE with each outcome.
import assert from 'node:assert/strict';
import { Client } from '../client.mjs';
import { OUTCOME, VERDICT, decodeFailure, encodeFailure } from '../frames.mjs';
import { failureOf, freshQueue, jsonBody, status, task } from '../tasks.mjs';

/** A publisher and a worker on one connection each, and the first delivery of a task with these fields. */
async function delivered(url, fields) {
  const queue = freshQueue();
  const [publisher, worker] = [await Client.connect(url), await Client.connect(url, { name: 'node-worker' })];
  const published = task(queue, fields);
  await publisher.publish([published]);
  await worker.consume([queue], 10);
  return { queue, publisher, worker, published, delivery: await worker.next('DELIVER') };
}

const row = ({ id, lease }, outcome, fields = {}) => ({ id, lease, outcome, ...fields });

export async function successReachesWhoWatches({ url }) {
  const { queue, publisher, worker, published, delivery } = await delivered(url, {
    priority: 4,
    headers: Buffer.from('{"lang":"de"}'),
  });
  assert.equal(delivery.id, published.id);
  assert.deepEqual([delivery.redelivered, delivery.attempts, delivery.retries], [false, 0, 0]);
  assert.deepEqual([delivery.name, delivery.queue, delivery.priority], ['node.add', queue, 4]);
  assert.deepEqual([delivery.codec, delivery.body, delivery.inputs], ['json', published.body, null]);
  assert.equal(delivery.headers.toString(), '{"lang":"de"}');
  await publisher.request('WATCH', { ids: [published.id] });
  const [[x, y]] = JSON.parse(delivery.body);
  const body = Buffer.from(JSON.stringify(x + y));
  assert.deepEqual(await worker.complete(row(delivery, OUTCOME.SUCCESS, { codec: 'json', body })), []);
  const result = await publisher.next('RESULT');
  assert.deepEqual([result.id, result.stage, result.codec], [published.id, 7, 'json']);
  assert.equal(JSON.parse(result.body), 5);
  assert.equal((await status(publisher, published.id)).info.get(15), 'node-worker');
}

export async function failureKeepsItsRecord({ url }) {
  const { publisher, worker, published, delivery } = await delivered(url);
  const record = failureOf(delivery, new RangeError('too much'));
  await worker.complete(row(delivery, OUTCOME.FAILURE, { codec: 'failure', body: encodeFailure(record) }));
  const { stage, codec, body } = await status(publisher, published.id);
  assert.deepEqual([stage, codec], ['FAILURE', 'failure']);
  assert.deepEqual(decodeFailure(body), record);
  const { error } = await publisher.request('HISTORY', { id: published.id });
  assert.deepEqual(error, { kind: 'exception', type: 'node.RangeError', message: 'too much' });
}

export async function retryComesBackAfterItsDelayWithWhatIsNew({ url }) {
  const { publisher, worker, published, delivery } = await delivered(url, { headers: Buffer.from('{}') });
  const body = encodeFailure(failureOf(delivery, new Error('not yet'), 'retry'));
  const options = new Map([
    [2, 300],
    [38, 7],
    [40, [null, 'json', jsonBody([4, 5])]],
  ]);
  await worker.complete(row(delivery, OUTCOME.RETRY, { codec: 'failure', body, options }));
  const { stage, info } = await status(publisher, published.id);
  assert.equal(stage, 'RETRY');
  assert.equal(info.get(7), 1);
  const again = await worker.next('DELIVER');
  assert.deepEqual([again.id, again.retries, again.attempts, again.redelivered], [published.id, 1, 0, false]);
  assert.ok(again.lease > delivery.lease);
  assert.equal(again.priority, 7);
  assert.deepEqual(JSON.parse(again.body), [[4, 5], {}]);
  assert.equal(again.headers, null);
}

export async function retryWithoutNewBodyKeepsHeadersAndQueue({ url }) {
  const { worker, published, delivery, queue } = await delivered(url, { headers: Buffer.from('{}') });
  const body = encodeFailure(failureOf(delivery, new Error('not yet'), 'retry'));
  await worker.complete(row(delivery, OUTCOME.RETRY, { codec: 'failure', body }));
  const again = await worker.next('DELIVER');
  assert.deepEqual([again.headers, again.body, again.queue], [Buffer.from('{}'), published.body, queue]);
}

export async function creditIsCumulativeAndPriorityGoesFirst({ url }) {
  const queue = freshQueue();
  const client = await Client.connect(url);
  const tasks = [0, 0, 9, 5].map((priority) => task(queue, { priority }));
  await client.publish(tasks);
  await client.consume([queue], 2);
  const first = [await client.next('DELIVER'), await client.next('DELIVER')];
  assert.deepEqual(
    first.map(({ priority }) => priority),
    [9, 5],
  );
  await client.request('STATS');
  assert.deepEqual(client.come('DELIVER'), [], 'two were allowed');
  client.credit(2);
  await client.request('STATS');
  assert.deepEqual(client.come('DELIVER'), [], 'still two in all');
  client.credit(3);
  assert.equal((await client.next('DELIVER')).id, tasks[0].id);
}

export async function onlyKnownTaskNamesAreDelivered({ url }) {
  const queue = freshQueue();
  const client = await Client.connect(url);
  const [strange, known] = [task(queue, { name: 'python.only' }), task(queue, { name: 'node.known' })];
  await client.publish([strange, known]);
  await client.consume([queue], 10, ['node.known']);
  assert.equal((await client.next('DELIVER')).id, known.id);
  assert.equal((await status(client, strange.id)).info.get(9), 'unknown_task');
}

export async function completeOfAnOldLeaseIsStale({ url }) {
  const { worker, delivery } = await delivered(url);
  await worker.complete(row(delivery, OUTCOME.RELEASE, { body: Buffer.from('not now') }));
  const again = await worker.next('DELIVER');
  assert.deepEqual([again.id, again.redelivered, again.attempts], [delivery.id, false, 0]);
  const verdicts = await worker.complete(row(delivery, OUTCOME.SUCCESS), row(again, OUTCOME.SUCCESS));
  assert.deepEqual(verdicts, [{ index: 0, verdict: VERDICT.STALE }]);
}

export async function lostAttemptsAreChargedUntilTheLetterIsDead({ url }) {
  const { publisher, worker, published, delivery } = await delivered(url, { options: [[16, 2]] });
  const body = Buffer.from('killed by SIGKILL');
  await worker.complete(row(delivery, OUTCOME.LOST, { body }));
  const again = await worker.next('DELIVER');
  assert.deepEqual([again.attempts, again.redelivered], [1, true]);
  await worker.complete(row(again, OUTCOME.LOST, { body }));
  const { stage, codec, body: why } = await status(publisher, published.id);
  assert.deepEqual([stage, codec], ['DEAD', 'failure']);
  assert.equal(decodeFailure(why).kind, 'lost');
}

export async function rejectedTaskIsDeadOrGoesToTheEnd({ url }) {
  const { publisher, worker, published, delivery } = await delivered(url);
  const body = encodeFailure(failureOf(delivery, new Error('no such argument'), 'rejected'));
  await worker.complete(
    row(delivery, OUTCOME.REJECT, { codec: 'failure', body, options: new Map([[2, true]]) }),
  );
  const again = await worker.next('DELIVER');
  assert.deepEqual([again.redelivered, again.attempts], [true, 0]);
  await worker.complete(row(again, OUTCOME.REJECT, { codec: 'failure', body }));
  assert.equal((await status(publisher, published.id)).stage, 'DEAD');
}

export async function earlyClaimIsDurableBeforeItsTaskBegins({ url }) {
  const { publisher, worker, published, delivery } = await delivered(url, { options: [[12, true]] });
  assert.equal(delivery.options.get(12), true);
  const { id, lease } = delivery;
  const claims = [
    { id, lease, early: true },
    { id, lease: lease + 1, early: true },
  ];
  assert.equal(await worker.request('STARTED', { tasks: claims }), 1);
  assert.deepEqual(worker.come('CANCEL'), [{ id, lease: lease + 1, signal: null }]);
  assert.equal((await status(publisher, published.id)).stage, 'STARTED');
  await worker.complete(row(delivery, OUTCOME.LOST, { body: Buffer.from('killed by SIGKILL') }));
  assert.equal((await status(publisher, published.id)).stage, 'FAILURE');
}

export async function goodbyeGivesLeasesBackAtOnce({ url }) {
  const { queue, worker, delivery } = await delivered(url);
  await worker.goodbye('SHUTDOWN');
  const next = await Client.connect(url);
  await next.consume([queue], 1);
  assert.equal((await next.next('DELIVER')).id, delivery.id);
}

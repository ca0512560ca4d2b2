// A session outlives its connection: RESUME, section 3.
import assert from 'node:assert/strict';
import { Client } from '../client.mjs';
import { OUTCOME, VERDICT } from '../frames.mjs';
import { freshQueue, status, task } from '../tasks.mjs';

/** A worker with `count` leases, and somebody who looks on. */
async function leasing(url, count) {
  const queue = freshQueue();
  const observer = await Client.connect(url);
  const worker = await Client.connect(url, { name: 'node-worker' });
  await observer.publish(Array.from({ length: count }, () => task(queue)));
  await worker.consume([queue], count);
  const leases = [];
  for (let index = 0; index < count; index += 1) leases.push(await worker.next('DELIVER'));
  return { queue, observer, worker, leases };
}

const success = ({ id, lease }) => ({
  id,
  lease,
  outcome: OUTCOME.SUCCESS,
  codec: 'json',
  body: Buffer.from('5'),
});
const held = ({ id, lease }, state) => ({ id, lease, state });

export async function leasesThatTheInventoryNamesAreKept({ url }) {
  const { queue, observer, worker, leases } = await leasing(url, 3);
  const [claimed, unstarted, unnamed] = leases;
  await worker.cut();
  const again = await Client.resume(worker);
  assert.equal(again.welcome.resumed, true);
  assert.deepEqual(
    [again.welcome.session, again.welcome.secret, again.welcome.instance],
    [worker.welcome.session, worker.welcome.secret, worker.welcome.instance],
  );
  const never = { id: 'order-17', lease: 1, state: 1 };
  const { kept } = await again.takeUp([held(claimed, 1), held(unstarted, 0), never]);
  assert.equal(kept, 2);
  const stages = await Promise.all(leases.map(async ({ id }) => (await status(observer, id)).stage));
  assert.deepEqual(stages, ['STARTED', 'LEASED', 'QUEUED']);
  await again.consume([queue], 1);
  const redelivered = await again.next('DELIVER');
  assert.deepEqual([redelivered.id, redelivered.redelivered, redelivered.attempts], [unnamed.id, false, 0]);
  const verdicts = await again.complete(...[claimed, unstarted, unnamed, redelivered].map(success));
  assert.deepEqual(verdicts, [{ index: 2, verdict: VERDICT.STALE }]);
  assert.equal((await status(observer, unnamed.id)).stage, 'SUCCESS');
  await again.goodbye();
}

export async function completeThatWasLostIsAppliedWhenItIsResent({ url }) {
  const {
    observer,
    worker,
    leases: [lease],
  } = await leasing(url, 1);
  await worker.cut();
  // The broker has not seen it: the connection was gone.
  worker.sequence = 1;
  worker.unanswered.set(1, [success(lease)]);
  const again = await Client.resume(worker);
  const { kept, verdicts } = await again.takeUp([held(lease, 1)]);
  assert.deepEqual([kept, verdicts], [1, new Map([[1, []]])]);
  assert.equal((await status(observer, lease.id)).stage, 'SUCCESS');
  await again.goodbye();
}

export async function completeWhoseAnswerWasLostIsADuplicate({ url }) {
  const { observer, worker, leases } = await leasing(url, 2);
  await worker.complete(success(leases[0]));
  await worker.cut();
  // As if COMPLETED had been on its way when the connection was cut.
  worker.unanswered.set(1, [success(leases[0])]);
  const again = await Client.resume(worker);
  const { kept, verdicts } = await again.takeUp(leases.map((lease) => held(lease, 1)));
  assert.equal(kept, 1);
  assert.deepEqual(verdicts.get(1), [{ index: 0, verdict: VERDICT.DUPLICATE }]);
  assert.deepEqual(await again.complete(success(leases[1])), []);
  assert.equal(again.sequence, 2);
  assert.equal((await status(observer, leases[0].id)).stage, 'SUCCESS');
  await again.goodbye();
}

export async function inventoryMayComeInParts({ url }) {
  const { worker, leases } = await leasing(url, 2);
  await worker.cut();
  const again = await Client.resume(worker);
  again.send('RESUME', { request: 1000, inventory: [held(leases[0], 0)], sequence: 0, more: true });
  assert.equal((await again.takeUp([held(leases[1], 0)])).kept, 2);
  await again.goodbye();
}

export async function nothingComesBeforeTheInventory({ url }) {
  const { queue, worker } = await leasing(url, 1);
  await worker.cut();
  const again = await Client.resume(worker);
  await assert.rejects(again.consume([queue], 1), { code: 'BAD_STATE' });
}

export async function openConnectionLosesItsSessionToTheNewerOne({ url }) {
  const {
    worker,
    leases: [lease],
  } = await leasing(url, 1);
  const again = await Client.resume(worker);
  assert.equal(again.welcome.resumed, true);
  assert.equal((await worker.closed).code, 'BAD_STATE');
  assert.equal((await again.takeUp([held(lease, 0)])).kept, 1);
  await again.goodbye();
}

export async function lateHelloDoesNotTakeTheSessionBack({ url }) {
  const {
    worker,
    leases: [lease],
  } = await leasing(url, 1);
  const again = await Client.resume(worker, { attempt: 5 });
  await assert.rejects(Client.resume(worker, { attempt: 5 }), { code: 'BAD_STATE' });
  assert.equal((await again.takeUp([held(lease, 0)])).kept, 1);
  await again.goodbye();
}

export async function wrongSecretGetsASessionOfItsOwn({ url }) {
  const { worker } = await leasing(url, 1);
  worker.welcome.secret = Buffer.alloc(32);
  const stranger = await Client.resume(worker);
  assert.equal(stranger.welcome.resumed, false);
  assert.notDeepEqual(stranger.welcome.session, worker.welcome.session);
  assert.equal(worker.ended, null);
  await assert.rejects(stranger.takeUp([]), { code: 'BAD_STATE' });
}

export async function sessionThatNeverConsumedIsNotKept({ url }) {
  const client = await Client.connect(url);
  await client.cut();
  assert.equal((await Client.resume(client)).welcome.resumed, false);
}

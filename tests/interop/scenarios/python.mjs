// Tasks that Node runs for Python, and Python for Node.
import assert from 'node:assert/strict';
import { Client } from '../client.mjs';
import { OUTCOME, decodeFailure, encodeFailure } from '../frames.mjs';
import { failureOf, task } from '../tasks.mjs';

class Again extends Error {}

class Unpayable extends Error {
  constructor(message) {
    super(message);
    this.name = new.target.name;
    // So that the stack names it, too.
    Error.captureStackTrace(this, new.target);
  }
}

/** A worker's tasks. What they throw is a failure, but for Again. */
const tasks = {
  'node.join': ([separator], { words }) => words.join(separator),
  'node.fail': ([reason]) => {
    throw new Unpayable(reason);
  },
  'node.flaky': ([reason], _, retries) => {
    if (retries < 2) throw new Again(reason);
    return retries;
  },
};

function completion(delivery) {
  const { id, lease, name, body, retries } = delivery;
  const [args, kwargs] = JSON.parse(body);
  try {
    const value = tasks[name](args, kwargs, retries);
    return { id, lease, outcome: OUTCOME.SUCCESS, codec: 'json', body: Buffer.from(JSON.stringify(value)) };
  } catch (error) {
    if (error instanceof Again) {
      const record = encodeFailure(failureOf(delivery, error, 'retry'));
      return {
        id,
        lease,
        outcome: OUTCOME.RETRY,
        codec: 'failure',
        body: record,
        options: new Map([[2, 50]]),
      };
    }
    return {
      id,
      lease,
      outcome: OUTCOME.FAILURE,
      codec: 'failure',
      body: encodeFailure(failureOf(delivery, error)),
    };
  }
}

/** Serves the queue `node` until each of its tasks has ended once. */
export async function servePython({ url }) {
  const worker = await Client.connect(url, { name: 'node-worker' });
  await worker.consume(['node'], 1, Object.keys(tasks));
  const left = new Set(Object.keys(tasks));
  for (let taken = 1; left.size > 0; taken += 1) {
    const delivery = await worker.next('DELIVER');
    const row = completion(delivery);
    assert.deepEqual(await worker.complete(row), []);
    if (row.outcome !== OUTCOME.RETRY) left.delete(delivery.name);
    worker.credit(taken + 1);
  }
  await worker.goodbye('SHUTDOWN');
}

/** Has a Python worker run tasks of tests/e2e/tasks.py from the queue `python`, and waits for all results. */
export async function askPython({ url }) {
  const client = await Client.connect(url);
  const add = task('python', { name: 'tests.e2e.tasks.add', args: [2], kwargs: { y: 3 } });
  const echo = task('python', { name: 'tests.e2e.tasks.echo', args: [{ größe: [1.5, null, 'ß'] }] });
  const fail = task('python', { name: 'tests.e2e.tasks.fail', args: ['no money'] });
  const types = task('python', { name: 'tests.e2e.tasks.types', args: [] });
  await client.publish([add, echo, fail, types]);
  const ids = [add, echo, fail, types].map(({ id }) => id);
  const rows = new Map((await client.request('WATCH', { ids })).map((row) => [row.id, row]));
  const isFinal = ({ stage }) => stage >= 7;
  while (![...rows.values()].every(isFinal)) {
    const row = await client.next('RESULT');
    rows.set(row.id, row);
  }
  const of = ({ id }) => rows.get(id);
  assert.deepEqual([of(add).stage, of(add).codec, JSON.parse(of(add).body)], [7, 'json', 5]);
  assert.deepEqual(JSON.parse(of(echo).body), { größe: [1.5, null, 'ß'] });
  assert.deepEqual([of(fail).stage, of(fail).codec], [8, 'failure']);
  const { day, raw } = JSON.parse(of(types).body);
  assert.deepEqual(day, { __type__: 'date', __value__: '2026-01-02' });
  assert.deepEqual(Buffer.from(raw.__value__, 'base64'), Buffer.of(0x00, 0xff));
  const record = decodeFailure(of(fail).body);
  assert.deepEqual([record.kind, record.type], ['exception', 'tests.e2e.tasks.Unpayable']);
  assert.deepEqual([record.task_id, record.task_name], [fail.id, 'tests.e2e.tasks.fail']);
  assert.deepEqual([record.args_codec, JSON.parse(record.args)], ['json', ['no money', 42]]);
  assert.match(record.traceback, /Unpayable/);
  await client.goodbye();
}

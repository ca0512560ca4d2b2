// What scenarios publish, and how they see that it has come.
import { randomUUID } from 'node:crypto';
import { STAGES } from './frames.mjs';

/** A queue that no other scenario knows. */
export const freshQueue = () => `node-${randomUUID()}`;

/** A body in the codec `json`. */
export const jsonBody = (args, kwargs = {}) => Buffer.from(JSON.stringify([args, kwargs]));

/** A task row. `options` is a list of pairs, for their keys are integers. */
export function task(
  queue,
  { id = randomUUID(), name = 'node.add', args = [2, 3], kwargs = {}, options = null, ...more } = {},
) {
  return {
    id,
    name,
    queue,
    priority: 0,
    options: options && new Map(options),
    codec: 'json',
    body: jsonBody(args, kwargs),
    ...more,
  };
}

/** The stage's name and the info of one task, as QUERY tells them. */
export async function status(client, id) {
  const [{ stage, ...row }] = await client.request('QUERY', { ids: [id] });
  return { ...row, stage: STAGES[stage] };
}

/** A failure record for a delivered task (section 5). */
export function failureOf({ id, name }, error, kind = 'exception') {
  return {
    kind,
    type: `node.${error.name}`,
    message: error.message,
    traceback: error.stack,
    task_id: id,
    task_name: name,
    args_codec: 'json',
    args: Buffer.from(JSON.stringify([error.message])),
  };
}

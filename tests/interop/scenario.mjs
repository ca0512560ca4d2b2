// Runs one scenario: `node scenario.mjs NAME`, with the broker in CHERVIL_INTEROP as JSON
// { url, unix, token }. Ends with 0 if all that the scenario asserts holds.
import * as consuming from './scenarios/consuming.mjs';
import * as controlling from './scenarios/controlling.mjs';
import * as greeting from './scenarios/greeting.mjs';
import * as python from './scenarios/python.mjs';
import * as publishing from './scenarios/publishing.mjs';
import * as resuming from './scenarios/resuming.mjs';
import * as silence from './scenarios/silence.mjs';
import * as stopping from './scenarios/stopping.mjs';
import * as vectors from './scenarios/vectors.mjs';

const scenarios = {
  ...consuming,
  ...controlling,
  ...greeting,
  ...python,
  ...publishing,
  ...resuming,
  ...silence,
  ...stopping,
  ...vectors,
};
const name = process.argv[2];
await scenarios[name](JSON.parse(process.env.CHERVIL_INTEROP));
console.log(`${name}: done`);
process.exit(0);

/** An agent that asks: `node asker.js agent-b one two three`. It makes friends first, if that is needed. */

import { Pilot, PilotError } from 'pilot-agents';

const [target = 'agent-b', ...words] = process.argv.slice(2);
const pilot = await Pilot.connect();
try {
  const { nodeId } = await pilot.resolve(target);
  if (!(await pilot.trusted()).some((node) => node.nodeId === nodeId)) {
    await pilot.handshake(nodeId, 'I have work for you');
    const { state } = await pilot.waitTrust(nodeId, { timeoutMs: 60_000 });
    if (state !== 'trusted') throw new PilotError('not_trusted', `${target} says: ${state}`);
  }
  const answer = await pilot.request(nodeId, words.join(' '), {
    deadlineMs: 30_000,
    onProgress: (word) => {
      console.error(word);
    },
  });
  process.stdout.write(answer.text());
} catch (error) {
  if (!(error instanceof PilotError)) throw error;
  console.error(`${error.code}: ${error.message}${error.hint === undefined ? '' : ` (${error.hint})`}`);
  process.exitCode = error.retryable ? 3 : 1;
} finally {
  await pilot.close();
}

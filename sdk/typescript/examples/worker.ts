/** An agent that works: answers requests with pieces and progress, until Ctrl-C. `asker.ts` asks it. */

import { Pilot } from 'pilot-agents';

const pilot = await Pilot.connect();
const server = await pilot.serve(async (request) => {
  const words = request.text().split(/\s+/).filter((word) => word !== '');
  for (const [at, word] of words.entries()) {
    // Not wanted any more: taken back, over time, or answered by somebody else.
    if (request.signal.aborted) return;
    await request.progress(`${String(at + 1)} of ${String(words.length)}`);
    await request.part(`${word.toUpperCase()}\n`);
  }
});
console.log(`${pilot.hostname} works at ${pilot.address}`);

process.once('SIGINT', () => {
  void server.close().then(() => pilot.close());
});
await server.closed;

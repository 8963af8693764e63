/** Requests and those who answer them, between two real daemons. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import { PilotError, type Pilot, type RequestEvent } from '../src/index.js';
import { pattern, until, World, type Agent } from './world.js';

let world: World;
let a: Agent;
let b: Agent;
let alice: Pilot;
let bob: Pilot;

before(async () => {
  world = await World.start();
  ({ a, b, alice, bob } = await world.friends());
});
after(() => world.stop());

test('a request is answered by a handler', async () => {
  const server = await bob.serve((request) => ({ said: request.text(), by: request.from }));
  const answer = await alice.request('agent-b', 'add 2 and 2');
  assert.deepEqual(answer.json(), { said: 'add 2 and 2', by: alice.address });
  assert.equal(answer.outcome, 'done');
  assert.equal(answer.mail.from, bob.address);
  await server.close();
  await server.closed;
});

test('what a handler throws is the reason of the failure', async () => {
  const server = await bob.serve((request) => {
    if (request.text() === 'decline') return request.decline('I do not do such things').then(() => undefined);
    throw new Error('out of paper');
  });
  await assert.rejects(alice.request('agent-b', 'print'), { code: 'failed', message: 'out of paper' });
  await assert.rejects(alice.request('agent-b', 'decline'), { code: 'refused', message: 'I do not do such things' });
  await server.close();
});

test('pieces and progress come before the answer, each byte once', async () => {
  const server = await bob.serve(async (request) => {
    assert.equal(request.wantsParts, true);
    await request.progress('half done');
    await request.part('one ');
    await request.part('two');
  });
  const heard: string[] = [];
  const answer = await alice.request('agent-b', 'count', {
    onProgress: (word) => heard.push(word),
    onPart: (part) => heard.push(part.toString()),
  });
  assert.equal(answer.text(), 'one two');
  assert.equal(heard.filter((word) => word !== 'half done').join(''), 'one two');
  assert.ok(heard.includes('half done'));

  const events: RequestEvent['type'][] = [];
  let given = '';
  for await (const event of alice.request('agent-b', 'again', { parts: true })) {
    events.push(event.type);
    if (event.type === 'part') given += event.data.toString();
    if (event.type === 'done') assert.equal(event.response.text(), given);
  }
  assert.equal(events.at(-1), 'done');
  await server.close();
});

test('requests are taken and answered one by one', async () => {
  const server = await bob.serve({ from: 'agent-a' });
  const asked = ['x', 'y', 'z'].map((word) => alice.request('agent-b', word).then((answer) => answer.text()));
  let count = 0;
  for await (const request of server) {
    await request.answer(`${request.text()}!`);
    await assert.rejects(request.answer('twice'), { code: 'invalid_argument' });
    count += 1;
    if (count === 3) break;
  }
  assert.deepEqual(await Promise.all(asked), ['x!', 'y!', 'z!']);
  const stop = new AbortController();
  const next = server.next({ signal: stop.signal });
  stop.abort();
  await assert.rejects(next, { code: 'cancelled' });
  await server.close();
  await assert.rejects(server.next(), { code: 'closed' });
});

test('a request that is given back is taken by another program', async () => {
  const first = await bob.serve();
  const asking = alice.request('agent-b', 'who?');
  const request = await first.next();
  await request.release();
  const again = await first.next();
  assert.equal(again.id, request.id);
  // Closing the server gives back what it holds.
  await first.close();
  const second = await bob.serve(() => 'me');
  assert.equal((await asking).text(), 'me');
  await second.close();
});

test('an abort is a cancel for whoever works at it', async () => {
  let withdrawal: unknown;
  const server = await bob.serve(async (request) => {
    await once(request.signal, 'abort');
    withdrawal = request.withdrawal;
  });
  const stop = new AbortController();
  const asking = alice.request('agent-b', 'take your time', { signal: stop.signal });
  await asking.accepted;
  await alice.outboxWait(asking.id, 'read', { timeoutMs: 20_000 });
  const rejected = assert.rejects(asking, { code: 'cancelled' });
  stop.abort();
  await rejected;
  await until(() => withdrawal === 'cancelled');
  await server.close();
});

test('a cancel without giving up brings the outcome', async () => {
  const server = await bob.serve();
  const asking = alice.request('agent-b', 'never mind');
  const request = await server.next();
  await asking.cancel();
  await once(request.signal, 'abort');
  await assert.rejects(asking, { code: 'cancelled' });
  await assert.rejects(request.answer('too late'), { code: 'cancelled' });
  await server.close();
});

test('a deadline ends the waiting on both sides', async () => {
  const server = await bob.serve();
  const asking = alice.request('agent-b', 'slow', { deadlineMs: 1_000 });
  const rejected = assert.rejects(asking, (error: PilotError) => error.code === 'timeout' && error.retryable);
  const request = await server.next();
  assert.ok(request.deadline.getTime() - Date.now() <= 1_000);
  await once(request.signal, 'abort');
  assert.equal(request.withdrawal, 'deadline');
  await rejected;
  await server.close();
  await assert.rejects(alice.request('agent-b', 'nobody works', { deadlineMs: 300 }), {
    code: 'timeout',
    message: /in its inbox, and nobody has taken it|on its way/,
  });
});

test('one key is carried out once', async () => {
  let runs = 0;
  const server = await bob.serve((request) => (request.text() === 'pay' ? `run ${String((runs += 1))}` : 'no'));
  const [first, second] = [
    await alice.request('agent-b', 'pay', { key: 'invoice-7' }),
    await alice.request('agent-b', 'pay', { key: 'invoice-7' }),
  ];
  assert.deepEqual([first.text(), second.text(), runs], ['run 1', 'run 1', 1]);
  await server.close();
});

test('large requests and answers are exact', async () => {
  const bytes = pattern(3_000_000);
  const server = await bob.serve((request) => Buffer.from(request.data).reverse());
  const answer = await alice.request('agent-b', bytes);
  assert.ok(Buffer.from(answer.data).reverse().equals(bytes));
  await server.close();
});

test('no more requests are worked at than allowed', async () => {
  let [now, most] = [0, 0];
  const server = await bob.serve(
    async () => {
      now += 1;
      most = Math.max(most, now);
      await bob.info();
      now -= 1;
      return 'ok';
    },
    { concurrency: 2 },
  );
  await Promise.all(Array.from({ length: 12 }, () => alice.request('agent-b', 'go')));
  assert.ok(most <= 2);
  await server.close();
});

test('a request and its work outlive both daemons', async () => {
  const server = await bob.serve();
  const asking = alice.request('agent-b', 'long job', { deadlineMs: 120_000 });
  const request = await server.next();
  await Promise.all([a.kill(), b.kill()]);
  const waiting = asking.then((answer) => answer.text());
  await Promise.all([a.start(), b.start()]);
  await request.answer('done all the same');
  assert.equal(await waiting, 'done all the same');
  await server.close();
});

test('a request that cannot be made says so', async () => {
  await assert.rejects(alice.request('nobody', 'hello'), { code: 'not_found' });
  await assert.rejects(alice.request('agent-b', 'hello', { key: 'no spaces' }), { code: 'invalid_argument' });
});

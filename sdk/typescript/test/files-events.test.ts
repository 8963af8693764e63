/** Files and events between two real daemons. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import type { FileProgress, Pilot, PilotEvent } from '../src/index.js';
import { pattern, World, type Agent } from './world.js';

let world: World;
let b: Agent;
let alice: Pilot;
let bob: Pilot;

before(async () => {
  world = await World.start();
  ({ b, alice, bob } = await world.friends());
});
after(() => world.stop());

test('a file arrives with its hash, and the sender sees how far it is', async () => {
  const data = pattern(9_000_003);
  const path = join(world.directory, 'data.bin');
  writeFileSync(path, data);
  const waiting = bob.waitFile({ from: 'agent-a' });
  const progress: FileProgress[] = [];
  const receipt = await alice.sendFile('agent-b', path, { onProgress: (step) => progress.push(step) });
  const sha256 = createHash('sha256').update(data).digest('hex');
  assert.deepEqual(
    [receipt.name, receipt.bytes, receipt.sha256, receipt.transport, receipt.bytesResumed],
    ['data.bin', data.length, sha256, 'file-stream', 0],
  );
  assert.deepEqual(progress.at(-1), { done: data.length, total: data.length, resumed: 0 });
  assert.ok(progress.every(({ done }, at) => at === 0 || done >= (progress[at - 1]?.done ?? 0)));
  const file = await waiting;
  assert.deepEqual([file?.bytes, file?.sha256, file?.announced], [data.length, sha256, 'data.bin']);
  assert.ok(readFileSync(file?.path ?? '').equals(data));
});

test('small and empty files, names and missing files', async () => {
  for (const length of [0, 1, 49_152, 49_153]) {
    const path = join(world.directory, `file-${String(length)}`);
    writeFileSync(path, pattern(length));
    const receipt = await alice.sendFile('agent-b', path, { name: `n-${String(length)}.dat` });
    assert.deepEqual([receipt.bytes, receipt.name], [length, `n-${String(length)}.dat`]);
  }
  const files = await bob.receivedFiles({ from: 'agent-a', limit: 4 });
  assert.deepEqual(
    files.map(({ bytes }) => bytes),
    [0, 1, 49_152, 49_153],
  );
  await assert.rejects(alice.sendFile('agent-b', '/nowhere/at/all'), { code: 'not_found' });
  await assert.rejects(alice.sendFile('agent-b', world.directory), { code: 'invalid_argument' });
});

test('a transfer goes on after the receiver was killed', async () => {
  const path = join(world.directory, 'large.bin');
  writeFileSync(path, '');
  truncateSync(path, 80 << 20);
  let restarted: Promise<void> | undefined;
  const receipt = await alice.sendFile('agent-b', path, {
    onProgress: ({ done }) => {
      if (done > 2 << 20) restarted ??= b.kill().then(() => b.start());
    },
  });
  await restarted;
  assert.equal(receipt.bytes, 80 << 20);
  const [file] = (await bob.receivedFiles({ limit: 1 })).slice(-1);
  assert.equal(file?.sha256, receipt.sha256);
});

test('a transfer is given up when the caller says so', async () => {
  const stop = new AbortController();
  const sending = alice.sendFile('agent-b', join(world.directory, 'large.bin'), {
    name: 'again.bin',
    signal: stop.signal,
    onProgress: () => {
      stop.abort();
    },
  });
  await assert.rejects(sending, { code: 'cancelled' });
});

test('a file goes through the daemon', async () => {
  const path = join(world.directory, 'note.txt');
  writeFileSync(path, 'a note');
  const waiting = bob.waitFile();
  const item = await alice.queueFile('agent-b', path, { name: 'renamed.txt' });
  // The daemon has its own copy by now.
  writeFileSync(path, 'changed');
  assert.equal((await alice.outboxWait(item.id, 'stored')).state, 'stored');
  const received = await waiting;
  assert.equal(received?.announced, 'renamed.txt');
  assert.equal(readFileSync(received.path, 'utf8'), 'a note');
});

test('events of trusted nodes reach those who subscribed, in order', async () => {
  const events = await bob.subscribe('agent-a.*');
  assert.equal(events.granted.confirmed, true);
  const stream = await alice.openEventStream();
  for (let number = 0; number < 500; number += 1) await stream.publish('agent-a.count', { number });
  await stream.publish('other.topic', 'not wanted');
  await stream.publish('agent-a.last', 'the end');
  await stream.settle();
  const seen: PilotEvent[] = [];
  for await (const event of events) {
    seen.push(event);
    if (event.topic === 'agent-a.last') break;
  }
  assert.deepEqual(
    seen.slice(0, -1).map((event) => event.json()),
    Array.from({ length: 500 }, (_, number) => ({ number })),
  );
  const last = seen.at(-1);
  assert.deepEqual(
    [last?.text(), last?.publisher, last?.hostname, last?.broker, last?.replayed, last?.lost],
    ['the end', alice.address, 'agent-a', alice.address, false, 0],
  );
  await events.close();
  await stream.close();
  await assert.rejects(events.next(), { code: 'closed' });
  await assert.rejects(stream.publish('x', 'y'), { code: 'closed' });
});

test('the past is replayed, and one\'s own publications are heard', async () => {
  await bob.publish('own.topic', 'one');
  await bob.publish('own.topic', 'two');
  const events = await bob.subscribe('own.topic', { replay: 2, policy: 'block' });
  assert.equal(events.granted.policy, 'block');
  const heard = [await events.next(), await events.next()];
  assert.deepEqual(
    heard.map((event) => [event.text(), event.replayed]),
    [
      ['one', true],
      ['two', true],
    ],
  );
  await bob.publish('own.topic', 'three');
  assert.equal((await events.next()).text(), 'three');
  await assert.rejects(events.next({ signal: AbortSignal.timeout(1) }), { code: 'timeout' });
  await events.close();
});

test('one other broker is subscribed and published at', async () => {
  const there = await alice.subscribe('deep.>', { at: 'agent-b' });
  await alice.publish('deep.and.deeper', Buffer.from([1, 2, 3]), { at: 'agent-b' });
  await bob.publish('deep.x', 'from bob');
  const heard = new Set([(await there.next()).topic]);
  assert.ok(heard.has('deep.x') || heard.has('deep.and.deeper'));
  await there.close();
  await assert.rejects(alice.publish('t'.repeat(2000), ''), { code: 'invalid_argument' });
});

test('a subscription goes on after its daemon was killed', async () => {
  const events = await bob.subscribe('after.restart');
  await b.kill();
  await b.start();
  let heard = '';
  const next = events.next().then((event) => {
    heard = event.text();
  });
  // The link between the brokers comes back by itself; until then there is nobody to hear.
  for (let round = 0; heard === '' && round < 200; round += 1) {
    await bob.publish('after.restart', 'still here').catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await next;
  assert.equal(heard, 'still here');
  await events.close();
});

/** Messages, the inbox and the outbox, between two real daemons. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { PilotError, type Pilot } from '../src/index.js';
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

test('a message is stored once, and its receipt says so', async () => {
  const receipt = await alice.sendMessage('agent-b', 'process this', { messageId: 'm-1', replyTo: 'q-7' });
  assert.deepEqual(
    [receipt.messageId, receipt.tagged, receipt.bytes, receipt.ack, receipt.duplicate],
    ['m-1', true, 12, 'ACK TEXT 12 bytes', false],
  );
  assert.equal((await alice.sendMessage('agent-b', 'process this', { messageId: 'm-1' })).duplicate, true);
  const mail = await bob.takeMessage();
  assert.deepEqual(
    [mail?.text(), mail?.kind, mail?.from, mail?.fromHostname, mail?.messageId, mail?.replyTo],
    ['process this', 'text', alice.address, 'agent-a', 'm-1', 'q-7'],
  );
  assert.equal(await bob.takeMessage({}, 1), undefined);
});

test('the kind follows the content, and the bytes are kept', async () => {
  const bytes = pattern(300_000);
  await alice.sendMessage('agent-b', { answer: [1, null, 'ü'] });
  await alice.sendMessage('agent-b', bytes);
  await alice.sendMessage('agent-b', '{"raw":1}', { kind: 'json' });
  const inbox = bob.inbox({ from: 'agent-a' });
  const first = await inbox.next();
  assert.deepEqual([first.kind, first.json()], ['json', { answer: [1, null, 'ü'] }]);
  const second = await inbox.next();
  assert.equal(second.kind, 'binary');
  assert.ok(second.data.equals(bytes));
  assert.deepEqual((await inbox.next()).json(), { raw: 1 });
  inbox.close();
});

test('a message longer than the local socket takes arrives whole', async () => {
  const bytes = pattern(5_000_000);
  assert.equal((await alice.sendMessage('agent-b', bytes)).bytes, 5_000_000);
  assert.ok((await bob.takeMessage())?.data.equals(bytes));
  await alice.queueMessage('agent-b', bytes, { messageId: 'long' });
  assert.ok((await bob.takeMessage())?.data.equals(bytes));
  await assert.rejects(alice.sendMessage('agent-b', Buffer.alloc(64 << 20)), { code: 'invalid_argument' });
});

test('a traced message tells when it was where', async () => {
  const { timing } = await alice.sendMessage('agent-b', 'when?', { trace: true });
  assert.ok(timing && timing.sentAtNs > 0n && timing.ackSentAtNs >= timing.inboxWrittenAtNs);
  await bob.takeMessage();
});

test('the inbox hands out each message once, the unread ones first', async () => {
  await alice.sendMessage('agent-b', 'before');
  const seen: string[] = [];
  const reading = (async () => {
    for await (const mail of bob.inbox()) {
      seen.push(mail.text());
      if (mail.text() === 'last') break;
    }
  })();
  for (const word of ['one', 'two', 'three', 'last']) await alice.sendMessage('agent-b', word);
  await reading;
  assert.deepEqual(seen, ['before', 'one', 'two', 'three', 'last']);
  assert.deepEqual(await bob.listMessages({ unread: true }), []);
});

test('an inbox from now on leaves out what was there', async () => {
  await alice.sendMessage('agent-b', 'old');
  const inbox = bob.inbox({ unread: false });
  const next = inbox.next();
  // The place is taken before a later request of the same connection is answered.
  await bob.info();
  await alice.sendMessage('agent-b', 'new');
  assert.equal((await next).text(), 'new');
  const waiting = inbox.next();
  await assert.rejects(inbox.next(), { code: 'busy' });
  inbox.close();
  await assert.rejects(waiting, { code: 'closed' });
  assert.equal((await bob.takeMessage({ text: 'old' }))?.text(), 'old');
});

test('messages are listed, read, marked and removed', async () => {
  await alice.sendMessage('agent-b', 'keep me', { messageId: 'keep' });
  const entries = await bob.listMessages({ unread: true });
  assert.deepEqual(
    entries.map(({ preview, bytes, type, from }) => [preview, bytes, type, from]),
    [['keep me', 7, 'TEXT', alice.address]],
  );
  const id = entries[0]?.id ?? '';
  assert.equal((await bob.readMessage(id)).messageId, 'keep');
  assert.equal((await bob.readMessage()).id, id);
  assert.equal(await bob.markMessages([id], false), 1);
  assert.equal((await bob.listMessages({ unread: true, kind: 'text', limit: 5 })).length, 1);
  assert.equal(await bob.removeMessages([id]), 1);
  await assert.rejects(bob.readMessage('keep'), { code: 'not_found' });
});

test('an answer finds its message', async () => {
  const { messageId } = await alice.sendMessage('agent-b', 'question');
  const mail = await bob.takeMessage();
  assert.ok(mail);
  const waiting = alice.waitReply('agent-b', messageId);
  const answered = await bob.reply(mail, 'answer');
  assert.deepEqual([answered.to, answered.replyTo], [alice.address, messageId]);
  assert.equal((await waiting)?.text(), 'answer');
  assert.equal(await alice.waitReply('agent-b', 'never', 1), undefined);
});

test('the outbox delivers when the peer is back, and tells how far a message came', async () => {
  const direct = await alice.queueMessage('agent-b', 'now', { until: 'stored', patienceMs: 20_000 });
  assert.equal(direct.state, 'stored');
  const reading = alice.outboxWait(direct.id, 'read', { timeoutMs: 20_000 });
  assert.equal((await bob.takeMessage())?.text(), 'now');
  assert.equal((await reading).state, 'read');

  await b.kill();
  await assert.rejects(alice.sendMessage('agent-b', 'nobody home', { signal: AbortSignal.timeout(10_000) }), PilotError);
  const item = await alice.queueMessage('agent-b', 'later', { ttlMs: 60_000 });
  assert.equal(item.state, 'queued');
  const taken = await alice.queueMessage('agent-b', 'never mind');
  assert.equal((await alice.outboxCancel(taken.id)).id, taken.id);
  const pending = await alice.outbox({ to: 'agent-b', pending: true });
  assert.ok(pending.items.some(({ id }) => id === item.id));
  await b.start();
  // One that is being tried at the moment may still arrive.
  const withdrawn = await alice.outboxWait(taken.id, 'stored', { timeoutMs: 60_000 });
  assert.ok(['cancelled', 'stored'].includes(withdrawn.state), withdrawn.state);
  assert.equal((await alice.outboxWait(item.id, 'stored', { timeoutMs: 30_000 })).state, 'stored');
  assert.equal((await alice.outboxItem(item.id)).state, 'stored');
  assert.equal((await bob.takeMessage({ text: 'later' }))?.text(), 'later');
  await assert.rejects(alice.outboxItem('unknown'), { code: 'not_found' });
  await assert.rejects(alice.queueMessage('agent-b', 'x', { messageId: 'bad id' }), { code: 'invalid_argument' });
});

test('an inbox goes on with the next daemon', async () => {
  const inbox = bob.inbox({ text: 'after the restart' });
  const next = inbox.next();
  await b.kill();
  await b.start();
  await alice.queueMessage('agent-b', 'after the restart');
  assert.equal((await next).text(), 'after the restart');
  inbox.close();
});

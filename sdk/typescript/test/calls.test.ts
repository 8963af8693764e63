/** What a program asks about its node, other nodes and trust, of real daemons. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Pilot, PilotError } from '../src/index.js';
import { befriend, until, World, type Agent } from './world.js';

let world: World;
let a: Agent;
let b: Agent;
let alice: Pilot;
let bob: Pilot;

before(async () => {
  world = await World.start();
  [a, b] = await Promise.all([world.agent('agent-a'), world.agent('agent-b')]);
  [alice, bob] = [await a.pilot(), await b.pilot()];
});
after(() => world.stop());

test('a missing daemon is a clear error', async () => {
  await assert.rejects(Pilot.connect({ socket: '/tmp/pts-nobody.sock' }), (error: PilotError) => {
    assert.ok(error instanceof PilotError);
    assert.equal(error.code, 'not_running');
    assert.equal(error.hint, 'start it with `pilotctl daemon start`');
    assert.equal(error.retryable, true);
    return true;
  });
});

test('trust is asked for, declined, given, listed and taken back', async () => {
  await assert.rejects(alice.dial(bob.nodeId, 7, { signal: AbortSignal.timeout(5_000) }), (error: PilotError) =>
    ['not_trusted', 'unreachable', 'timeout'].includes(error.code),
  );
  assert.deepEqual(await alice.trusted(), []);
  await alice.handshake(bob.nodeId, 'let us work');
  await until(async () => (await bob.pending()).length === 1);
  const [asked] = await bob.pending();
  assert.deepEqual([asked?.nodeId, asked?.justification], [alice.nodeId, 'let us work']);
  await bob.reject(alice.nodeId, 'not today');
  assert.equal((await alice.waitTrust(bob.nodeId, { timeoutMs: 20_000 })).state, 'rejected');
  await befriend(alice, bob);
  assert.equal((await alice.trusted())[0]?.nodeId, bob.nodeId);
  assert.equal((await bob.trustList())[0]?.state, 'trusted');
  await alice.revoke('agent-b');
  await assert.rejects(alice.revoke(bob.nodeId), { code: 'not_found' });
  await until(async () => (await bob.trusted()).length === 0);
  assert.equal(await bob.autoApprove(), false);
  assert.equal(await bob.autoApprove(true), true);
  await alice.handshake(bob.nodeId);
  assert.equal((await alice.waitTrust(bob.nodeId, { timeoutMs: 20_000 })).state, 'trusted');
});

test('the node tells who it is and how it runs', async () => {
  const info = await alice.info();
  assert.equal(alice.address, info.address);
  assert.match(alice.address, /^0:0000\.[0-9A-F]{4}\.[0-9A-F]{4}$/);
  assert.deepEqual([alice.hostname, info.hostname], ['agent-a', 'agent-a']);
  assert.equal(alice.isReference, false);
  assert.equal(alice.socket, a.socket);
  const status = await alice.status();
  assert.deepEqual([status.address, status.registry.connected, status.socket], [alice.address, true, a.socket]);
  assert.equal((await alice.health()).status, 'ok');
});

test('peers are found by name, number and address', async () => {
  const byName = await alice.resolve('agent-b');
  assert.deepEqual([byName.nodeId, byName.address, byName.hostname], [bob.nodeId, bob.address, 'agent-b']);
  assert.equal((await alice.resolve(bob.nodeId)).address, bob.address);
  assert.equal((await alice.resolve(String(bob.nodeId))).address, bob.address);
  assert.equal((await alice.resolve(bob.address)).nodeId, bob.nodeId);
  assert.equal((await alice.find(bob.address)).hostname, 'agent-b');
  assert.equal((await alice.lookup('agent-b')).nodeId, bob.nodeId);
  await assert.rejects(alice.resolve('nobody'), (error: PilotError) => error.code === 'not_found' && !error.retryable);
  await assert.rejects(alice.dial(''), { code: 'invalid_argument' });
  await assert.rejects(alice.dial(-1), { code: 'invalid_argument' });
  await assert.rejects(alice.dial('agent-b', 70_000), { code: 'invalid_argument' });
});

test('a peer is pinged, and shows up among the peers', async () => {
  const pong = await alice.ping('agent-b', { size: 100 });
  assert.deepEqual([pong.nodeId, pong.relay], [bob.nodeId, false]);
  assert.ok(pong.rttUs > 0);
  const peers = await alice.peers();
  assert.deepEqual(
    peers.map(({ nodeId, encrypted }) => [nodeId, encrypted]),
    [[bob.nodeId, true]],
  );
  assert.equal((await alice.why('agent-b')).nodeId, bob.nodeId);
  await assert.rejects(alice.dial('agent-b', 4), { code: 'refused' });
});

test('the node is named, tagged, and shown or hidden', async () => {
  await alice.setHostname('agent-x');
  assert.equal(alice.hostname, 'agent-x');
  assert.equal((await bob.resolve('agent-x')).nodeId, alice.nodeId);
  await assert.rejects(alice.setHostname('agent-b'), { code: 'already_exists' });
  await alice.setHostname('agent-a');
  await alice.setTags(['one', 'two']);
  await assert.rejects(alice.setTags(['1', '2', '3', '4']), { code: 'invalid_argument' });
  await alice.setVisibility(true);
  assert.equal((await alice.status()).public, true);
  await alice.setVisibility(false);
  await alice.setWebhook('http://127.0.0.1:9/hook');
  await alice.setWebhook('');
});

test('streams of the node are listed and ended by their numbers', async () => {
  const stream = await alice.dial('agent-b', 7);
  await stream.write('echo');
  assert.equal((await stream.readExactly(4))?.toString(), 'echo');
  const row = (await alice.connections()).find(({ id }) => id === stream.id);
  assert.deepEqual([row?.remoteAddr, row?.remotePort, row?.state], [bob.address, 7, 'ESTABLISHED']);
  await alice.disconnect(stream.id);
  await assert.rejects(async () => {
    await stream.readAll();
    await stream.write('x');
  }, PilotError);
  await assert.rejects(alice.disconnect(987_654), { code: 'not_found' });
});

test('networks are the registry\'s own', async () => {
  assert.ok(Array.isArray((await alice.networkList()).networks));
  await assert.rejects(alice.networkJoin(4711), { code: 'not_found' });
  await assert.rejects(alice.networkMembers(4711), PilotError);
  await assert.rejects(alice.networkLeave(4711), PilotError);
  await assert.rejects(alice.broadcast(4711, 5000, 'hello'), PilotError);
});

test('any call of the daemon can be made as JSON', async () => {
  const events = (await alice.call({ call: 'events' })) as { counters: { published: number } };
  assert.equal(events.counters.published, 0);
  await assert.rejects(alice.call({ call: 'no such thing' }), PilotError);
});

test('a killed daemon fails what is under way, and its successor is connected to again', async () => {
  const waiting = bob.takeMessage({}, 60_000);
  const listener = await bob.listen(3000);
  const accepting = listener.accept();
  await Promise.all([assert.rejects(accepting, { code: 'not_running' }), b.kill()]);
  await assert.rejects(bob.info(), { code: 'not_running', retryable: true });
  await b.start();
  assert.equal((await bob.info()).hostname, 'agent-b');
  // This one waits for what lies on disk, and outlived the daemon.
  await until(async () => (await alice.ping('agent-b').catch(() => undefined)) !== undefined);
  await alice.sendMessage('agent-b', 'still here?');
  assert.equal((await waiting)?.text(), 'still here?');
});

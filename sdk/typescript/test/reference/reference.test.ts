/** Against a real daemon of release 1.18.0 ($PILOT_REFERENCE), as far as that goes, with one of ours as its peer. */

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Pilot, type PilotError } from '../../src/index.js';
import { pattern, until, World } from '../world.js';

let world: World;
let ours: Pilot;
let theirs: Pilot;
let daemon: ChildProcess;

/** The folder with the reference's executables, in its virtual environment. */
function programs(): string {
  const home = process.env.PILOT_REFERENCE;
  assert.ok(home, 'PILOT_REFERENCE names the virtual environment with pilotprotocol 1.18.0');
  const lib = join(home, 'lib');
  const [version] = readdirSync(lib);
  return join(lib, version ?? '', 'site-packages', 'pilotprotocol', 'bin');
}

before(async () => {
  world = await World.start();
  const agent = await world.agent('agent-b');
  ours = await agent.pilot();
  await ours.autoApprove(true);
  const home = join(world.directory, 'reference');
  mkdirSync(home);
  const socket = join(world.directory, 'reference.sock');
  const words = ['-registry', world.registry, '-beacon', world.beacon, '-listen', '127.0.0.1:0', '-socket', socket];
  words.push('-identity', join(home, 'id.json'), '-hostname', 'ref', '-transport', 'udp', '-proxy', 'off');
  words.push('-telemetry-url', '', '-motd-feed-url', '', '-no-skillinject');
  const log = openSync(join(home, 'test.log'), 'a');
  daemon = spawn(join(programs(), 'pilot-daemon'), words, {
    cwd: home,
    env: { PATH: process.env.PATH, HOME: home, PILOT_NO_SKILLINJECT: '1', PILOT_TELEMETRY_URL: '', PILOT_MOTD_URL: '' },
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  let pilot: Pilot | undefined;
  await until(async () => {
    pilot = await Pilot.connect({ socket }).catch(() => undefined);
    if (pilot && pilot.nodeId !== 0) return true;
    await pilot?.close();
    return false;
  }, 60_000);
  assert.ok(pilot, readFileSync(join(home, 'test.log'), 'utf8'));
  theirs = pilot;
  world.pilots.push(theirs);
  await theirs.handshake(ours.nodeId, 'for the test');
  await until(async () => (await theirs.trusted()).some(({ nodeId }) => nodeId === ours.nodeId), 90_000);
  await until(async () => (await ours.trusted()).some(({ nodeId }) => nodeId === theirs.nodeId), 90_000);
});

after(async () => {
  const exit = once(daemon, 'exit');
  daemon.kill('SIGKILL');
  await exit;
  await world.stop();
});

test('the daemon is recognised, and tells of itself', async () => {
  assert.equal(theirs.isReference, true);
  assert.equal((await theirs.health()).status, 'ok');
  assert.equal((await theirs.waitTrust(ours.nodeId, { timeoutMs: 1_000 })).state, 'trusted');
  assert.equal(theirs.address, (await theirs.info()).address);
});

test('streams go both ways and are exact', async () => {
  const listener = await ours.listen(2100);
  const [here, there] = await Promise.all([theirs.dial(ours.nodeId, 2100), listener.accept()]);
  const data = pattern(2_000_000);
  const got = there.readExactly(data.length);
  await here.write(data);
  assert.ok((await got)?.equals(data));
  // A release that knows no half-close is told of the end by the close only.
  const back = here.readAll();
  await there.write(data);
  await there.close();
  assert.ok((await back).equals(data));
  await here.close();
  await listener.close();
  const other = await theirs.listen(2101);
  const [dialed, accepted] = await Promise.all([ours.dial(theirs.nodeId, 2101), other.accept()]);
  await accepted.write('from the reference');
  assert.equal((await dialed.readExactly(18))?.toString(), 'from the reference');
  await accepted.close();
  await dialed.close();
  await other.close();
  await assert.rejects(theirs.dial(ours.nodeId, 4), { code: 'refused' });
});

test('pings go over echo, peers are listed', async () => {
  const pong = await theirs.ping(ours.nodeId);
  assert.ok(pong.rttUs > 0);
  assert.ok((await theirs.peers()).some(({ nodeId }) => nodeId === ours.nodeId));
});

test('messages go both ways with receipts', async () => {
  const receipt = await theirs.sendMessage(ours.nodeId, 'from 1.18', { messageId: 'r-1' });
  assert.deepEqual([receipt.messageId, receipt.tagged, receipt.bytes], ['r-1', true, 9]);
  const mail = await ours.takeMessage();
  assert.deepEqual([mail?.text(), mail?.from, mail?.messageId], ['from 1.18', theirs.address, 'r-1']);
  assert.equal((await ours.sendMessage(theirs.nodeId, 'to 1.18')).bytes, 7);
});

test('files go both ways with their hash checked', async () => {
  const path = join(world.directory, 'data.bin');
  writeFileSync(path, pattern(1_500_000));
  const waiting = ours.waitFile();
  const there = await theirs.sendFile(ours.nodeId, path);
  assert.equal((await waiting)?.sha256, there.sha256);
  const back = await ours.sendFile(theirs.nodeId, path);
  assert.deepEqual([back.transport, back.sha256], ['file-stream', there.sha256]);
});

test('events of our broker are heard through it, and published', async () => {
  const events = await theirs.subscribe('a.*', { at: ours.nodeId });
  assert.equal(events.granted.confirmed, true);
  await ours.publish('a.topic', 'hello');
  assert.equal((await events.next()).text(), 'hello');
  const here = await ours.subscribe('from.ref');
  await theirs.publish('from.ref', 'hello too', { at: ours.nodeId });
  assert.equal((await here.next()).text(), 'hello too');
  await events.close();
  await here.close();
});

test('datagrams arrive', async () => {
  const port = await ours.datagrams(2200);
  await theirs.sendDatagram(ours.nodeId, 2200, 'ping');
  assert.equal((await port.receive()).data.toString(), 'ping');
  await port.close();
});

test('what it has no word for is said to be unsupported', async () => {
  const isUnsupported = (error: PilotError): boolean => error.code === 'unsupported' && error.hint !== undefined;
  await assert.rejects(theirs.status(), isUnsupported);
  await assert.rejects(theirs.inbox().next(), isUnsupported);
  await assert.rejects(theirs.lookup(ours.nodeId), isUnsupported);
  assert.throws(() => theirs.request(ours.nodeId, 'x'), isUnsupported);
});

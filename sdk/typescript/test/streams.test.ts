/** Streams and datagrams between two real daemons. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { pipeline } from 'node:stream/promises';
import { Writable, Readable } from 'node:stream';

import { Pilot, PilotError, type PilotStream } from '../src/index.js';
import { pattern, until, World } from './world.js';

let world: World;
let alice: Pilot;
let bob: Pilot;
let nextPort = 2000;

before(async () => {
  world = await World.start();
  ({ alice, bob } = await world.friends());
});
after(() => world.stop());

/** Both ends of a stream. */
async function pair(): Promise<[PilotStream, PilotStream]> {
  const listener = await bob.listen((nextPort += 1));
  const [here, there] = await Promise.all([alice.dial('agent-b', listener.port), listener.accept()]);
  await listener.close();
  return [here, there];
}

test('both sides talk, and each ends its own direction', async () => {
  const [here, there] = await pair();
  assert.equal(here.peer.nodeId, bob.nodeId);
  assert.equal(there.peer.address, alice.address);
  await here.write('hello ');
  await here.end('world');
  assert.equal(await there.text(), 'hello world');
  await there.write('and back');
  await there.end();
  assert.equal(await here.text(), 'and back');
  await assert.rejects(here.write('more'), { name: 'PilotError', code: 'closed' });
  await Promise.all([here.close(), there.close()]);
});

test('a large transfer arrives as it was sent', async () => {
  const [here, there] = await pair();
  const data = pattern(12_000_001);
  const [, got] = await Promise.all([here.end(data), there.readAll()]);
  assert.ok(got.equals(data));
  await here.close();
});

test('memory that was written may be used again', async () => {
  const [here, there] = await pair();
  const buffer = Buffer.alloc(100_000);
  const reading = there.readAll();
  for (let round = 0; round < 50; round += 1) {
    buffer.fill(round);
    await here.write(buffer);
  }
  await here.end();
  const got = await reading;
  assert.equal(got.length, 5_000_000);
  for (let round = 0; round < 50; round += 1) {
    const part = got.subarray(round * 100_000, (round + 1) * 100_000);
    assert.ok(part.every((byte) => byte === round), `round ${String(round)}`);
  }
});

test('a reader that does not read holds up its own writer and nobody else', async () => {
  const [slow, unread] = await pair();
  const [here, there] = await pair();
  const data = pattern(32 << 20);
  let done = false;
  const writing = slow.end(data).then(() => {
    done = true;
  });
  const second = pattern(8 << 20);
  const [, got] = await Promise.all([here.end(second), there.readAll()]);
  assert.ok(got.equals(second));
  assert.equal(done, false, '32 MiB fit nowhere: the writer must still wait');
  const [, late] = await Promise.all([writing, unread.readAll()]);
  assert.ok(late.equals(data));
});

test('writes keep the order of their calls', async () => {
  const [here, there] = await pair();
  const pieces = Array.from({ length: 200 }, (_, at) => Buffer.alloc(40_000, at));
  const reading = there.readAll();
  await Promise.all([...pieces.map((piece) => here.write(piece)), here.end()]);
  assert.ok((await reading).equals(Buffer.concat(pieces)));
});

test('readExactly cuts where it is told, and the rest stays', async () => {
  const [here, there] = await pair();
  await here.end('0123456789');
  assert.equal((await there.readExactly(4))?.toString(), '0123');
  assert.equal((await there.readExactly(3))?.toString(), '456');
  await assert.rejects(there.readExactly(9), { code: 'closed' });
  assert.equal(await there.readExactly(1), undefined);
});

test('bytes are iterated up to the end', async () => {
  const [here, there] = await pair();
  await here.end(pattern(300_000));
  let length = 0;
  for await (const part of there) length += part.length;
  assert.equal(length, 300_000);
});

test('a drained write is with the peer', async () => {
  const [here, there] = await pair();
  await here.write('x');
  await here.drain();
  assert.equal((await there.read())?.toString(), 'x');
});

test('a reset is seen as a failure, a close as an end', async () => {
  const [here, there] = await pair();
  here.reset();
  await assert.rejects(there.readAll(), (error: PilotError) => error instanceof PilotError && error.code !== 'other');
  const [left, right] = await pair();
  await left.write('last words');
  await left.close();
  assert.equal(await right.text(), 'last words');
  await assert.rejects(left.read(), { code: 'closed' });
});

test('web streams carry the bytes', async () => {
  const [here, there] = await pair();
  const data = pattern(3_000_000);
  const writing = (async () => {
    const writer = here.writable.getWriter();
    for (let at = 0; at < data.length; at += 100_000) await writer.write(data.subarray(at, at + 100_000));
    await writer.close();
  })();
  const parts: Uint8Array[] = [];
  for await (const part of there.readable) parts.push(part);
  await writing;
  assert.ok(Buffer.concat(parts).equals(data));
});

test('a duplex of Node echoes through a pipeline', async () => {
  const [here, there] = await pair();
  const echo = there.duplex();
  const echoing = pipeline(echo, echo);
  const data = pattern(4_000_000);
  const duplex = here.duplex();
  const got: Buffer[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      got.push(chunk);
      done();
    },
  });
  await Promise.all([pipeline(Readable.from([data]), duplex, sink), echoing]);
  assert.ok(Buffer.concat(got).equals(data));
});

test('a listener gives its port back, and a port has one owner', async () => {
  const port = (nextPort += 1);
  const listener = await bob.listen(port);
  await assert.rejects(bob.listen(port), { code: 'already_exists' });
  const other = await Pilot.connect({ socket: bob.socket });
  await assert.rejects(other.listen(port), { code: 'already_exists' });
  await other.close();
  await listener.close();
  await assert.rejects(listener.accept(), { code: 'closed' });
  await assert.rejects(alice.dial(bob.nodeId, port), { code: 'refused' });
  await (await bob.listen(port)).close();
});

test('a listener is iterated until it is closed', async () => {
  const listener = await bob.listen((nextPort += 1));
  const served: string[] = [];
  const serving = (async () => {
    for await (const stream of listener) {
      served.push(await stream.text());
      await stream.close();
    }
  })();
  for (const word of ['one', 'two', 'three']) {
    const stream = await alice.dial('agent-b', listener.port);
    await stream.end(word);
    assert.equal(await stream.readAll().then((data) => data.length), 0);
  }
  await listener.close();
  await serving;
  assert.deepEqual(served, ['one', 'two', 'three']);
});

test('waiting is given up when the caller says so', async () => {
  const listener = await bob.listen((nextPort += 1));
  const stop = new AbortController();
  const accepting = listener.accept({ signal: stop.signal });
  stop.abort();
  await assert.rejects(accepting, { code: 'cancelled' });
  await assert.rejects(listener.accept({ signal: AbortSignal.timeout(1) }), { code: 'timeout', retryable: true });
  const [here] = await pair();
  await assert.rejects(here.read({ signal: AbortSignal.timeout(1) }), { code: 'timeout' });
  await assert.rejects(alice.dial('agent-b', 7, { signal: AbortSignal.abort() }), { code: 'cancelled' });
  // What came afterwards is there all the same.
  const stream = await alice.dial('agent-b', listener.port);
  assert.equal((await listener.accept()).peer.nodeId, alice.nodeId);
  await stream.close();
  await listener.close();
});

test('hundreds of streams at a time do not mix', async () => {
  const listener = await bob.listen((nextPort += 1));
  const serving = (async () => {
    for await (const stream of listener) {
      void stream.readAll().then((data) => stream.end(data));
    }
  })();
  const asked = Array.from({ length: 300 }, async (_, at) => {
    const stream = await alice.dial(bob.nodeId, listener.port);
    await stream.end(`number ${String(at)}`);
    assert.equal(await stream.text(), `number ${String(at)}`);
    await stream.close();
  });
  await Promise.all(asked);
  await listener.close();
  await serving;
});

test('datagrams arrive with their sender, and are answered from a chosen port', async () => {
  const port = (nextPort += 1);
  const here = await alice.datagrams(port);
  const there = await bob.datagrams(port);
  await here.sendTo('agent-b', port, 'ping');
  const ping = await there.receive();
  assert.deepEqual([ping.data.toString(), ping.from.nodeId, ping.from.port], ['ping', alice.nodeId, port]);
  await there.sendTo(ping.from, ping.from.port, Buffer.from('pong'));
  for await (const { data } of here) {
    assert.equal(data.toString(), 'pong');
    break;
  }
  await alice.sendDatagram('agent-b', port, 'once');
  assert.equal((await there.receive()).data.toString(), 'once');
  await assert.rejects(alice.sendDatagram('agent-b', port, Buffer.alloc(70_000)), { code: 'invalid_argument' });
  // Streams may come to the same port.
  const listener = await bob.listen(port);
  await there.close();
  const [stream] = await Promise.all([alice.dial('agent-b', port), listener.accept()]);
  await stream.close();
  await listener.close();
  await here.close();
  await assert.rejects(there.receive(), { code: 'closed' });
});

test('a closed connection delivers what was written, and ends its streams', async () => {
  const listener = await bob.listen((nextPort += 1));
  const other = await Pilot.connect({ socket: alice.socket });
  const here = await other.dial('agent-b', listener.port);
  const there = await listener.accept();
  await here.write('the end');
  await other.close();
  assert.equal(await there.text(), 'the end');
  await assert.rejects(here.write('x'), { code: 'closed' });
  await assert.rejects(other.info(), { code: 'closed' });
  await there.close();
  const open = async (): Promise<boolean> =>
    (await alice.connections()).some(({ remotePort, state }) => remotePort === listener.port && state === 'ESTABLISHED');
  await until(async () => !(await open()));
  await listener.close();
});

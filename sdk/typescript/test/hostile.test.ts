/** Whoever listens on the socket may be no daemon, or a broken one: nothing hangs, grows or crashes. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { Pilot, type PilotStream } from '../src/index.js';
import { Command, frame, FrameDecoder, MAX_FRAME, Reader, service, text, u16, u32, u8 } from '../src/wire/frames.js';

const directory = mkdtempSync('/tmp/pts-');
const servers: Server[] = [];
let count = 0;

after(() => {
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true, force: true });
});

/** A daemon that says what the test tells it to. */
interface Fake {
  socket: string;
  /** The connection of the client. */
  peer: () => Socket;
  /** Frames of the client, after its greeting. */
  heard: Buffer[];
}

type Answer = (frame: Buffer, socket: Socket) => void;

async function fake(greeting: Buffer | undefined, answer: Answer): Promise<Fake> {
  let peer: Socket | undefined;
  const heard: Buffer[] = [];
  const server = createServer((socket) => {
    peer = socket;
    socket.on('error', () => undefined);
    const decoder = new FrameDecoder();
    socket.on('data', (bytes: Buffer) => {
      decoder.feed(bytes);
      for (let next = decoder.next(); next; next = decoder.next()) {
        if (next[0] === Command.Hello) {
          if (greeting) socket.write(greeting);
          continue;
        }
        heard.push(next);
        answer(next, socket);
      }
    });
  });
  servers.push(server);
  const socket = join(directory, `${String((count += 1))}.sock`);
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return {
    socket,
    heard,
    peer: () => {
      assert.ok(peer);
      return peer;
    },
  };
}

const HELLO = frame(Command.HelloOk, u8(1), text('{"version":"9","initial_credit":1000,"new":[1]}'));
const INFO = text('{"node_id":1,"address":"0:0000.0000.0001","hostname":"fake"}');

/** Answers info and dials, in the extended dialect. */
const polite: Answer = (said, socket) => {
  if (said[0] !== Command.Tagged) return;
  const reader = new Reader(said, 1);
  const tag = u32(reader.u32());
  const command = reader.u8();
  if (command === Command.Info) socket.write(frame(Command.TaggedOk, tag, u8(Command.InfoOk), INFO));
  if (command === Command.Dial) socket.write(frame(Command.TaggedOk, tag, u8(Command.DialOk), u32(5)));
  if (command === Command.Bind) socket.write(frame(Command.TaggedOk, tag, u8(Command.BindOk), u16(9)));
};

async function dialed(daemon: Fake): Promise<{ pilot: Pilot; stream: PilotStream }> {
  const pilot = await Pilot.connect({ socket: daemon.socket });
  return { pilot, stream: await pilot.dial(2, 1000) };
}

test('what is no daemon is told apart from a missing one', async () => {
  for (const greeting of [
    frame(Command.Recv, u32(1)),
    Buffer.from('HTTP/1.1 400 Bad Request\r\n'),
    frame(Command.HelloOk, u8(1), text('no json')),
    frame(Command.HelloOk, u8(1), text('{"initial_credit":-1}')),
    frame(Command.HelloOk),
    u32(MAX_FRAME + 1),
  ]) {
    const daemon = await fake(greeting, () => undefined);
    await assert.rejects(Pilot.connect({ socket: daemon.socket }), { name: 'PilotError', code: 'internal' });
  }
  const silent = await fake(undefined, () => undefined);
  const limited = Pilot.connect({ socket: silent.socket, signal: AbortSignal.timeout(50) });
  await assert.rejects(limited, { code: 'timeout' });
  const rude = await fake(HELLO, (_said, socket) => {
    socket.destroy();
  });
  await assert.rejects(Pilot.connect({ socket: rude.socket }), { code: 'not_running' });
});

test('more data than granted ends the connection', async () => {
  const daemon = await fake(HELLO, polite);
  const { pilot, stream } = await dialed(daemon);
  daemon.peer().write(frame(Command.Recv, u32(5), Buffer.alloc(1000)));
  assert.equal((await stream.read())?.length, 1000);
  // Read bytes are granted again.
  daemon.peer().write(frame(Command.Recv, u32(5), Buffer.alloc(1001)));
  await assert.rejects(stream.read(), { code: 'internal', message: /more data than granted/ });
  await pilot.close();
});

test('no more is written than granted', async () => {
  const daemon = await fake(HELLO, polite);
  const { pilot, stream } = await dialed(daemon);
  const writing = stream.write(Buffer.alloc(2500));
  const sent = (): number =>
    daemon.heard.filter((said) => said[0] === Command.Send).reduce((sum, said) => sum + said.length - 5, 0);
  const round = async (): Promise<void> => {
    // Whatever was to be written before the answer to this has been.
    await pilot.info();
  };
  await round();
  assert.equal(sent(), 1000);
  daemon.peer().write(frame(Command.Credit, u32(5), u32(700)));
  await round();
  await round();
  assert.equal(sent(), 1700);
  daemon.peer().write(frame(Command.Credit, u32(5), u32(800)));
  await writing;
  await round();
  assert.equal(sent(), 2500);
  await pilot.close();
});

test('a reset shows its failure after what came before, unknown classes too', async () => {
  const daemon = await fake(HELLO, polite);
  const { pilot, stream } = await dialed(daemon);
  const failure = text('{"code":"quota","message":"enough","hint":"pay","more":1}');
  const lines = [frame(Command.Recv, u32(5), text('last')), frame(Command.Reset, u32(5), failure)];
  daemon.peer().write(Buffer.concat(lines));
  assert.equal((await stream.read())?.toString(), 'last');
  await assert.rejects(stream.read(), { code: 'other', message: 'enough', hint: 'pay' });
  await assert.rejects(stream.write('x'), { code: 'other' });
  await stream.close();
  await pilot.close();
});

test('a flood of streams and datagrams is bounded, and does not starve those who wait', async () => {
  const daemon = await fake(HELLO, polite);
  const pilot = await Pilot.connect({ socket: daemon.socket });
  const listener = await pilot.listen(9);
  const from = service({ network: 0, node: 2 }, 7);
  const streams = Array.from({ length: 2000 }, (_, at) => frame(Command.Accept, u16(9), u32(at + 10), from));
  daemon.peer().write(Buffer.concat(streams));
  await pilot.info();
  await pilot.info();
  const refused = (): number => daemon.heard.filter((said) => said[0] === Command.Reset).length;
  while (refused() < 2000 - 128) await pilot.info();
  assert.equal(refused(), 2000 - 128);
  assert.equal((await listener.accept()).id, 10);
  const datagrams = await pilot.datagrams(10);
  const data = Array.from({ length: 1000 }, (_, at) => frame(Command.RecvFrom, from, u16(10), u16(at)));
  data.push(frame(Command.RecvFrom, from, u16(11), text('for somebody else')));
  daemon.peer().write(Buffer.concat(data));
  await pilot.info();
  await pilot.info();
  assert.equal((await datagrams.receive()).data.readUInt16BE(0), 0);
  await pilot.close();
});

test('garbage ends the connection with a reason, and everybody who waits is told', async () => {
  for (const garbage of [
    frame(Command.Accept, u8(1)),
    frame(0x7f),
    frame(Command.Send, u32(5)),
    frame(Command.Reset, u32(5), text('{')),
    frame(Command.TaggedOk, u16(1)),
    u32(0xffffffff),
  ]) {
    const daemon = await fake(HELLO, polite);
    const { pilot, stream } = await dialed(daemon);
    const waiting = [stream.read(), pilot.status(), stream.write(Buffer.alloc(5000))];
    const ended = Promise.all(waiting.map((wait) => assert.rejects(wait, { code: 'internal' })));
    daemon.peer().write(garbage);
    await ended;
    await pilot.close();
  }
});

test('answers to nobody, of the wrong kind, and without JSON are survived', async () => {
  const daemon = await fake(HELLO, (said, socket) => {
    const reader = new Reader(said, 1);
    const tag = u32(reader.u32());
    const command = reader.u8();
    if (command === Command.Call) socket.write(frame(Command.TaggedOk, tag, u8(Command.CallOk), text('{no json')));
    else if (command === Command.Health) socket.write(frame(Command.TaggedOk, tag, u8(Command.BindOk), u16(1)));
    else polite(said, socket);
  });
  const pilot = await Pilot.connect({ socket: daemon.socket });
  daemon.peer().write(frame(Command.TaggedOk, u32(4711), u8(Command.DialOk), u32(77)));
  daemon.peer().write(frame(Command.CloseOk, u32(99)));
  await assert.rejects(pilot.status(), { code: 'internal' });
  await assert.rejects(pilot.health(), { code: 'internal', message: /was expected/ });
  assert.equal((await pilot.info()).hostname, 'fake');
  await pilot.close();
});

test('a stream that was opened for nobody is closed again', async () => {
  let tag: Buffer | undefined;
  const daemon = await fake(HELLO, (said, socket) => {
    if (said[5] === Command.Dial) tag = said.subarray(1, 5);
    else polite(said, socket);
  });
  const pilot = await Pilot.connect({ socket: daemon.socket });
  const stop = new AbortController();
  const dialing = pilot.dial(2, 1000, { signal: stop.signal });
  while (!tag) await pilot.info();
  stop.abort();
  await assert.rejects(dialing, { code: 'cancelled' });
  daemon.peer().write(frame(Command.TaggedOk, tag, u8(Command.DialOk), u32(6)));
  const closed = (): boolean => daemon.heard.some((said) => said.equals(Buffer.concat([u8(Command.Close), u32(6)])));
  while (!closed()) await pilot.info();
  await pilot.close();
});

test('a reference daemon is asked one thing at a time, and what it cannot is said to be unsupported', async () => {
  const asked: Buffer[] = [];
  const unknown = frame(Command.Error, u16(1), text('unknown command: 0x80'));
  const daemon = await fake(unknown, (said, socket) => {
    asked.push(said);
    if (said[0] === Command.Info) socket.write(frame(Command.InfoOk, INFO));
    // Data overtakes the announcement of its stream.
    if (said[0] === Command.Dial) {
      socket.write(Buffer.concat([frame(Command.Recv, u32(3), text('early')), frame(Command.DialOk, u32(3))]));
    }
    if (said[0] === Command.Close) socket.write(frame(Command.CloseOk, said.subarray(1)));
    if (said[0] === Command.SetHostname) {
      socket.write(frame(Command.Error, u16(1), text('registry: hostname already taken')));
    }
  });
  const pilot = await Pilot.connect({ socket: daemon.socket });
  assert.equal(pilot.isReference, true);
  const [info, stream] = await Promise.all([pilot.info(), pilot.dial(2, 1000)]);
  assert.equal(info.hostname, 'fake');
  assert.equal((await stream.read())?.toString(), 'early');
  await stream.end('no half-close here');
  await assert.rejects(stream.drain(), { code: 'unsupported' });
  await stream.close();
  await assert.rejects(pilot.setHostname('x'), { code: 'already_exists' });
  await assert.rejects(pilot.status(), { code: 'unsupported', hint: /pilotctl daemon start/ });
  await assert.rejects(pilot.inbox().next(), { code: 'unsupported' });
  await assert.rejects(pilot.serve(), { code: 'unsupported' });
  await assert.rejects(pilot.queueMessage(2, 'x'), { code: 'unsupported' });
  assert.throws(() => pilot.request(2, 'x'), { code: 'unsupported' });
  assert.ok(asked.every((said) => (said[0] ?? 0) < 0x80));
  await pilot.close();
});

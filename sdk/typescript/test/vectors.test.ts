/** Formats against what real drivers and daemons were recorded to say, and what follows from the specification. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { formatAddress, literalAddress, parseAddress } from '../src/address.js';
import { referenceFailure } from '../src/errors.js';
import { Parts, type Piece } from '../src/parts.js';
import { EventDecoder, eventFrame, isWild, matches, wireTopic } from '../src/wire/events.js';
import { isUnsupported, parseAnswerText, taggedFrame } from '../src/wire/exchange.js';
import { Command, frame, FrameDecoder, MAX_FRAME, Reader, service, u16, u32 } from '../src/wire/frames.js';
import { camel, parseJson, snake, toJson } from '../src/wire/json.js';
import { REPOSITORY } from './world.js';

interface Recorded {
  dir: string;
  name: string;
  frame_hex: string;
  json?: unknown;
}

interface Vectors {
  sessions: Record<string, { frames: Recorded[] }[]>;
}

function recorded(): (Recorded & { bytes: Buffer })[] {
  const text = readFileSync(join(REPOSITORY, 'crates/wire/tests/vectors/ipc.json'), 'utf8');
  const { sessions } = JSON.parse(text) as Vectors;
  return Object.values(sessions)
    .flat()
    .flatMap(({ frames }) => frames)
    .map((entry) => ({ ...entry, bytes: Buffer.from(entry.frame_hex, 'hex') }))
    .filter(({ bytes, frame_hex }) => bytes.length * 2 === frame_hex.length && bytes.length >= 5)
    .filter(({ bytes }) => bytes.readUInt32BE(0) === bytes.length - 4);
}

test('every recorded frame is cut and written again byte for byte, in any segmentation', () => {
  const frames = recorded();
  assert.ok(frames.length > 300, `only ${String(frames.length)} were recorded`);
  const wire = Buffer.concat(frames.map(({ bytes }) => bytes));
  for (const step of [1, 7, 4096, wire.length]) {
    const decoder = new FrameDecoder();
    const cut: Buffer[] = [];
    for (let at = 0; at < wire.length; at += step) {
      decoder.feed(wire.subarray(at, at + step));
      for (let next = decoder.next(); next; next = decoder.next()) cut.push(next);
    }
    assert.ok(decoder.isEmpty);
    assert.equal(cut.length, frames.length);
    const again = cut.map((bytes) => frame(bytes[0] ?? 0, bytes.subarray(1)));
    assert.ok(Buffer.concat(again).equals(wire), `in steps of ${String(step)}`);
  }
});

test('recorded requests are what this driver writes, and recorded pushes are read', () => {
  const seen = new Set<string>();
  for (const { bytes, dir, json, name } of recorded()) {
    const reader = new Reader(bytes, 4);
    const command = reader.u8();
    const fields = new Reader(bytes, 5);
    if (dir === 'driver->daemon') {
      if (command === Command.Dial) {
        const written = frame(command, service(fields.address(), fields.u16()));
        assert.ok(written.equals(bytes));
      } else if (command === Command.Bind) {
        assert.ok(frame(command, u16(fields.u16())).equals(bytes));
      } else if (command === Command.Close) {
        assert.ok(frame(command, u32(fields.u32())).equals(bytes));
      } else if (command === Command.Send) {
        assert.ok(frame(command, u32(fields.u32()), fields.rest()).equals(bytes));
      } else continue;
    } else if (json !== undefined) {
      assert.deepEqual(parseJson(fields.rest().toString('utf8')), json);
    } else if (command === Command.Accept) {
      assert.ok(fields.u16() > 0 && fields.u32() > 0 && fields.address().node > 0 && fields.u16() > 0);
      assert.equal(fields.rest().length, 0);
    } else continue;
    seen.add(name);
  }
  for (const name of ['Dial', 'Send', 'Close', 'InfoOK']) assert.ok(seen.has(name), `${name} in ${[...seen].join(' ')}`);
});

test('the largest frame passes and one byte more does not', () => {
  const decoder = new FrameDecoder();
  decoder.feed(frame(6, Buffer.alloc(MAX_FRAME - 1)));
  assert.equal(decoder.next()?.length, MAX_FRAME);
  decoder.feed(u32(MAX_FRAME + 1));
  assert.throws(() => decoder.next(), /over the limit/);
  const empty = new FrameDecoder();
  empty.feed(Buffer.from([0, 0, 0, 0, 0, 0, 0, 1, 13]));
  assert.deepEqual(empty.next(), Buffer.from([13]));
});

test('addresses are read and written', () => {
  for (const text of ['0:0000.0000.0002', '1:0001.DEAD.BEEF', '65535:FFFF.FFFF.FFFF']) {
    const address = parseAddress(text);
    assert.ok(address);
    assert.equal(formatAddress(address), text);
  }
  for (const text of ['', '0', '0:0000.0000', '1:0000.0000.0001', '0:0000.0000.00G1', '70000:0000.0000.0001', '0:0000.0000.0001:7']) {
    assert.equal(parseAddress(text), undefined, text);
  }
  assert.deepEqual(literalAddress('17'), { network: 0, node: 17 });
  assert.equal(literalAddress('agent-b'), undefined);
});

test('large numbers keep all their digits, texts stay texts', () => {
  const text = '{"a":1764224999123456789,"b":"1764224999123456789","c":[-9223372036854775808,7],"d":"x\\\\\\",1764224999123456789,\\""}';
  const value = parseJson(text) as Record<string, unknown>;
  assert.deepEqual(value, {
    a: 1764224999123456789n,
    b: '1764224999123456789',
    c: [-9223372036854775808n, 7],
    d: 'x\\",1764224999123456789,"',
  });
  assert.equal(toJson(value), text);
  assert.equal(toJson(parseJson('{"f":0.1234567890123456789}')), '{"f":0.12345678901234568}');
  assert.throws(() => parseJson('{"a":1764224999123456789'));
  assert.throws(() => parseJson('"1764224999123456789'));
  assert.deepEqual(camel({ node_id: 1, peer_list: [{ rtt_us: 2 }] }), { nodeId: 1, peerList: [{ rttUs: 2 }] });
  assert.deepEqual(snake({ sinceNs: 1n, text: 'sinceNs' }), { since_ns: 1n, text: 'sinceNs' });
});

test('answers of receivers are understood, old ones too', () => {
  assert.deepEqual(parseAnswerText('ACK TEXT 5 bytes (duplicate)'), {
    is: 'stored',
    kind: 1,
    bytes: 5,
    duplicate: true,
    text: 'ACK TEXT 5 bytes (duplicate)',
  });
  for (const text of ['ACK UNKNOWN(10) 31 bytes', 'ERR UNKNOWN(10) save failed: unsupported frame type 10']) {
    assert.ok(isUnsupported(parseAnswerText(text), 10), text);
  }
  for (const text of ['', 'ACK', 'ACK TEXT -1 bytes', 'OK', 'ACK NOPE 1 bytes', 'ACK TEXT 01 bytes']) {
    assert.throws(() => parseAnswerText(text), { code: 'unsupported' }, text);
  }
  const tagged = taggedFrame({ message_id: 'm-1', reply_to: 'q-1' }, 1, Buffer.from('hello'));
  const expected = '\0\0\0\x0a\0\0\0\x30\0\x25{"message_id":"m-1","reply_to":"q-1"}\0\0\0\x01hello';
  assert.equal(tagged.toString('latin1'), expected);
});

test('events are cut whole, and the example of the specification is written', () => {
  const wire = eventFrame('news', Buffer.from('hello'));
  assert.equal(wire.toString('hex'), '00046e6577730000000568656c6c6f');
  for (let cut = 0; cut <= wire.length; cut += 1) {
    const decoder = new EventDecoder();
    decoder.feed(wire.subarray(0, cut));
    assert.equal(decoder.next() === undefined, cut < wire.length);
    decoder.feed(wire.subarray(cut));
    if (cut < wire.length) assert.equal(decoder.next()?.topic, 'news');
  }
  const hostile = new EventDecoder();
  hostile.feed(Buffer.from([0, 1, 116, 1, 0, 0, 1]));
  assert.throws(() => hostile.next(), { code: 'internal' });
});

test('patterns match as those of the daemon do', () => {
  const table: [string, string[], string[]][] = [
    ['*', ['a', 'a.b', 'a/b', ''], []],
    ['#', ['a', 'a.b', ''], []],
    ['news', ['news'], ['new', 'news.a', 'newss', '']],
    ['tasks.*', ['tasks.a', 'tasks.*', 'tasks.'], ['tasks', 'tasks.a.b', 'tasks/a', 'xtasks.a']],
    ['*.done', ['a.done', '.done'], ['a.b.done', 'done', 'a.doner']],
    ['agent-*.results', ['agent-b.results', 'agent-.results'], ['agent.results', 'agent-b.c.results']],
    ['a.b.>', ['a.b.c', 'a.b.c.d', 'a.b.c/d'], ['a.b', 'a.bc', 'a.b/c']],
    ['a/b/#', ['a/b', 'a/b/c', 'a/b/c/d'], ['a/bc', 'a', 'a/b.c']],
    ['*/x/>', ['q/x/y'], ['q/x', 'x/y']],
    ['a*b*c', ['abc', 'aXbYbZc'], ['ab', 'ac', 'abcd']],
    ['', [''], ['a']],
  ];
  for (const [pattern, yes, no] of table) {
    for (const topic of yes) assert.ok(matches(pattern, topic), `${pattern} ${topic}`);
    for (const topic of no) assert.ok(!matches(pattern, topic), `${pattern} ${topic}`);
  }
  assert.deepEqual(['news', 'a.*', 'a.>', 'a>b'].map(isWild), [false, true, true, false]);
  assert.equal(wireTopic('a.>'), '*');
  assert.ok(!matches(`${'*a'.repeat(500)}b`, 'a'.repeat(1000)));
});

test('pieces are handed out once, whatever is lost, repeated or begun anew', () => {
  const words = (pieces: Piece[]): string[] =>
    pieces.map((piece) => (piece.type === 'restarted' ? '!' : piece.data.toString()));
  const parts = new Parts();
  const part = (run: bigint, number: number, text: string): string[] =>
    words(parts.onPiece(run, number, 'part', Buffer.from(text)));
  assert.deepEqual(part(5n, 1, 'one '), ['one ']);
  assert.deepEqual(part(5n, 1, 'one '), []);
  assert.deepEqual(part(5n, 3, 'three'), []);
  assert.deepEqual(words(parts.onPiece(5n, 4, 'progress', Buffer.from('90 %'))), ['90 %']);
  assert.deepEqual(part(6n, 1, 'new'), ['!', 'new']);
  assert.deepEqual(part(5n, 9, 'late'), []);
  assert.deepEqual(words(parts.onAnswer(Buffer.from('new!'))), ['!'.repeat(1)]);
  const other = new Parts();
  other.onPiece(1n, 1, 'part', Buffer.from('maybe'));
  assert.deepEqual(words(other.onAnswer(Buffer.from('no'))), ['!', 'no']);
});

test('failures of a reference daemon have a class', () => {
  for (const [text, code] of [
    ['connection refused', 'refused'],
    ['resolve node 99: registry: node 99: node not found', 'not_found'],
    ['refusing tunnel to untrusted node', 'not_trusted'],
    ['port 7 already bound', 'already_exists'],
    ['unknown command: 0x8A', 'unsupported'],
    ['something else', 'other'],
  ] as const) {
    assert.equal(referenceFailure(text).code, code, text);
  }
});

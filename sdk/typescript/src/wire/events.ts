/** Event stream, port 1002: `u16 topic length | topic | u32 payload length | payload`, nothing acknowledged. */

import { randomBytes } from 'node:crypto';

import { invalid, protocolError } from '../errors.js';
import { ByteQueue } from './bytes.js';
import { text, u16, u32 } from './frames.js';
import { asObject, parseJson, toJson, type Json } from './json.js';

/** Longest topic in bytes; brokers close the connection of a longer one. */
const MAX_TOPIC = 1024;

/** Longest payload in bytes; brokers close the connection of a longer one. */
const MAX_PAYLOAD = 16 << 20;

/** The subscription to everything. */
const EVERYTHING = '*';

/** Topics that begin so are never delivered to others: they are between a broker and one subscriber. */
export const RESERVED_PREFIX = '\0pilot.';

/** What a connection subscribes to that only publishes: nothing. */
export const NOTHING = '\0pilot.nothing';

/** One event, or (first on a connection) a subscription. */
export interface RawEvent {
  readonly topic: string;
  readonly payload: Buffer;
}

/** The frame of an event. */
export function eventFrame(topic: string, payload: Uint8Array): Buffer {
  const label = text(topic);
  if (label.length > MAX_TOPIC) {
    throw invalid(`a topic of ${String(label.length)} bytes is over the limit of ${String(MAX_TOPIC)}`);
  }
  if (payload.length > MAX_PAYLOAD) {
    const limit = String(MAX_PAYLOAD);
    throw invalid(`an event of ${String(payload.length)} bytes is over the limit of ${limit}`, 'send a message or a file');
  }
  return Buffer.concat([u16(label.length), label, u32(payload.length), payload]);
}

/** Collects bytes in any segmentation and gives out whole events; memory follows what really arrived. */
export class EventDecoder {
  readonly #bytes = new ByteQueue();

  feed(bytes: Buffer): void {
    this.#bytes.push(bytes);
  }

  next(): RawEvent | undefined {
    if (this.#bytes.length < 2) return undefined;
    const topicLength = this.#bytes.peek(2).readUInt16BE(0);
    if (topicLength > MAX_TOPIC) throw protocolError(`a topic of ${String(topicLength)} bytes`);
    const head = 2 + topicLength + 4;
    if (this.#bytes.length < head) return undefined;
    const start = this.#bytes.peek(head);
    const length = start.readUInt32BE(head - 4);
    if (length > MAX_PAYLOAD) throw protocolError(`an event of ${String(length)} bytes`);
    if (this.#bytes.length < head + length) return undefined;
    const topic = start.toString('utf8', 2, head - 4);
    return { topic, payload: this.#bytes.take(head + length).subarray(head) };
  }
}

/** The secret between a broker and one subscriber, so that no publisher can forge a note. */
export class NoteToken {
  readonly #token = randomBytes(16).toString('hex');

  /** The subscription that asks for notes and for `wishes`. */
  subscription(topic: string, wishes?: Json): Buffer {
    const asked = wishes ? ` ${toJson(wishes)}` : '';
    return eventFrame(topic, text(`pilot.notes:${this.#token}${asked}`));
  }

  /** The note an event carries, if it is one and of this token. */
  read(event: RawEvent): Json | undefined {
    if (event.topic !== `${RESERVED_PREFIX}${this.#token}`) return undefined;
    try {
      return asObject(parseJson(event.payload.toString('utf8')));
    } catch {
      return undefined;
    }
  }
}

/**
 * Whether an event of this topic is wanted. Levels are separated by `.` or `/`; `*` stands for anything within a
 * level, a last level `>` for one level and more, `#` for none and more; `*`, `#` or `>` alone for every topic.
 */
export function matches(pattern: string, topic: string): boolean {
  if (pattern === topic || pattern === EVERYTHING || pattern === '#' || pattern === '>') return true;
  const rest = restOf(pattern);
  if (!rest) return prefixMatches(pattern, topic) === '';
  const after = prefixMatches(rest.parent, topic);
  return after === rest.separator || (rest.orParent && after === '');
}

/** Whether a pattern can match more than the topic of the same text. */
export function isWild(pattern: string): boolean {
  return pattern.includes('*') || pattern === '#' || pattern === '>' || restOf(pattern) !== undefined;
}

/** What to subscribe to at a broker that knows only literal topics and `*`. */
export function wireTopic(pattern: string): string {
  return isWild(pattern) ? EVERYTHING : pattern;
}

function restOf(pattern: string): { parent: string; separator: string; orParent: boolean } | undefined {
  const wildcard = pattern.at(-1);
  const separator = pattern.at(-2);
  if ((wildcard !== '>' && wildcard !== '#') || (separator !== '.' && separator !== '/')) return undefined;
  return { parent: pattern.slice(0, -2), separator, orParent: wildcard === '#' };
}

/**
 * Matches the levels of `pattern` against the first levels of `topic`: undefined when they differ, else the
 * separator after which the topic goes on, or nothing.
 */
function prefixMatches(pattern: string, topic: string): string | undefined {
  const wanted = pattern.split(/([./])/);
  const found = topic.split(/([./])/);
  for (const [at, part] of wanted.entries()) {
    const other = found[at];
    if (other === undefined) return undefined;
    // Levels and separators take turns.
    if (at % 2 === 1 ? part !== other : !levelMatches(part, other)) return undefined;
  }
  return found[wanted.length] ?? '';
}

/** Glob within one level. Backtracks to the last star only, so it is at worst quadratic. */
function levelMatches(pattern: string, level: string): boolean {
  let [p, t] = [0, 0];
  let star: { at: number; taken: number } | undefined;
  while (t < level.length) {
    if (pattern[p] === '*') {
      star = { at: p, taken: t };
      p += 1;
    } else if (pattern[p] === level[t]) {
      p += 1;
      t += 1;
    } else if (star) {
      star.taken += 1;
      p = star.at + 1;
      t = star.taken;
    } else {
      return false;
    }
  }
  return /^\**$/.test(pattern.slice(p));
}

/** JSON with whole numbers beyond 2^53: the daemon counts in nanoseconds since 1970. They are read as `bigint`. */

import { randomBytes } from 'node:crypto';

/** Stands before the digits of a large number while it is a string. Nobody outside this process can guess it. */
const MARK = `#${randomBytes(12).toString('hex')}:`;

const LARGE = /(^|[[{:,\s])(-?\d{16,})(?=[\s,\]}]|$)/g;
const MARKED = new RegExp(`"${MARK}(-?\\d+)"`, 'g');

/** Reads JSON. Whole numbers of 16 digits and more become `bigint`. */
export function parseJson(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text) as unknown;
  return JSON.parse(markNumbers(text), (_key, value: unknown) =>
    typeof value === 'string' && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value,
  ) as unknown;
}

/** Writes JSON; `bigint` becomes a number with all its digits. */
export function toJson(value: unknown): string {
  const text = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'bigint' ? `${MARK}${item.toString()}` : item,
  );
  return text.includes(MARK) ? text.replace(MARKED, '$1') : text;
}

/** Puts large numbers outside of strings into marked strings. */
function markNumbers(text: string): string {
  const parts: string[] = [];
  let at = 0;
  while (at < text.length) {
    const quote = text.indexOf('"', at);
    if (quote < 0) break;
    parts.push(text.slice(at, quote).replace(LARGE, `$1"${MARK}$2"`));
    let end = quote + 1;
    for (;;) {
      end = text.indexOf('"', end);
      if (end < 0) return text; // Not JSON; the parser says so.
      let slashes = 0;
      while (text[end - 1 - slashes] === '\\') slashes += 1;
      end += 1;
      if (slashes % 2 === 0) break;
    }
    parts.push(text.slice(quote, end));
    at = end;
  }
  parts.push(text.slice(at).replace(LARGE, `$1"${MARK}$2"`));
  return parts.join('');
}

/** Something in JSON of the daemon. */
export type Json = Record<string, unknown>;

/** `node_id` is `nodeId` in JavaScript. Keys only; texts stay as they are. */
export function camel(value: unknown): unknown {
  return renamed(value, (key) => key.replace(/_([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase()));
}

/** The other way. */
export function snake(value: unknown): unknown {
  return renamed(value, (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
}

function renamed(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const result: Json = {};
  for (const [key, item] of Object.entries(value)) {
    if (item !== undefined && key !== '__proto__') result[rename(key)] = renamed(item, rename);
  }
  return result;
}

/** A JSON object, or an empty one when the value is none. */
export function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

export function asArray(value: unknown): unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

export function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** A count of the daemon; 0 when there is none. */
export function asNumber(value: unknown): number {
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : 0;
}

export function asBigInt(value: unknown): bigint {
  if (typeof value === 'bigint') return value;
  return typeof value === 'number' && Number.isInteger(value) ? BigInt(value) : 0n;
}

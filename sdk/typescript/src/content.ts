/** What messages carry, in and out. */

import { randomBytes } from 'node:crypto';

import { invalid, protocolError } from './errors.js';
import { asText, type Json } from './wire/json.js';

/** What the bytes of a message are. */
export type MessageKind = 'text' | 'json' | 'binary';

/** Something that can be sent: text, bytes, or anything that `JSON.stringify` takes. */
export type Content = string | Uint8Array | readonly unknown[] | Readonly<Record<string, unknown>>;

/** Bytes and what they are. */
export interface Packed {
  readonly kind: MessageKind;
  readonly data: Buffer;
}

/** Texts are text, bytes are binary, everything else is JSON, unless `kind` says otherwise. */
export function pack(content: Content, kind?: MessageKind): Packed {
  if (typeof content === 'string') return { kind: kind ?? 'text', data: Buffer.from(content, 'utf8') };
  if (content instanceof Uint8Array) {
    const { buffer, byteOffset, byteLength } = content;
    return { kind: kind ?? 'binary', data: Buffer.from(buffer, byteOffset, byteLength) };
  }
  const json = JSON.stringify(content) as string | undefined;
  if (json === undefined) throw invalid('what is sent must be text, bytes, or something that JSON can hold');
  return { kind: kind ?? 'json', data: Buffer.from(json, 'utf8') };
}

/** Bytes that were received, in the form that is wanted. */
export class Body {
  /** The bytes, exactly as they were sent. */
  readonly data: Buffer;

  constructor(data: Buffer) {
    this.data = data;
  }

  /** As UTF-8 text. */
  text(): string {
    return this.data.toString('utf8');
  }

  /** As JSON. What a peer sends is not checked: look at it before you trust its shape. */
  json(): unknown {
    return JSON.parse(this.text()) as unknown;
  }
}

/** The bytes of a message as the inbox writes it down. */
export function bodyOf(message: Json): Buffer {
  const base64 = asText(message.data_b64);
  if (base64 !== undefined) return Buffer.from(base64, 'base64');
  const plain = asText(message.data);
  if (plain === undefined) throw protocolError('the stored message is damaged: it has no data');
  return Buffer.from(plain, 'utf8');
}

/** A new random message id: 32 hexadecimal digits. */
export function newMessageId(): string {
  return randomBytes(16).toString('hex');
}

/** An id that receivers accept. */
export function checkId(id: string): string {
  if (!/^[A-Za-z0-9._:-]{1,128}$/.test(id)) {
    throw invalid('a message id has 1 to 128 letters, digits and `. _ : -`');
  }
  return id;
}

/** The time, in nanoseconds since 1970. */
export function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

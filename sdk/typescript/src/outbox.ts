/** Messages that the daemon delivers when it can: handed over, asked for, waited for, taken back. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { formatAddress, type Address } from './address.js';
import { sleep } from './condition.js';
import { checkId, pack, type Content, type MessageKind, type Packed } from './content.js';
import { invalid, isLost, protocolError } from './errors.js';
import { RECONNECT_PAUSE_MS, type Link } from './link.js';
import type { CallOptions } from './stream.js';
import { MAX_MESSAGE } from './wire/exchange.js';
import { asArray, asNumber, asObject, asText, camel, type Json } from './wire/json.js';

/** Longest message that fits into a request to the daemon. */
const INLINE_MAX = 512 << 10;

/** How far a message came. Later states come after earlier ones; the last three end it. */
export type DeliveryState =
  /** On this node's disk, to be delivered. */
  | 'queued'
  /** On its way: with a mailbox, or written to the peer and not answered yet. */
  | 'sent'
  /** In the peer's inbox. */
  | 'stored'
  /** A program of the peer has taken it from there. */
  | 'read'
  /** An answer that names it is in our inbox. */
  | 'answered'
  /** Its time ran out before it was stored. */
  | 'expired'
  /** The peer does not want it, and will not. */
  | 'refused'
  /** Taken back before it was stored. */
  | 'cancelled';

/** Their order. */
export const STATES: readonly DeliveryState[] = [
  'queued',
  'sent',
  'stored',
  'read',
  'answered',
  'expired',
  'refused',
  'cancelled',
];

/** A message as the outbox knows it. */
export interface OutboxItem {
  /** Its id. */
  readonly id: string;
  /** Whom it is for. */
  readonly to: string;
  readonly toHostname?: string;
  readonly kind: MessageKind | 'file';
  readonly bytes: number;
  /** The name of a file. */
  readonly name?: string;
  readonly replyTo?: string;
  /** How far it came. */
  readonly state: DeliveryState;
  readonly createdAt: string;
  /** When it came as far as `state`. */
  readonly stateAt: string;
  /** Until when it is tried. */
  readonly expiresAt: string;
  /** How often it was tried. */
  readonly attempts: number;
  readonly nextTryMs?: number;
  /** Why the last try failed, or the message was refused. */
  readonly reason?: string;
  /** The mailbox that keeps it. */
  readonly via?: string;
  /** What the receiver answered, in its own words. */
  readonly ack?: string;
  readonly tagged?: boolean;
}

/** What an outbox holds. */
export interface Outbox {
  /** The newest messages that were asked for, oldest of them first. */
  readonly items: readonly OutboxItem[];
  /** How many wait to be delivered in all. */
  readonly pending: number;
  /** Bytes of those. */
  readonly pendingBytes: number;
}

/** How a message is handed over. */
export interface QueueOptions extends CallOptions {
  /** What its bytes are; told from the content when absent. */
  kind?: MessageKind | undefined;
  /** Its id; random when absent. The same id again is the same message, and is delivered once. */
  messageId?: string | undefined;
  /** The id of the message it answers. */
  replyTo?: string | undefined;
  /** For how long the daemon tries: seven days when absent, and thirty at most. */
  ttlMs?: number | undefined;
  /** The call resolves only when the message came this far, or {@link QueueOptions.patienceMs} is over. */
  until?: DeliveryState | undefined;
  /** How long that may take; not at all when absent. */
  patienceMs?: number | undefined;
}

/** Hands a message over to the daemon. */
export async function queueMessage(
  link: Link,
  to: Address,
  content: Content,
  options: QueueOptions,
): Promise<OutboxItem> {
  const packed = pack(content, options.kind);
  return withBody(packed, (body) => send(link, to, { kind: packed.kind, body }, options));
}

/** Hands a file over to the daemon, which takes a copy before it answers. */
export function queueFile(
  link: Link,
  to: Address,
  path: string,
  options: QueueOptions & { name?: string | undefined },
): Promise<OutboxItem> {
  const content = { kind: 'file', body: { path: resolve(path) }, name: options.name };
  return send(link, to, content, options);
}

async function send(link: Link, to: Address, content: Json, options: QueueOptions): Promise<OutboxItem> {
  if (options.messageId !== undefined) checkId(options.messageId);
  if (options.replyTo !== undefined) checkId(options.replyTo);
  const request = {
    call: 'outbox',
    op: 'send',
    to: formatAddress(to),
    ...content,
    message_id: options.messageId,
    reply_to: options.replyTo,
    ttl_ms: options.ttlMs,
    until: options.until,
    wait_ms: options.patienceMs ?? 0,
  };
  const connection = await link.connection();
  return itemOf(await connection.call(request, options.signal));
}

export async function listOutbox(
  link: Link,
  to: number | undefined,
  pending: boolean,
  limit: number | undefined,
): Promise<Outbox> {
  const connection = await link.connection();
  const reply = asObject(await connection.call({ call: 'outbox', op: 'list', to, pending, limit }));
  return {
    items: asArray(reply.items).map((item) => camel(item) as OutboxItem),
    pending: asNumber(reply.pending),
    pendingBytes: asNumber(reply.pending_bytes),
  };
}

export async function showOutbox(link: Link, op: 'show' | 'cancel', id: string): Promise<OutboxItem> {
  const connection = await link.connection();
  return itemOf(await connection.call({ call: 'outbox', op, id: checkId(id) }));
}

/** Waits until a message has come so far, never will, or the time is over. Outlives a restart of the daemon. */
export async function waitOutbox(
  link: Link,
  id: string,
  until: DeliveryState,
  limitMs: number,
  signal?: AbortSignal,
): Promise<OutboxItem> {
  const end = Date.now() + limitMs;
  for (;;) {
    const left = Math.max(end - Date.now(), 0);
    try {
      const connection = await link.connection();
      const wait = { call: 'outbox', op: 'wait', id: checkId(id), until, timeout_ms: left };
      return itemOf(await connection.call(wait, signal));
    } catch (error) {
      if (!isLost(error) || left === 0) throw error;
      await sleep(RECONNECT_PAUSE_MS, signal);
    }
  }
}

/** An item in a reply of the daemon. */
export function itemOf(value: unknown): OutboxItem {
  const item = asObject(value);
  if (asText(item.id) === undefined) throw protocolError('unexpected answer about the outbox');
  return camel(item) as OutboxItem;
}

/** A message that does not fit into a request goes through a file, which is removed again. */
export async function withBody<T>({ data }: Packed, work: (body: Json) => Promise<T>): Promise<T> {
  if (data.length > MAX_MESSAGE) {
    const limit = String(MAX_MESSAGE);
    throw invalid(`a message of ${String(data.length)} bytes is over the limit of ${limit}`, 'send it as a file');
  }
  if (data.length <= INLINE_MAX) return work({ inline: data.toString('base64') });
  const folder = await mkdtemp(join(tmpdir(), 'pilot-'));
  try {
    const path = join(folder, 'message');
    await writeFile(path, data, { mode: 0o600 });
    return await work({ path });
  } finally {
    // The system's own cleaning takes what could not be removed.
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
  }
}

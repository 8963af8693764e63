/** Messages of the inbox. */

import { readFile } from 'node:fs/promises';

import { Body, bodyOf, type MessageKind } from './content.js';
import { PilotError, protocolError, systemError } from './errors.js';
import { asBigInt, asNumber, asObject, asText, camel, parseJson, type Json } from './wire/json.js';

/** A message from the inbox. */
export class Mail extends Body {
  /** Its name in the inbox. */
  readonly id: string;
  /** Its file. */
  readonly path: string;
  /** When it arrived, in nanoseconds since 1970. Later messages have more: a place in the inbox. */
  readonly arrivedNs: bigint;
  /** Who sent it: the address that the tunnel proved. */
  readonly from: string;
  /** The sender's hostname, when it was known on arrival. */
  readonly fromHostname: string | undefined;
  /** Fingerprint of the sender's identity key, when it was known on arrival. */
  readonly fromKey: string | undefined;
  /** What its bytes are, as the sender said. */
  readonly kind: MessageKind;
  /** The sender's id of the message. */
  readonly messageId: string | undefined;
  /** The id of the message this one answers. */
  readonly replyTo: string | undefined;
  /** When it arrived, RFC 3339, UTC. */
  readonly receivedAt: string;
  /** What else a sender that is a node of ours says: `request`, `outcome`, `hops` and so on. */
  readonly extension: Readonly<Record<string, unknown>>;
  /** How it came here, as this node saw it: `trust`, `path` and so on. */
  readonly provenance: Readonly<Record<string, unknown>> | undefined;

  /** @internal */
  constructor(id: string, path: string, arrivedNs: bigint, message: Json) {
    super(bodyOf(message));
    this.id = id;
    this.path = path;
    this.arrivedNs = arrivedNs;
    this.from = asText(message.from) ?? '';
    this.fromHostname = asText(message.from_hostname);
    this.fromKey = asText(message.from_key);
    const type = asText(message.type);
    this.kind = type === 'JSON' ? 'json' : type === 'BINARY' ? 'binary' : 'text';
    this.messageId = asText(message.message_id);
    this.replyTo = asText(message.reply_to);
    this.receivedAt = asText(message.received_at) ?? '';
    this.extension = asObject(camel(message.pilot));
    this.provenance = message.provenance === undefined ? undefined : asObject(camel(message.provenance));
  }
}

/** The message in a letter of the daemon, or in the file that it names: long ones do not fit the local socket. */
export async function mailOf(letter: unknown): Promise<Mail> {
  const { id, path, arrived_ns: arrived, message } = asObject(letter);
  if (typeof id !== 'string' || typeof path !== 'string') throw protocolError('a message without a name');
  let content = message;
  if (content === undefined || content === null) {
    try {
      content = parseJson(await readFile(path, 'utf8'));
    } catch (error) {
      throw systemError(error);
    }
  }
  return new Mail(id, path, asBigInt(arrived), asObject(content));
}

/** Which messages are meant. Nothing set means all of them. */
export interface MailFilter {
  /** Only of this sender: hostname, address or number. */
  from?: string | number | undefined;
  /** Only those that no program has taken. */
  unread?: boolean | undefined;
  /** Only those that arrived later: nanoseconds since 1970. */
  sinceNs?: bigint | undefined;
  /** Only of this kind. */
  kind?: MessageKind | undefined;
  /** Only those with this text somewhere in their body. */
  text?: string | undefined;
}

/** What a list says of one message. */
export interface MailEntry {
  /** Its name in the inbox. */
  readonly id: string;
  /** Its length. */
  readonly bytes: number;
  /** The sender's address. */
  readonly from: string;
  readonly fromHostname?: string;
  /** The sender's id of the message. */
  readonly messageId?: string;
  /** The first characters of a text message. */
  readonly preview?: string;
  /** When a program took it; absent while it is unread. */
  readonly readAt?: string;
  readonly receivedAt: string;
  readonly arrivedNs: bigint;
  readonly replyTo?: string;
  /** `TEXT`, `JSON` or `BINARY`. */
  readonly type: string;
}

/** A filter as the daemon reads it. */
export function filterJson(filter: MailFilter, from: number | undefined): Json {
  return {
    from,
    unread: filter.unread === true ? true : undefined,
    since_ns: filter.sinceNs,
    type: filter.kind?.toUpperCase(),
    text: filter.text,
  };
}

/** Tells a reply about the mailbox by its name; a refusal is an error. */
export function mailboxReply(value: unknown, ...expected: readonly string[]): Json {
  const reply = asObject(value);
  const is = asText(reply.is) ?? '';
  if (is === 'failed') {
    const code = asText(reply.code) === 'not_found' ? 'not_found' : 'other';
    throw new PilotError(code, asText(reply.message) ?? 'the request failed');
  }
  if (!expected.includes(is)) throw protocolError(`unexpected answer about the mailbox: ${is}`);
  return reply;
}

export function entryOf(value: unknown): MailEntry {
  const entry = asObject(camel(value));
  return { ...entry, bytes: asNumber(entry.bytes), arrivedNs: asBigInt(entry.arrivedNs) } as MailEntry;
}

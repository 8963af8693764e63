/** Messages sent straight to a peer's inbox, answered by its daemon once they are stored there. */

import { endpoint, PORTS, type Address } from './address.js';
import { checkId, newMessageId, nowNs, pack, type Content, type MessageKind, type Packed } from './content.js';
import type { Connection } from './connection.js';
import { invalid, PilotError, protocolError } from './errors.js';
import { PilotStream, type CallOptions } from './stream.js';
import {
  exchangeFrame,
  ExchangeReader,
  FrameType,
  isUnsupported,
  MAX_MESSAGE,
  parseAnswer,
  parseAnswerText,
  taggedFrame,
  type ExchangeAnswer,
  type Timing,
} from './wire/exchange.js';
import { Command, FIRST_BYTES, service, u32, u64 } from './wire/frames.js';

/** How a message is sent. */
export interface MessageOptions extends CallOptions {
  /** What its bytes are; told from the content when absent. */
  kind?: MessageKind | undefined;
  /** Its id; random when absent. Sending again under the same id within ten minutes cannot store it twice. */
  messageId?: string | undefined;
  /** The id of the message it answers. */
  replyTo?: string | undefined;
  /** Whether the receiver is asked for its times. */
  trace?: boolean | undefined;
}

/** The receiver has stored a message. */
export interface Receipt {
  /** The id it was sent under. */
  readonly messageId: string;
  /** Whether the receiver knows ids. If not, an answer cannot name this message. */
  readonly tagged: boolean;
  /** Bytes stored. */
  readonly bytes: number;
  /** The receiver's answer in its own words. */
  readonly ack: string;
  /** Whether it had the message already. */
  readonly duplicate: boolean;
  /** The receiver's times, when asked for. */
  readonly timing?: Timing;
}

const KINDS = { text: FrameType.Text, json: FrameType.Json, binary: FrameType.Binary } as const;

/** The error for something the receiver did not store. */
export function notStored(reason: string): PilotError {
  return new PilotError('busy', `the receiver did not store it: ${reason}`, {
    hint: 'nothing was delivered; make room on the receiver or send something it accepts',
  });
}

/** Opens a stream, and writes to it before the peer has accepted it: what fits costs no round trip. */
export async function dialWith(
  connection: Connection,
  to: Address,
  port: number,
  data: Uint8Array,
  signal?: AbortSignal,
): Promise<PilotStream> {
  const peer = endpoint(to, port);
  const target = service(to, port);
  const first = connection.isReference ? data.subarray(0, 0) : data.subarray(0, FIRST_BYTES);
  const state =
    first.length > 0
      ? await connection.dial(Command.DialWith, Buffer.concat([target, first]), signal)
      : await connection.dial(Command.Dial, target, signal);
  const stream = new PilotStream(connection, state, peer);
  if (data.length > first.length) await stream.write(data.subarray(first.length), { signal });
  return stream;
}

/** Sends a message and waits until the peer has stored it. */
export async function sendMessage(
  connection: Connection,
  to: Address,
  content: Content,
  options: MessageOptions,
): Promise<Receipt> {
  const packed = pack(content, options.kind);
  if (packed.data.length > MAX_MESSAGE) {
    const limit = String(MAX_MESSAGE);
    throw invalid(`a message of ${String(packed.data.length)} bytes is over the limit of ${limit}`, 'send it as a file');
  }
  const id = checkId(options.messageId ?? newMessageId());
  if (options.replyTo !== undefined) checkId(options.replyTo);
  try {
    return await deliver(connection, to, packed, id, options);
  } catch (error) {
    // Under the same id it is stored once, however often it arrives.
    if (!(error instanceof PilotError) || error.code !== 'closed' || options.signal?.aborted) throw error;
    return deliver(connection, to, packed, id, options);
  }
}

async function deliver(
  connection: Connection,
  to: Address,
  packed: Packed,
  id: string,
  options: MessageOptions,
): Promise<Receipt> {
  let tagged = true;
  let traced = options.trace === true;
  const stream = await dialWith(
    connection,
    to,
    PORTS.dataExchange,
    messageFrame(packed, id, tagged, traced, options.replyTo),
    options.signal,
  );
  try {
    const answers = new ExchangeReader(() => stream.read({ signal: options.signal }));
    for (;;) {
      const answer = parseAnswer(await answers.next());
      // An older receiver says so, and gets the message in the older form.
      if (tagged && isUnsupported(answer, FrameType.Tagged)) tagged = false;
      else if (traced && isUnsupported(answer, FrameType.Trace)) traced = false;
      else return receipt(answer, id, tagged);
      await stream.write(messageFrame(packed, id, tagged, traced, options.replyTo), { signal: options.signal });
    }
  } finally {
    stream.close().catch(() => undefined);
  }
}

function messageFrame(
  { kind, data }: Packed,
  id: string,
  tagged: boolean,
  traced: boolean,
  replyTo: string | undefined,
): Buffer {
  const type = traced ? FrameType.Trace : KINDS[kind];
  const payload = traced ? Buffer.concat([u32(KINDS[kind]), u64(nowNs()), data]) : data;
  if (!tagged) return exchangeFrame(type, payload);
  return taggedFrame({ message_id: id, reply_to: replyTo }, type, payload);
}

function receipt(answer: ExchangeAnswer, messageId: string, tagged: boolean): Receipt {
  const timed = answer.is === 'timed' ? answer : undefined;
  const said = timed ? parseAnswerText(timed.inner) : answer;
  if (said.is === 'timed') throw protocolError('a traced answer inside a traced answer');
  if (said.is !== 'stored') throw notStored(said.reason);
  const { bytes, duplicate } = said;
  const ack = answer.text;
  return { messageId, tagged, bytes, ack, duplicate, ...(timed ? { timing: timed.timing } : {}) };
}

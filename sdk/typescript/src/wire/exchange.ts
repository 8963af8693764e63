/** The frames of data exchange, port 1001: `u32 type | u32 length | payload`, and what a receiver answers. */

import { PilotError, protocolError } from '../errors.js';
import { ByteQueue } from './bytes.js';
import { text, u16, u32, u64, u8, FrameError, Reader } from './frames.js';
import { asBigInt, asObject, asText, parseJson, toJson, type Json } from './json.js';

/** What a frame is. */
export const FrameType = {
  Text: 1,
  Binary: 2,
  Json: 3,
  File: 4,
  Trace: 5,
  FileStream: 7,
  Governed: 8,
  Tagged: 10,
  Control: 80,
} as const;

const NAMES: ReadonlyMap<string, number> = new Map([
  ['TEXT', FrameType.Text],
  ['BINARY', FrameType.Binary],
  ['JSON', FrameType.Json],
  ['FILE', FrameType.File],
  ['TRACE', FrameType.Trace],
  ['FILESTREAM', FrameType.FileStream],
  ['GOVERNED', FrameType.Governed],
  ['TAGGED', FrameType.Tagged],
]);

/** Longest answer accepted: answers are lines of text. */
export const MAX_ANSWER = 64 << 10;

/** Longest message sent in one frame: what release 1.18.0 accepts. */
export const MAX_MESSAGE = (64 << 20) - 4096;

/** A frame as it lies on the wire. */
export interface RawFrame {
  readonly kind: number;
  readonly payload: Buffer;
}

/** One frame whose payload is the concatenation of `parts`. */
export function exchangeFrame(kind: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([u32(kind), u32(length), ...parts]);
}

/** Reads a stream frame by frame. */
export class ExchangeReader {
  readonly #bytes = new ByteQueue();

  constructor(private readonly read: () => Promise<Buffer | undefined>) {}

  /** The next frame; a receiver that hangs up instead is an error. */
  async next(): Promise<RawFrame> {
    for (;;) {
      const frame = this.#held();
      if (frame) return frame;
      const more = await this.read();
      if (!more) throw new PilotError('closed', 'the receiver closed the connection without an answer');
      this.#bytes.push(more);
    }
  }

  #held(): RawFrame | undefined {
    if (this.#bytes.length < 8) return undefined;
    const header = this.#bytes.peek(8);
    const [kind, length] = [header.readUInt32BE(0), header.readUInt32BE(4)];
    if (length > MAX_ANSWER) {
      throw protocolError(`a frame of ${String(length)} bytes is over the limit of ${String(MAX_ANSWER)}`);
    }
    if (this.#bytes.length < 8 + length) return undefined;
    return { kind, payload: this.#bytes.take(8 + length).subarray(8) };
  }
}

/** When a traced message was where; nanoseconds since 1970, receiver's clock but for `sentAtNs`. */
export interface Timing {
  /** The sender's own time, returned. */
  readonly sentAtNs: bigint;
  /** When the message had arrived. */
  readonly receivedAtNs: bigint;
  /** When it was stored. */
  readonly inboxWrittenAtNs: bigint;
  /** Just before the answer left. */
  readonly ackSentAtNs: bigint;
}

/** The receiver's word on one delivery. */
export type ExchangeAnswer =
  | { readonly is: 'stored'; readonly kind: number; readonly bytes: number; readonly duplicate: boolean; readonly text: string }
  | { readonly is: 'failed'; readonly kind: number; readonly reason: string; readonly text: string }
  | { readonly is: 'refused'; readonly reason: string; readonly text: string }
  | { readonly is: 'timed'; readonly timing: Timing; readonly inner: string; readonly text: string };

/** Reads the frame that a receiver answered with. */
export function parseAnswer(frame: RawFrame): ExchangeAnswer {
  const said = frame.payload.toString('utf8');
  if (frame.kind === FrameType.Text) return parseAnswerText(said);
  if (frame.kind !== FrameType.Json) {
    throw new PilotError('unsupported', `the receiver answered with a frame of type ${String(frame.kind)}`);
  }
  let timing: Json;
  try {
    timing = asObject(parseJson(said));
  } catch {
    throw new PilotError('unsupported', "the receiver's answer is not readable");
  }
  const at = (name: string): bigint => asBigInt(timing[name]);
  return {
    is: 'timed',
    inner: asText(timing.inner_ack) ?? '',
    text: said,
    timing: {
      sentAtNs: at('sent_at_ns'),
      receivedAtNs: at('received_at_ns'),
      inboxWrittenAtNs: at('inbox_written_at_ns'),
      ackSentAtNs: at('ack_sent_at_ns'),
    },
  };
}

/** Reads `ACK TEXT 5 bytes (duplicate)`, `ERR FILE save failed: why` and the like. */
export function parseAnswerText(said: string): ExchangeAnswer {
  if (said.startsWith('ERR ')) {
    const rest = said.slice(4);
    const at = rest.indexOf(' save failed: ');
    const kind = at < 0 ? undefined : typeOf(rest.slice(0, at));
    if (kind === undefined) return { is: 'refused', reason: rest, text: said };
    return { is: 'failed', kind, reason: rest.slice(at + ' save failed: '.length), text: said };
  }
  const stored = /^ACK (\S+) (0|[1-9]\d*) bytes( \(duplicate\))?$/.exec(said);
  const kind = stored ? typeOf(stored[1] ?? '') : undefined;
  if (!stored || kind === undefined) {
    throw new PilotError('unsupported', `the receiver answered \`${said.slice(0, 80)}\``);
  }
  return { is: 'stored', kind, bytes: Number(stored[2]), duplicate: stored[3] !== undefined, text: said };
}

/** Whether the receiver does not know this type: the sender falls back to an older form. */
export function isUnsupported(answer: ExchangeAnswer, of: number): boolean {
  // A receiver that knows these envelopes answers with the type inside.
  return (answer.is === 'stored' || answer.is === 'failed') && answer.kind === of;
}

function typeOf(name: string): number | undefined {
  const number = /^UNKNOWN\((\d+)\)$/.exec(name);
  return number ? Number(number[1]) : NAMES.get(name);
}

/** A word between our nodes about files. */
export function controlFrame(control: Json): Buffer {
  const header = text(toJson(control));
  return exchangeFrame(FrameType.Control, u32(header.length), header);
}

/** A message with ids around it. */
export function taggedFrame(tag: Json, kind: number, payload: Uint8Array): Buffer {
  const header = text(toJson(tag));
  return exchangeFrame(FrameType.Tagged, u16(header.length), header, u32(kind), payload);
}

// ---- resumable file transfer

/** Bytes of file data in one chunk. */
export const CHUNK_LEN = 48 << 10;

/** Chunks a sender may have unacknowledged. */
export const WINDOW_CHUNKS = 16;

/** The same between our nodes. */
export const WIDE_WINDOW_CHUNKS = 128;

/** One step of a transfer, as a receiver says it. */
export type TransferStep =
  | { readonly is: 'init_ack' | 'ack'; readonly offset: number }
  | { readonly is: 'complete'; readonly error: string | undefined }
  | { readonly is: 'abort'; readonly message: string };

const STEP = { init: 1, chunk: 2, ack: 3, done: 4, initAck: 5, complete: 6, abort: 7 } as const;

/** Announces a file. */
export function initStep(id: Uint8Array, size: number, sha256: Uint8Array, name: string): Buffer {
  const label = text(name);
  return exchangeFrame(FrameType.FileStream, u8(STEP.init), id, u64(size), sha256, u32(CHUNK_LEN), u16(label.length), label);
}

/** Bytes of a file from `offset` on. */
export function chunkStep(id: Uint8Array, offset: number, data: Uint8Array): Buffer {
  return exchangeFrame(FrameType.FileStream, u8(STEP.chunk), id, u64(offset), data);
}

/** All chunks are sent. */
export function doneStep(id: Uint8Array): Buffer {
  return exchangeFrame(FrameType.FileStream, u8(STEP.done), id);
}

/** Reads a step about the transfer `id`; undefined when it is about another one. */
export function parseStep(payload: Buffer, id: Uint8Array): TransferStep | undefined {
  try {
    const reader = new Reader(payload);
    const kind = reader.u8();
    if (!reader.bytesOf(16).equals(id)) return undefined;
    if (kind === STEP.ack || kind === STEP.initAck) {
      return { is: kind === STEP.ack ? 'ack' : 'init_ack', offset: Number(reader.u64()) };
    }
    if (kind === STEP.complete) {
      const failed = reader.u8() !== 0;
      const said = reader.rest().toString('utf8');
      return { is: 'complete', error: failed ? said : undefined };
    }
    if (kind === STEP.abort) return { is: 'abort', message: reader.rest().toString('utf8') };
    throw protocolError(`unexpected step ${String(kind)} of a file transfer`);
  } catch (error) {
    if (error instanceof FrameError) throw protocolError('file transfer step too short');
    throw error;
  }
}

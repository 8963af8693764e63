/** The frames of the local socket: `u32 length | u8 command | payload`, numbers big-endian (docs/local-socket.md). */

import type { Address } from '../address.js';
import { ByteQueue } from './bytes.js';

/** The command bytes. Those below 0x80 are the reference's, the others are the extended dialect's. */
export const Command = {
  Bind: 0x01,
  BindOk: 0x02,
  Dial: 0x03,
  DialOk: 0x04,
  Accept: 0x05,
  Send: 0x06,
  Recv: 0x07,
  Close: 0x08,
  CloseOk: 0x09,
  Error: 0x0a,
  SendTo: 0x0b,
  RecvFrom: 0x0c,
  Info: 0x0d,
  InfoOk: 0x0e,
  Handshake: 0x0f,
  HandshakeOk: 0x10,
  ResolveHostname: 0x11,
  ResolveHostnameOk: 0x12,
  SetHostname: 0x13,
  SetHostnameOk: 0x14,
  SetVisibility: 0x15,
  SetVisibilityOk: 0x16,
  Deregister: 0x17,
  DeregisterOk: 0x18,
  SetTags: 0x19,
  SetTagsOk: 0x1a,
  SetWebhook: 0x1b,
  SetWebhookOk: 0x1c,
  Network: 0x1f,
  NetworkOk: 0x20,
  Health: 0x21,
  HealthOk: 0x22,
  Managed: 0x23,
  ManagedOk: 0x24,
  RotateKey: 0x25,
  RotateKeyOk: 0x26,
  Broadcast: 0x29,
  BroadcastOk: 0x2a,
  Cancel: 0x2b,
  PreferDirect: 0x2d,
  PreferDirectOk: 0x2e,
  SubmitBadge: 0x2f,
  SubmitBadgeOk: 0x30,
  EnrollRecovery: 0x31,
  EnrollRecoveryOk: 0x32,
  SignEnvelope: 0x33,
  SignEnvelopeOk: 0x34,
  VerifyEnvelope: 0x35,
  VerifyEnvelopeOk: 0x36,
  Unbind: 0x37,
  UnbindOk: 0x38,
  SendToConfirm: 0x39,
  SendToOk: 0x3a,
  Hello: 0x80,
  HelloOk: 0x81,
  Tagged: 0x82,
  TaggedOk: 0x83,
  Credit: 0x84,
  Finish: 0x85,
  Reset: 0x86,
  Drain: 0x87,
  DrainOk: 0x88,
  Call: 0x8a,
  CallOk: 0x8b,
  SendFrom: 0x8c,
  DialWith: 0x8d,
  Failure: 0x8f,
} as const;

/** Largest frame, command and payload together. A longer one ends the connection. */
export const MAX_FRAME = 1 << 20;

/** Bytes that a dial may bring along. */
export const FIRST_BYTES = 16 << 10;

/** Bytes of the length. */
const PREFIX = 4;

/** The other side said what it may not say; the connection cannot go on. */
export class FrameError extends Error {
  override readonly name = 'FrameError';
}

/** Cuts what arrives into frames. It holds no more than one largest frame and one read beyond it. */
export class FrameDecoder {
  readonly #bytes = new ByteQueue();

  /** Takes bytes in any segmentation. */
  feed(bytes: Buffer): void {
    this.#bytes.push(bytes);
  }

  /** The next whole frame without its length, or undefined until more arrives. */
  next(): Buffer | undefined {
    for (;;) {
      if (this.#bytes.length < PREFIX) return undefined;
      const length = this.#bytes.peek(PREFIX).readUInt32BE(0);
      if (length > MAX_FRAME) {
        throw new FrameError(`a frame of ${String(length)} bytes is over the limit of ${String(MAX_FRAME)}`);
      }
      if (this.#bytes.length < PREFIX + length) return undefined;
      const whole = this.#bytes.take(PREFIX + length);
      // Frames of length zero are skipped, as the reference does.
      if (length > 0) return whole.subarray(PREFIX);
    }
  }

  /** True when nothing is left over. */
  get isEmpty(): boolean {
    return this.#bytes.length === 0;
  }
}

/** One frame, ready to be written. */
export function frame(command: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 1);
  const out = Buffer.allocUnsafe(PREFIX + length);
  out.writeUInt32BE(length, 0);
  out[PREFIX] = command;
  let at = PREFIX + 1;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The bytes before stream data, for writers that pass the data on without copying it. */
export function dataHeader(command: number, stream: number, length: number): Buffer {
  const out = Buffer.allocUnsafe(PREFIX + 5);
  out.writeUInt32BE(length + 5, 0);
  out[PREFIX] = command;
  out.writeUInt32BE(stream, PREFIX + 1);
  return out;
}

export function u8(value: number): Buffer {
  return Buffer.from([value & 0xff]);
}

export function u16(value: number): Buffer {
  const out = Buffer.allocUnsafe(2);
  out.writeUInt16BE(value, 0);
  return out;
}

export function u32(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32BE(value >>> 0, 0);
  return out;
}

export function u64(value: number | bigint): Buffer {
  const out = Buffer.allocUnsafe(8);
  out.writeBigUInt64BE(BigInt(value), 0);
  return out;
}

export function text(value: string): Buffer {
  return Buffer.from(value, 'utf8');
}

/** A service on the wire: `u16 network | u32 node | u16 port`. */
export function service({ network, node }: Address, port: number): Buffer {
  const out = Buffer.allocUnsafe(8);
  out.writeUInt16BE(network, 0);
  out.writeUInt32BE(node, 2);
  out.writeUInt16BE(port, 6);
  return out;
}

/** Reads fixed fields from the front of a frame; a frame that ends before they do is an error. */
export class Reader {
  #at: number;

  constructor(
    private readonly bytes: Buffer,
    at = 0,
  ) {
    this.#at = at;
  }

  u8(): number {
    return this.#take(1).readUInt8(0);
  }

  u16(): number {
    return this.#take(2).readUInt16BE(0);
  }

  u32(): number {
    return this.#take(4).readUInt32BE(0);
  }

  u64(): bigint {
    return this.#take(8).readBigUInt64BE(0);
  }

  address(): Address {
    return { network: this.u16(), node: this.u32() };
  }

  bytesOf(count: number): Buffer {
    return this.#take(count);
  }

  rest(): Buffer {
    const rest = this.bytes.subarray(this.#at);
    this.#at = this.bytes.length;
    return rest;
  }

  #take(count: number): Buffer {
    const end = this.#at + count;
    if (end > this.bytes.length) throw new FrameError('a frame ends before its fields do');
    const taken = this.bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

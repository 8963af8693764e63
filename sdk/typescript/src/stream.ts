/** Streams: ordered, reliable bytes in both directions. */

import { Duplex } from 'node:stream';
import { ReadableStream, WritableStream } from 'node:stream/web';

import type { Endpoint } from './address.js';
import { Turns } from './condition.js';
import type { Connection } from './connection.js';
import { PilotError, systemError, unsupported } from './errors.js';
import type { StreamState } from './streams.js';
import { Command, text, u32 } from './wire/frames.js';

/** Largest piece of data in one frame. Larger ones would make other streams wait longer for their turn. */
const MAX_PIECE = 32 << 10;

/** Longest text or data that {@link PilotStream.readAll} collects, unless told otherwise. */
const COLLECT_MAX = 64 << 20;

/** Something that can be given up. */
export interface CallOptions {
  /** Gives it up when aborted. `AbortSignal.timeout(ms)` makes the error one of class `timeout`. */
  signal?: AbortSignal | undefined;
}

/**
 * A stream to or from a peer. Each has its own flow control: one that is not read holds up its own writer and
 * nobody else. Close it when done; a connection that is closed closes all of its streams.
 */
export class PilotStream implements AsyncIterable<Buffer> {
  /** The daemon's number for the stream, as `pilotctl connections` shows it. */
  readonly id: number;
  /** The other end. */
  readonly peer: Endpoint;
  readonly #connection: Connection;
  readonly #state: StreamState;
  readonly #writes = new Turns();

  /** @internal */
  constructor(connection: Connection, state: StreamState, peer: Endpoint) {
    this.#connection = connection;
    this.#state = state;
    this.id = state.id;
    this.peer = peer;
  }

  /** The next bytes as they come; `undefined` when the peer has ended its direction. */
  read(options: CallOptions = {}): Promise<Buffer | undefined> {
    return this.#connection.streams.read(this.#state, options.signal);
  }

  /** Exactly so many bytes; `undefined` when the peer ended before the first one. */
  async readExactly(count: number, options: CallOptions = {}): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    let have = 0;
    while (have < count) {
      const part = await this.read(options);
      if (!part) break;
      parts.push(part);
      have += part.length;
    }
    const all = Buffer.concat(parts);
    if (all.length > count) this.#connection.streams.unread(this.#state, all.subarray(count));
    if (all.length >= count) return all.subarray(0, count);
    if (all.length === 0) return undefined;
    throw new PilotError('closed', `the stream ended after ${String(all.length)} of ${String(count)} bytes`);
  }

  /** Everything up to the end. More than `limit` bytes (64 MiB unless told otherwise) are an error. */
  async readAll(options: CallOptions & { limit?: number } = {}): Promise<Buffer> {
    const limit = options.limit ?? COLLECT_MAX;
    const parts: Buffer[] = [];
    let have = 0;
    for (;;) {
      const part = await this.read(options);
      if (!part) return Buffer.concat(parts);
      parts.push(part);
      have += part.length;
      if (have > limit) {
        const hint = 'read it piece by piece, or raise the limit';
        throw new PilotError('busy', `the stream brings more than ${String(limit)} bytes`, { hint });
      }
    }
  }

  /** Everything up to the end, as UTF-8 text. */
  async text(options: CallOptions & { limit?: number } = {}): Promise<string> {
    return (await this.readAll(options)).toString('utf8');
  }

  /** The bytes as they come, up to the end. Leaving the loop early leaves the stream open. */
  async *[Symbol.asyncIterator](): AsyncIterator<Buffer> {
    for (;;) {
      const part = await this.read();
      if (!part) return;
      yield part;
    }
  }

  /**
   * Writes. Resolves when the daemon may have it all and the memory is free again: awaiting it is what holds a fast
   * writer to the pace of a slow reader. Writes are done in the order of the calls.
   */
  write(data: string | Uint8Array, options: CallOptions = {}): Promise<void> {
    const bytes = typeof data === 'string' ? text(data) : data;
    return this.#writes.run(() => this.#write(bytes, options.signal));
  }

  /** Writes what is given, then tells the peer that no more comes; reading goes on. A reference peer cannot be told. */
  async end(data?: string | Uint8Array): Promise<void> {
    if (data !== undefined) await this.write(data);
    await this.#writes.run(() => {
      this.#connection.streams.finish(this.#state);
      return Promise.resolve();
    });
  }

  /** Resolves when the peer's node has acknowledged everything written so far. */
  drain(options: CallOptions = {}): Promise<void> {
    if (this.#connection.isReference) return Promise.reject(unsupported('drain'));
    return this.#writes.run(async () => {
      await this.#connection.order(Command.Drain, u32(this.id), Command.DrainOk, options.signal);
    });
  }

  /** Ends both directions in order and waits until the daemon has taken note. What was written is still delivered. */
  async close(): Promise<void> {
    this.#connection.streams.closeStream(this.#state);
    await this.#connection.streams.closed(this.#state);
  }

  /** Ends it at once. What is on its way in either direction may be lost, and the peer sees a failure. */
  reset(message = 'the application reset the stream'): void {
    this.#connection.streams.reset(this.id, new PilotError('cancelled', message));
  }

  /** What comes, as a web stream. Cancelling it closes this stream. */
  get readable(): ReadableStream<Uint8Array> {
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          const part = await this.read();
          if (part) controller.enqueue(part);
          else controller.close();
        },
        cancel: () => this.close(),
      },
      { highWaterMark: 0 },
    );
  }

  /** What goes, as a web stream. Closing it ends our direction, aborting it resets this stream. */
  get writable(): WritableStream<Uint8Array | string> {
    return new WritableStream<Uint8Array | string>({
      write: (data) => this.write(data),
      close: () => this.end(),
      abort: () => {
        this.reset();
      },
    });
  }

  /** The stream as one of Node: for `pipeline`, `http`, and whatever else takes a socket. */
  duplex(): Duplex {
    const duplex = new Duplex({
      allowHalfOpen: true,
      read: () => {
        this.read().then(
          (part) => duplex.push(part ?? null),
          (error: unknown) => duplex.destroy(systemError(error)),
        );
      },
      write: (data: Buffer, _encoding, done) => {
        this.write(data).then(() => {
          done();
        }, done);
      },
      final: (done) => {
        this.end().then(() => {
          done();
        }, done);
      },
      destroy: (error, done) => {
        if (error) this.reset(error.message);
        else this.#connection.streams.closeStream(this.#state);
        done(error);
      },
    });
    return duplex;
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #write(data: Uint8Array, signal?: AbortSignal): Promise<void> {
    const { streams } = this.#connection;
    let last: Promise<void> | undefined;
    let at = 0;
    do {
      const room = await streams.writable(this.#state, signal);
      const piece = data.subarray(at, at + Math.min(room, MAX_PIECE));
      if (piece.length === 0) return;
      streams.spend(this.#state, piece.length);
      at += piece.length;
      const sent = this.#connection.sendData(this.id, piece);
      // Two pieces under way keep the socket busy; the last one is waited for below.
      if (last) await last;
      last = sent;
      sent.catch(() => undefined);
    } while (at < data.length);
    await last;
  }
}

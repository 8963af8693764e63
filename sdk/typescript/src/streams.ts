/** The streams of a connection: what arrived and was not read, how much may be written, and how each ends. */

import { Condition } from './condition.js';
import { PilotError, protocolError, streamClosed } from './errors.js';
import type { Dialect } from './greeting.js';
import { Command, frame, text, u32 } from './wire/frames.js';
import { toJson } from './wire/json.js';

/** Reference dialect: once so many bytes wait to be read, the connection itself is not read. */
const REFERENCE_BACKLOG = 16 << 20;

/** Reference dialect: streams whose data came before they were announced. */
const EARLY_STREAMS = 64;

/** Pieces smaller than this are put together, so that many tiny frames do not become many objects. */
const TINY = 2048;

/** What the table needs of its connection. */
export interface Wire {
  send: (bytes: Buffer) => void;
  pause: () => void;
  resume: () => void;
}

/** One stream. */
export interface StreamState {
  readonly id: number;
  readonly changed: Condition;
  arrived: Buffer[];
  unread: number;
  /** Bytes the daemon may still send without asking. */
  granted: number;
  /** Bytes read since the last grant. */
  read: number;
  /** Bytes we may still write without asking. */
  credit: number;
  finishedByPeer: boolean;
  finishedByUs: boolean;
  /** How it ended. */
  end: 'orderly' | PilotError | undefined;
  /** We asked for the end; only its confirmation matters still. */
  closing: boolean;
  /** The daemon has confirmed the end, or the number means nothing any more. */
  gone: boolean;
}

export class StreamTable {
  readonly #open = new Map<number, StreamState>();
  /** Reference dialect: not announced yet, oldest first. */
  readonly #early = new Map<number, StreamState>();
  /** Bytes that wait to be read, in all streams. */
  #unread = 0;
  #paused = false;
  #over: PilotError | undefined;

  constructor(
    private readonly dialect: Dialect,
    private readonly wire: Wire,
  ) {}

  /** Whether so much waits to be read that no more is taken from the daemon. */
  get isPaused(): boolean {
    return this.#paused;
  }

  /** The daemon announced a stream. */
  open(id: number): StreamState {
    const stream = this.#early.get(id) ?? this.#make(id);
    this.#early.delete(id);
    const replaced = this.#open.get(id);
    if (replaced) {
      this.#took(replaced.unread);
      replaced.gone = true;
      replaced.changed.notify();
    }
    this.#open.set(id, stream);
    return stream;
  }

  onData(id: number, data: Buffer): void {
    const stream = this.#find(id);
    if (!stream || stream.closing || data.length === 0) return;
    if (this.dialect.kind === 'extended') {
      if (data.length > stream.granted) throw protocolError(`more data than granted on stream ${String(id)}`);
      stream.granted -= data.length;
    }
    const last = stream.arrived.at(-1);
    if (last && last.length + data.length <= TINY) {
      stream.arrived[stream.arrived.length - 1] = Buffer.concat([last, data]);
    } else {
      stream.arrived.push(data);
    }
    stream.unread += data.length;
    this.#unread += data.length;
    if (this.dialect.kind === 'reference' && this.#unread >= REFERENCE_BACKLOG && !this.#paused) {
      this.#paused = true;
      this.wire.pause();
    }
    stream.changed.notify();
  }

  onCredit(id: number, bytes: number): void {
    const stream = this.#open.get(id);
    if (!stream) return;
    stream.credit += bytes;
    stream.changed.notify();
  }

  onFinish(id: number): void {
    const stream = this.#open.get(id);
    if (!stream) return;
    stream.finishedByPeer = true;
    stream.changed.notify();
  }

  /** The stream is over: in order, or with a failure. What came before can still be read. */
  onEnd(id: number, failure: PilotError | undefined): void {
    const stream = this.#find(id);
    if (!stream) return;
    stream.end ??= failure ?? 'orderly';
    // After the end the number means nothing; the daemon may use it for another stream.
    if (this.dialect.kind === 'extended' || stream.closing) this.#open.delete(id);
    if (this.dialect.kind === 'extended' || stream.closing) stream.gone = true;
    stream.changed.notify();
  }

  /** The next bytes; undefined at their end. */
  async read(stream: StreamState, signal?: AbortSignal): Promise<Buffer | undefined> {
    for (;;) {
      if (stream.closing) throw streamClosed();
      const data = stream.arrived.shift();
      if (data) {
        this.#granted(stream, data.length);
        return data;
      }
      if (stream.end instanceof PilotError) throw stream.end;
      if (stream.end === 'orderly' || stream.finishedByPeer) return undefined;
      if (this.#over) throw this.#over;
      if (stream.gone) throw streamClosed();
      await stream.changed.wait(signal);
    }
  }

  /** Puts bytes back in front, as if they had not been read. They stay granted. */
  unread(stream: StreamState, data: Buffer): void {
    if (data.length === 0 || stream.closing) return;
    stream.arrived.unshift(data);
    stream.unread += data.length;
    this.#unread += data.length;
    stream.read -= data.length;
  }

  /** Waits until something may be written; gives how much. */
  async writable(stream: StreamState, signal?: AbortSignal): Promise<number> {
    for (;;) {
      if (this.#over) throw this.#over;
      if (stream.end instanceof PilotError) throw stream.end;
      if (stream.closing || stream.finishedByUs || stream.end === 'orderly' || stream.gone) {
        throw streamClosed();
      }
      if (stream.credit > 0) return stream.credit;
      await stream.changed.wait(signal);
    }
  }

  /** So much is written. */
  spend(stream: StreamState, length: number): void {
    if (this.dialect.kind === 'extended') stream.credit -= length;
  }

  /** We write no more. */
  finish(stream: StreamState): void {
    const news = !stream.finishedByUs && !stream.closing && stream.end === undefined;
    stream.finishedByUs = true;
    if (news && this.dialect.kind === 'extended') this.wire.send(frame(Command.Finish, u32(stream.id)));
    stream.changed.notify();
  }

  /** Ends a stream; what was written is still delivered. */
  closeStream(stream: StreamState): void {
    if (stream.closing) return;
    stream.closing = true;
    this.#took(stream.unread);
    stream.unread = 0;
    stream.arrived = [];
    stream.changed.notify();
    if (!stream.gone) this.wire.send(frame(Command.Close, u32(stream.id)));
  }

  /** Resolves once the daemon has confirmed the end of a stream that is being closed. */
  async closed(stream: StreamState): Promise<void> {
    while (!stream.gone && !this.#over) await stream.changed.wait();
  }

  /** Ends a stream at once. */
  reset(id: number, failure: PilotError): void {
    const stream = this.#open.get(id);
    if (!stream) return;
    if (this.dialect.kind === 'reference') {
      this.closeStream(stream);
      return;
    }
    this.#open.delete(id);
    this.#took(stream.unread);
    stream.unread = 0;
    stream.arrived = [];
    stream.closing = true;
    stream.gone = true;
    stream.changed.notify();
    const { code, message } = failure;
    this.wire.send(frame(Command.Reset, u32(id), text(toJson({ code, message }))));
  }

  /** The connection is over. What has arrived can still be read. */
  end(why: PilotError): void {
    this.#over = why;
    for (const stream of [...this.#open.values(), ...this.#early.values()]) stream.changed.notify();
    this.#open.clear();
    this.#early.clear();
  }

  /** Lets the daemon send as much again as was read, in large steps. */
  #granted(stream: StreamState, length: number): void {
    stream.unread -= length;
    this.#took(length);
    if (this.dialect.kind !== 'extended') return;
    stream.read += length;
    const done = stream.finishedByPeer || stream.end !== undefined || stream.gone;
    if (stream.read < this.dialect.initialCredit / 4 || done) return;
    stream.granted += stream.read;
    this.wire.send(frame(Command.Credit, u32(stream.id), u32(stream.read)));
    stream.read = 0;
  }

  #took(length: number): void {
    this.#unread -= length;
    if (this.#paused && this.#unread < REFERENCE_BACKLOG) {
      this.#paused = false;
      this.wire.resume();
    }
  }

  #make(id: number): StreamState {
    const credit = this.dialect.kind === 'extended' ? this.dialect.initialCredit : Infinity;
    return {
      id,
      changed: new Condition(),
      arrived: [],
      unread: 0,
      granted: credit,
      read: 0,
      credit,
      finishedByPeer: false,
      finishedByUs: false,
      end: undefined,
      closing: false,
      gone: false,
    };
  }

  /** The stream of this number; in the reference dialect also one that is not announced yet. */
  #find(id: number): StreamState | undefined {
    const known = this.#open.get(id) ?? this.#early.get(id);
    if (known || this.dialect.kind === 'extended') return known;
    if (this.#early.size >= EARLY_STREAMS) {
      const [oldest] = this.#early.values();
      if (oldest) {
        this.#took(oldest.unread);
        this.#early.delete(oldest.id);
      }
    }
    const stream = this.#make(id);
    this.#early.set(id, stream);
    return stream;
  }
}

/** One connection to the daemon: requests, and what is pushed to streams, listeners and datagram ports. */

import type { Socket } from 'node:net';

import { endpoint, type Endpoint } from './address.js';
import { Condition, isAborted } from './condition.js';
import {
  abortError,
  disconnected,
  failureFrom,
  invalid,
  PilotError,
  protocolError,
  referenceFailure,
  unsupported,
} from './errors.js';
import { connectTo, hello, type Dialect } from './greeting.js';
import { StreamTable, type StreamState } from './streams.js';
import { Command, dataHeader, frame, FrameDecoder, MAX_FRAME, Reader, text, u8, u16, u32 } from './wire/frames.js';
import { parseJson, toJson } from './wire/json.js';

/** Streams that wait to be accepted on one port. More are turned away, and their peers told so. */
const ACCEPT_BACKLOG = 128;

/** After so many streams and datagrams in one read, those who wait for them get their turn before the rest. */
const BURST = 64;

/** Datagrams that wait to be received on one port. More are dropped, as networks do. */
const DATAGRAM_BACKLOG = 256;

/** A stream that a peer opened. */
export interface Arrival {
  readonly stream: StreamState;
  readonly from: Endpoint;
}

/** A datagram and where it came from. */
export interface Datagram {
  /** The sender. */
  readonly from: Endpoint;
  /** What it says. */
  readonly data: Buffer;
}

/** Things that arrived for somebody who has yet to take them. */
export class Queue<T> {
  readonly items: T[] = [];
  readonly changed = new Condition();
  closed = false;
}

/** What a request was answered with. */
interface Answer {
  readonly payload: Buffer;
  /** The stream that it opened. */
  readonly stream: StreamState | undefined;
}

interface Pending {
  readonly expects: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: PilotError) => void;
  /** Nobody wants the answer. Its place is kept, so that it is not taken for another's. */
  forgotten: boolean;
}

export class Connection {
  readonly dialect: Dialect;
  readonly streams: StreamTable;
  readonly #socket: Socket;
  readonly #decoder: FrameDecoder;
  readonly #pending = new Map<number, Pending>();
  /** Reference dialect: the request under way, and those behind it. */
  #current: number | undefined;
  readonly #waiting: { tag: number; bytes: Buffer }[] = [];
  /** How many here need a port. */
  readonly #claims = new Map<number, number>();
  readonly #listeners = new Map<number, Queue<Arrival>>();
  readonly #datagrams = new Map<number, Queue<Datagram>>();
  #nextTag = 1;
  #corked = false;
  #resting = false;
  /** Why nothing more will happen on this connection. */
  #over: PilotError | undefined;
  readonly #closed: Promise<void>;

  private constructor(socket: Socket, decoder: FrameDecoder, dialect: Dialect) {
    this.#socket = socket;
    this.#decoder = decoder;
    this.dialect = dialect;
    this.streams = new StreamTable(dialect, {
      send: (bytes) => {
        this.send(bytes);
      },
      pause: () => socket.pause(),
      resume: () => {
        if (!this.#resting) socket.resume();
      },
    });
    socket.on('data', (bytes: Buffer) => {
      this.#onBytes(bytes);
    });
    socket.on('error', () => {
      this.#end(disconnected());
    });
    this.#closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#end(disconnected());
        resolve();
      });
    });
  }

  /** Connects to the daemon at `path` and agrees on a dialect with it. */
  static async open(path: string, signal?: AbortSignal): Promise<Connection> {
    const socket = await connectTo(path, signal);
    const decoder = new FrameDecoder();
    try {
      const dialect = await hello(socket, decoder, signal);
      const connection = new Connection(socket, decoder, dialect);
      connection.#onBytes(Buffer.alloc(0));
      socket.resume();
      return connection;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  get isReference(): boolean {
    return this.dialect.kind === 'reference';
  }

  /** Why the connection is over, if it is. */
  get over(): PilotError | undefined {
    return this.#over;
  }

  /** What was written still goes out, then the connection ends, and with it everything that was opened on it. */
  async close(): Promise<void> {
    this.#end(new PilotError('closed', 'the connection to the daemon was closed by this program'));
    this.#socket.end();
    await this.#closed;
  }

  // ---- writing

  /** Writes a frame. Those of one turn of the event loop leave together. */
  send(bytes: Buffer): void {
    if (this.#over) return;
    this.#cork();
    this.#socket.write(bytes);
  }

  /** Writes data of a stream. Resolves when the system has it, so the memory may be used again then. */
  sendData(stream: number, data: Uint8Array): Promise<void> {
    if (this.#over) return Promise.reject(this.#over);
    this.#cork();
    this.#socket.write(dataHeader(Command.Send, stream, data.length));
    return new Promise((resolve, reject) => {
      this.#socket.write(data, (error) => {
        if (error) reject(this.#over ?? disconnected());
        else resolve();
      });
    });
  }

  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#corked = false;
      this.#socket.uncork();
    });
  }

  // ---- requests

  /** Asks the daemon; gives the payload of its answer. */
  async order(command: number, payload: Uint8Array, expects: number, signal?: AbortSignal): Promise<Buffer> {
    return (await this.#ask(command, payload, expects, signal)).payload;
  }

  /** Asks the daemon to open a stream. */
  async dial(command: number, payload: Uint8Array, signal?: AbortSignal): Promise<StreamState> {
    const { stream } = await this.#ask(command, payload, Command.DialOk, signal);
    if (!stream) throw protocolError('a dial was answered without a stream');
    return stream;
  }

  #ask(command: number, payload: Uint8Array, expects: number, signal?: AbortSignal): Promise<Answer> {
    if (this.#over) return Promise.reject(this.#over);
    if (signal?.aborted) return Promise.reject(abortError(signal));
    if (payload.length + 6 > MAX_FRAME) {
      const most = `a request is at most ${String(MAX_FRAME)} bytes, this has ${String(payload.length)}`;
      return Promise.reject(invalid(most));
    }
    const tag = this.#freeTag();
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        this.#forget(tag);
        if (signal) reject(abortError(signal));
      };
      const settle = (): void => {
        signal?.removeEventListener('abort', abort);
      };
      this.#pending.set(tag, {
        expects,
        forgotten: false,
        resolve: (answer) => {
          settle();
          resolve(answer);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      signal?.addEventListener('abort', abort, { once: true });
      if (this.isReference) {
        this.#waiting.push({ tag, bytes: frame(command, payload) });
        this.#advance();
      } else {
        this.send(frame(Command.Tagged, u32(tag), u8(command), payload));
      }
    });
  }

  /** Asks the daemon; reads the JSON of its answer. */
  async json(command: number, payload: Uint8Array, expects: number, signal?: AbortSignal): Promise<unknown> {
    const body = await this.order(command, payload, expects, signal);
    try {
      return body.length === 0 ? {} : parseJson(body.toString('utf8'));
    } catch (error) {
      throw protocolError(error instanceof Error ? error.message : 'no JSON');
    }
  }

  /** One of our own calls, and its result. */
  async call(call: Record<string, unknown>, signal?: AbortSignal): Promise<unknown> {
    if (this.isReference) throw unsupported(String(call.call));
    return this.json(Command.Call, text(toJson(call)), Command.CallOk, signal);
  }

  #freeTag(): number {
    for (;;) {
      const tag = this.#nextTag;
      this.#nextTag = (this.#nextTag + 1) >>> 0;
      if (!this.#pending.has(tag)) return tag;
    }
  }

  /** Nobody waits for the answer any more. */
  #forget(tag: number): void {
    const pending = this.#pending.get(tag);
    if (!pending) return;
    const queued = this.#waiting.findIndex((waiting) => waiting.tag === tag);
    if (queued >= 0) {
      this.#waiting.splice(queued, 1);
      this.#pending.delete(tag);
    } else {
      pending.forgotten = true;
    }
  }

  /** Reference dialect: sends the next request when none is under way. */
  #advance(): void {
    if (this.#current !== undefined) return;
    const next = this.#waiting.shift();
    if (!next) return;
    this.#current = next.tag;
    this.send(next.bytes);
  }

  #onReply(tag: number | undefined, command: number, payload: Buffer): void {
    const stream = command === Command.DialOk ? this.streams.open(new Reader(payload).u32()) : undefined;
    // Without a number it answers the one request under way, if it can: 1.18 may answer late.
    const key = tag ?? this.#current;
    const pending = key === undefined ? undefined : this.#pending.get(key);
    if (key === undefined || !pending) return;
    const failed = command === Command.Error || command === Command.Failure;
    const fits = command === pending.expects || failed;
    if (!fits && this.isReference) return;
    this.#pending.delete(key);
    if (key === this.#current) {
      this.#current = undefined;
      this.#advance();
    }
    if (pending.forgotten) {
      // A stream that was opened for nobody.
      if (stream) this.streams.closeStream(stream);
    } else if (!fits) {
      pending.reject(
        protocolError(`0x${command.toString(16)} came where 0x${pending.expects.toString(16)} was expected`),
      );
    } else if (command === Command.Error) {
      pending.reject(referenceFailure(payload.subarray(2).toString('utf8')));
    } else if (command === Command.Failure) {
      pending.reject(failureFrom(parseJson(payload.toString('utf8'))));
    } else {
      pending.resolve({ payload, stream });
    }
  }

  // ---- ports

  /** Claims a port for streams, datagrams or both. */
  async claim(port: number, signal?: AbortSignal): Promise<void> {
    const claims = this.#claims.get(port) ?? 0;
    this.#claims.set(port, claims + 1);
    if (claims > 0) return;
    try {
      await this.order(Command.Bind, u16(port), Command.BindOk, signal);
    } catch (error) {
      this.#claims.delete(port);
      // It may be claimed all the same, if nobody waited for the answer.
      if (isAborted(signal)) this.order(Command.Unbind, u16(port), Command.UnbindOk).catch(() => undefined);
      throw error;
    }
  }

  /** Gives a port back when nobody needs it any more. */
  async release(port: number): Promise<void> {
    const claims = (this.#claims.get(port) ?? 0) - 1;
    if (claims > 0) {
      this.#claims.set(port, claims);
      return;
    }
    this.#claims.delete(port);
    if (!this.#over) await this.order(Command.Unbind, u16(port), Command.UnbindOk);
  }

  /** Gets ready for streams to `port`. This comes before the request, because the first stream may overtake its answer. */
  addListener(port: number): Queue<Arrival> {
    return add(this.#listeners, port, this.#over);
  }

  removeListener(port: number): void {
    const queue = this.#listeners.get(port);
    this.#listeners.delete(port);
    if (!queue) return;
    queue.closed = true;
    for (const { stream } of queue.items.splice(0)) this.#refuse(stream);
    queue.changed.notify();
  }

  addDatagrams(port: number): Queue<Datagram> {
    return add(this.#datagrams, port, this.#over);
  }

  removeDatagrams(port: number): void {
    const queue = this.#datagrams.get(port);
    this.#datagrams.delete(port);
    if (!queue) return;
    queue.closed = true;
    queue.changed.notify();
  }

  #refuse(stream: StreamState): void {
    this.streams.reset(stream.id, new PilotError('refused', 'nobody listens any more'));
  }

  // ---- what the daemon says

  #onBytes(bytes: Buffer): void {
    this.#decoder.feed(bytes);
    if (this.#resting) return;
    let burst = 0;
    try {
      for (let next = this.#decoder.next(); next && !this.#over; next = this.#decoder.next()) {
        this.#onFrame(next);
        if (next[0] !== Command.Accept && next[0] !== Command.RecvFrom) continue;
        burst += 1;
        if (burst === BURST) {
          this.#rest();
          return;
        }
      }
    } catch (error) {
      this.#end(
        error instanceof PilotError
          ? error
          : protocolError(error instanceof Error ? error.message : String(error)),
      );
      this.#socket.destroy();
    }
  }

  /** Goes on with what has been read when everybody had a turn. Nothing more is read until then. */
  #rest(): void {
    this.#resting = true;
    this.#socket.pause();
    setImmediate(() => {
      this.#resting = false;
      if (!this.streams.isPaused) this.#socket.resume();
      this.#onBytes(Buffer.alloc(0));
    });
  }

  #onFrame(bytes: Buffer): void {
    const reader = new Reader(bytes);
    const command = reader.u8();
    switch (command) {
      case Command.TaggedOk: {
        const tag = reader.u32();
        const reply = reader.u8();
        this.#onReply(tag, reply, reader.rest());
        break;
      }
      case Command.Recv:
        this.streams.onData(reader.u32(), reader.rest());
        break;
      case Command.Credit:
        this.streams.onCredit(reader.u32(), reader.u32());
        break;
      case Command.Finish:
        this.streams.onFinish(reader.u32());
        break;
      case Command.Reset: {
        const id = reader.u32();
        this.streams.onEnd(id, failureFrom(parseJson(reader.rest().toString('utf8'))));
        break;
      }
      case Command.CloseOk:
        this.streams.onEnd(reader.u32(), undefined);
        break;
      case Command.Accept: {
        const port = reader.u16();
        const id = reader.u32();
        this.#onAccept(port, id, endpoint(reader.address(), reader.u16()));
        break;
      }
      case Command.RecvFrom: {
        const from = endpoint(reader.address(), reader.u16());
        const queue = this.#datagrams.get(reader.u16());
        if (queue && queue.items.length < DATAGRAM_BACKLOG) {
          // A copy, so that a datagram that waits does not hold on to a whole read.
          queue.items.push({ from, data: Buffer.from(reader.rest()) });
          queue.changed.notify();
        }
        break;
      }
      default:
        if (!DAEMON_SAYS.has(command)) {
          throw protocolError(`the unknown command 0x${command.toString(16).padStart(2, '0')}`);
        }
        this.#onReply(undefined, command, reader.rest());
    }
  }

  #onAccept(port: number, id: number, from: Endpoint): void {
    const stream = this.streams.open(id);
    const queue = this.#listeners.get(port);
    if (!queue) {
      this.#refuse(stream);
    } else if (queue.items.length >= ACCEPT_BACKLOG) {
      this.streams.reset(id, new PilotError('busy', 'too many streams wait to be accepted'));
    } else {
      queue.items.push({ stream, from });
      queue.changed.notify();
    }
  }

  /** The connection is over. Everybody who waits is told. */
  #end(why: PilotError): void {
    if (this.#over) return;
    this.#over = why;
    for (const pending of this.#pending.values()) if (!pending.forgotten) pending.reject(why);
    this.#pending.clear();
    this.#waiting.length = 0;
    this.streams.end(why);
    for (const queue of this.#listeners.values()) queue.changed.notify();
    for (const queue of this.#datagrams.values()) queue.changed.notify();
  }
}

/** Commands that only a daemon says: the answers. */
const DAEMON_SAYS: ReadonlySet<number> = new Set([
  ...Object.entries(Command)
    .filter(([name]) => name.endsWith('Ok'))
    .map(([, byte]) => byte),
  Command.Error,
  Command.Failure,
]);

function add<T>(queues: Map<number, Queue<T>>, port: number, over: PilotError | undefined): Queue<T> {
  if (over) throw over;
  if (queues.has(port)) {
    throw new PilotError('already_exists', `port ${String(port)} is in use by this program`);
  }
  const queue = new Queue<T>();
  queues.set(port, queue);
  return queue;
}

/** The next thing in a queue; rejects when the queue or the connection has ended. */
export async function nextOf<T>(
  connection: Connection,
  queue: Queue<T>,
  signal?: AbortSignal,
): Promise<T | undefined> {
  for (;;) {
    const item = queue.items.shift();
    if (item !== undefined) return item;
    if (queue.closed) return undefined;
    if (connection.over) throw connection.over;
    await queue.changed.wait(signal);
  }
}

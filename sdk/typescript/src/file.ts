/** Files: sent in chunks that the receiver acknowledges, resumed where an earlier try ended, checked by their hash. */

import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { basename, resolve } from 'node:path';

import { endpoint, formatAddress, PORTS, type Address } from './address.js';
import { Condition, sleep } from './condition.js';
import type { Connection } from './connection.js';
import { PilotError, protocolError, systemError } from './errors.js';
import type { Link } from './link.js';
import { notStored } from './message.js';
import { PilotStream, type CallOptions } from './stream.js';
import {
  CHUNK_LEN,
  chunkStep,
  controlFrame,
  doneStep,
  exchangeFrame,
  ExchangeReader,
  FrameType,
  initStep,
  isUnsupported,
  parseAnswer,
  parseStep,
  WIDE_WINDOW_CHUNKS,
  WINDOW_CHUNKS,
  type ExchangeAnswer,
} from './wire/exchange.js';
import { Command, service, text, u16 } from './wire/frames.js';

/** First pause between two tries; doubled each time up to {@link PAUSE_MAX_MS}. */
const PAUSE_MS = 250;
const PAUSE_MAX_MS = 4_000;

/** How long a transfer that was under way is tried again without a byte being brought forward. */
const PATIENCE_MS = 90_000;

/** How long a receiver may take to answer the announcement before it is taken for one that knows no better. */
const INIT_LIMIT_MS = 5_000;

/** How long one of our nodes may take: its disk may be slow. */
const OUR_LIMIT_MS = 60_000;

/** Largest file sent whole to a receiver that does not know resumable transfers: its frame limit. */
const WHOLE_MAX = (16 << 20) - 4096;

/** Bytes read from disk at a time for the hash. */
const READ_LEN = 1 << 20;

/** How far a transfer is. */
export interface FileProgress {
  /** Bytes the receiver has written. */
  readonly done: number;
  /** Bytes to be sent in all. */
  readonly total: number;
  /** Bytes it had from an earlier try. */
  readonly resumed: number;
}

/** How a file is to be sent. */
export interface FileOptions extends CallOptions {
  /** The name the receiver shall see; the last part of the path when absent. */
  name?: string | undefined;
  /** Called with every acknowledgement. */
  onProgress?: ((progress: FileProgress) => void) | undefined;
  /** For how long a transfer that broke off is tried again without moving; 90 seconds by default. */
  patienceMs?: number | undefined;
}

/** The receiver has stored a file. */
export interface FileReceipt {
  /** The name it was announced by. */
  readonly name: string;
  /** Its length. */
  readonly bytes: number;
  /** Bytes sent by this call, those sent again after an interruption included. */
  readonly bytesSent: number;
  /** Bytes the receiver had from an earlier try. */
  readonly bytesResumed: number;
  /** Its SHA-256, 64 hexadecimal digits. */
  readonly sha256: string;
  /** In acknowledged chunks with the hash checked, or in one piece to a receiver that knows nothing better. */
  readonly transport: 'file-stream' | 'whole';
  /** From the first byte to the last answer. */
  readonly elapsedMs: number;
}

/** What is sent. */
interface Source {
  readonly path: string;
  readonly name: string;
  readonly file: FileHandle;
  readonly size: number;
  readonly modified: number;
  readonly sha256: Buffer;
}

/** What has been achieved over all tries. */
interface Sent {
  tries: number;
  done: number;
  resumed: number;
  bytesSent: number;
  restarted: boolean;
}

/** Why a try ended before the file was stored, when another one may go further. */
class Broken extends Error {
  constructor(
    readonly is: 'connection' | 'unsupported' | 'corrupt',
    readonly why: PilotError,
  ) {
    super(why.message);
  }
}

/** Sends a file and waits until the receiver has checked and stored it. */
export async function sendFile(link: Link, to: Address, path: string, options: FileOptions): Promise<FileReceipt> {
  const started = Date.now();
  const source = await openSource(path, options);
  try {
    const { sent, transport } = await carry(link, to, source, options);
    return {
      name: source.name,
      bytes: source.size,
      bytesSent: sent.bytesSent,
      bytesResumed: sent.resumed,
      sha256: source.sha256.toString('hex'),
      transport,
      elapsedMs: Date.now() - started,
    };
  } finally {
    await source.file.close();
  }
}

async function carry(
  link: Link,
  to: Address,
  source: Source,
  options: FileOptions,
): Promise<{ sent: Sent; transport: FileReceipt['transport'] }> {
  const { signal, onProgress } = options;
  const sent: Sent = { tries: 0, done: 0, resumed: 0, bytesSent: 0, restarted: false };
  let moved = Date.now();
  let pause = PAUSE_MS;
  for (;;) {
    const before = sent.done;
    try {
      const stream = await dial(link, to, sent.tries === 0, signal);
      try {
        await new Carriage(source, stream, sent, options).run();
        return { sent, transport: 'file-stream' };
      } finally {
        sent.tries += 1;
        stream.close().catch(() => undefined);
      }
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      if (error.is === 'unsupported') {
        await sendWhole(link, to, source, signal);
        sent.bytesSent = source.size;
        onProgress?.({ done: source.size, total: source.size, resumed: 0 });
        return { sent, transport: 'whole' };
      }
      if (error.is === 'corrupt') {
        await checkUnchanged(source);
        // What the receiver had of it was damaged, by a power failure for instance; it has removed it.
        if (sent.restarted) throw error.why;
        sent.restarted = true;
        continue;
      }
      if (sent.done > before) {
        moved = Date.now();
        pause = PAUSE_MS;
      }
      if (Date.now() - moved >= (options.patienceMs ?? PATIENCE_MS)) throw error.why;
      await sleep(pause, signal);
      pause = Math.min(2 * pause, PAUSE_MAX_MS);
    }
  }
}

/** The first try says at once what is wrong; later ones are about a connection that worked. */
async function dial(link: Link, to: Address, first: boolean, signal?: AbortSignal): Promise<PilotStream> {
  try {
    return await open1001(await link.connection(), to, signal);
  } catch (error) {
    const why = systemError(error);
    const final = ['not_trusted', 'permission_denied', 'not_found', 'invalid_argument'].includes(why.code);
    if (first || final || signal?.aborted) throw why;
    throw new Broken('connection', why);
  }
}

async function open1001(connection: Connection, to: Address, signal?: AbortSignal): Promise<PilotStream> {
  const port = PORTS.dataExchange;
  const state = await connection.dial(Command.Dial, service(to, port), signal);
  return new PilotStream(connection, state, endpoint(to, port));
}

async function openSource(path: string, options: FileOptions): Promise<Source> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw unreadable(path, error);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) {
      const hint = 'folders are sent with `pilotctl send-file`';
      throw new PilotError('invalid_argument', `${path} is not a regular file`, { hint });
    }
    const hash = createHash('sha256');
    const buffer = Buffer.allocUnsafe(READ_LEN);
    let size = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, READ_LEN, size);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      size += bytesRead;
    }
    const name = options.name ?? basename(resolve(path));
    return { path, name, file, size, modified: stat.mtimeMs, sha256: hash.digest() };
  } catch (error) {
    await file.close();
    throw error instanceof PilotError ? error : unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): PilotError {
  const system = systemError(error);
  const code = system.code === 'internal' ? 'invalid_argument' : system.code;
  return new PilotError(code, `cannot read ${path}: ${system.message}`, { cause: error });
}

async function checkUnchanged(source: Source): Promise<void> {
  const stat = await source.file.stat();
  if (stat.mtimeMs !== source.modified || stat.size !== source.size) {
    const hint = 'send it again when nobody writes to it';
    throw new PilotError('failed', `${source.path} was changed while it was sent`, { hint });
  }
}

/** One try to carry a file over a stream: what is written, and what is read at the same time. */
class Carriage {
  readonly #id: Buffer;
  readonly #heard = new Condition();
  /** Whether the receiver is one of our nodes; known when that was asked. */
  #isOurs: boolean | undefined;
  /** Where the receiver wants to go on. */
  #granted: number | undefined;
  /** How much it has written. */
  #written = 0;
  #over = false;

  constructor(
    private readonly source: Source,
    private readonly stream: PilotStream,
    private readonly sent: Sent,
    private readonly options: FileOptions,
  ) {
    this.#id = source.sha256.subarray(0, 16);
  }

  async run(): Promise<void> {
    const reading = this.#read().finally(() => {
      this.#over = true;
      this.#heard.notify();
    });
    const writing = this.#write();
    // Whoever fails first says why.
    writing.catch(() => undefined);
    await Promise.race([reading, writing.then(() => reading)]);
  }

  get #asksForWindow(): boolean {
    return this.source.size > WINDOW_CHUNKS * CHUNK_LEN;
  }

  async #write(): Promise<void> {
    const { size, sha256, name, file } = this.source;
    const wide = this.#asksForWindow ? [controlFrame({ is: 'transfer', word: 'wide_window' })] : [];
    await this.#send(Buffer.concat([...wide, initStep(this.#id, size, sha256, name)]));
    let offset = await this.#grant();
    const window = (this.#isOurs === true ? WIDE_WINDOW_CHUNKS : WINDOW_CHUNKS) * CHUNK_LEN;
    while (offset < size) {
      await this.#until(() => offset - Math.min(this.#written, offset) <= window - CHUNK_LEN);
      const length = Math.min(CHUNK_LEN, size - offset);
      const chunk = Buffer.allocUnsafe(length);
      const { bytesRead } = await file.read(chunk, 0, length, offset);
      if (bytesRead < length) {
        await checkUnchanged(this.source);
        throw new PilotError('internal', `${this.source.path} cannot be read to its end`);
      }
      await this.#send(chunkStep(this.#id, offset, chunk));
      offset += length;
      this.sent.bytesSent += length;
    }
    await this.#send(doneStep(this.#id));
  }

  async #send(frame: Buffer): Promise<void> {
    try {
      await this.stream.write(frame, { signal: this.options.signal });
    } catch (error) {
      throw this.#broken(error);
    }
  }

  /** A stream that failed may be replaced; a caller who gave up may not. */
  #broken(error: unknown): Error {
    const why = systemError(error);
    return this.options.signal?.aborted ? why : new Broken('connection', why);
  }

  /** Waits until the receiver says where to go on. */
  async #grant(): Promise<number> {
    const isGranted = (): boolean => this.#granted !== undefined;
    if (!(await this.#untilSoon(isGranted, INIT_LIMIT_MS))) {
      // A large file cannot be sent in any other way, and a receiver that once knew this way still does.
      const first = this.sent.tries === 0 && this.source.size <= WHOLE_MAX;
      if (this.#isOurs !== true && first) throw new Broken('unsupported', silent());
      if (!(await this.#untilSoon(isGranted, OUR_LIMIT_MS))) throw new Broken('connection', silent());
    }
    return this.#granted ?? 0;
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      // The reader has ended, and knows why: nobody waits for the writer then.
      if (this.#over) await new Promise(() => undefined);
      await this.#heard.wait(this.options.signal);
    }
  }

  /** Whether it came true within the time. */
  async #untilSoon(condition: () => boolean, limitMs: number): Promise<boolean> {
    const late = new AbortController();
    const timer = setTimeout(() => {
      late.abort();
      this.#heard.notify();
    }, limitMs);
    try {
      await this.#until(() => condition() || late.signal.aborted);
      return condition();
    } finally {
      clearTimeout(timer);
    }
  }

  async #read(): Promise<void> {
    const answers = new ExchangeReader(async () => {
      try {
        return await this.stream.read({ signal: this.options.signal });
      } catch (error) {
        throw this.#broken(error);
      }
    });
    let asked = this.#asksForWindow;
    for (;;) {
      const frame = await answers.next().catch((error: unknown) => {
        throw error instanceof PilotError && error.code === 'closed' ? this.#broken(error) : error;
      });
      if (frame.kind === FrameType.FileStream) {
        if (this.#onStep(frame.payload)) return;
      } else if (frame.kind !== FrameType.Control) {
        const answer = parseAnswer(frame);
        if (asked) {
          asked = false;
          this.#isOurs = answer.is === 'stored' && !isUnsupported(answer, FrameType.Control);
        } else {
          throw this.#refused(answer);
        }
      }
    }
  }

  #refused(answer: ExchangeAnswer): Error {
    if (isUnsupported(answer, FrameType.FileStream)) return new Broken('unsupported', silent());
    return refusal(answer.is === 'failed' || answer.is === 'refused' ? answer.reason : answer.text);
  }

  /** True when the file is stored. */
  #onStep(payload: Buffer): boolean {
    const step = parseStep(payload, this.#id);
    const { size } = this.source;
    if (step === undefined) return false;
    switch (step.is) {
      case 'init_ack':
      case 'ack':
        if (step.offset > size) throw protocolError('the receiver has more than was sent');
        if (step.is === 'init_ack') {
          if (this.sent.tries === 0) this.sent.resumed += step.offset;
          this.#granted = step.offset;
          this.#written = step.offset;
        } else {
          this.#written = Math.max(this.#written, step.offset);
        }
        this.#told(step.offset);
        this.#heard.notify();
        return false;
      case 'complete':
        if (step.error === undefined) {
          this.#told(size);
          return true;
        }
        if (step.error.includes('sha256 mismatch')) throw new Broken('corrupt', notStored(step.error));
        throw refusal(step.error);
      case 'abort':
        throw refusal(step.message);
    }
  }

  #told(offset: number): void {
    this.sent.done = Math.max(this.sent.done, offset);
    this.options.onProgress?.({ done: this.sent.done, total: this.source.size, resumed: this.sent.resumed });
  }
}

function silent(): PilotError {
  return new PilotError('timeout', 'the receiver does not answer the announcement of a file');
}

const FOR_GOOD = ['unsafe file name', 'the file has no name', 'the receiver accepts up to'];

/** The receiver's no: for good when it is about the file itself, for now when it is about room. */
function refusal(message: string): PilotError {
  const begins = message.startsWith('refused by policy: ') || message.startsWith('unsupported frame type');
  if (!begins && !FOR_GOOD.some((words) => message.includes(words))) return notStored(message);
  const hint = 'nothing was delivered; trying again does not help';
  return new PilotError('refused', `the receiver does not accept it: ${message}`, { hint });
}

/** Sends a small file in one frame. */
async function sendWhole(link: Link, to: Address, source: Source, signal?: AbortSignal): Promise<void> {
  if (source.size > WHOLE_MAX) {
    const hint = `the receiver at ${formatAddress(to)} runs an old release; update it`;
    const limit = `the receiver takes files of up to ${String(WHOLE_MAX)} bytes only`;
    throw new PilotError('unsupported', `${limit}; this one has ${String(source.size)}`, { hint });
  }
  const data = Buffer.allocUnsafe(source.size);
  const { bytesRead } = await source.file.read(data, 0, source.size, 0);
  if (bytesRead < source.size) await checkUnchanged(source);
  const name = text(source.name);
  const stream = await open1001(await link.connection(), to, signal);
  try {
    await stream.write(exchangeFrame(FrameType.File, u16(name.length), name, data), { signal });
    const answer = parseAnswer(await new ExchangeReader(() => stream.read({ signal })).next());
    if (answer.is !== 'stored') throw notStored(answer.is === 'timed' ? answer.text : answer.reason);
  } finally {
    stream.close().catch(() => undefined);
  }
}

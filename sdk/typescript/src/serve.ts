/** Requests: the side that answers. */

import { Condition, isAborted, sleep, Turns } from './condition.js';
import type { Connection } from './connection.js';
import { pack, type Content, type MessageKind } from './content.js';
import { abortError, isLost, PilotError, unsupported } from './errors.js';
import { RECONNECT_PAUSE_MS, type Link } from './link.js';
import { mailOf, type Mail } from './mail.js';
import { withBody } from './outbox.js';
import { isRestarting, unexpected } from './request.js';
import type { CallOptions } from './stream.js';
import { asBigInt, asNumber, asObject, asText, type Json } from './wire/json.js';

/** How long one call waits before it is made again. */
const TURN_MS = 3_600_000;

/** Longest piece of an answer, or word of progress, in bytes. */
const PART_MAX = 64 << 10;

/** Requests that are worked at at the same time, unless told otherwise. */
const CONCURRENCY = 16;

/** Which requests are answered, and how. */
export interface ServeOptions {
  /** Only those of this node: hostname, address or number. */
  from?: string | number | undefined;
  /** Plain messages too, of those that arrive from now on: programs of release 1.18.0 ask with such ones. */
  all?: boolean | undefined;
  /** How many are worked at at the same time; 16 unless told otherwise. */
  concurrency?: number | undefined;
}

/** Why a request is not to be worked at any more. */
export type Withdrawal =
  /** The requester took it back. */
  | 'cancelled'
  /** Its time is over. */
  | 'deadline'
  /** Somebody else has answered it. */
  | 'answered'
  /** The daemon does not know that this program holds it. */
  | 'lost';

const WITHDRAWN: Record<Withdrawal, string> = {
  cancelled: 'the requester took it back',
  deadline: 'its time is over',
  answered: 'it was answered already',
  lost: 'this program does not hold it',
};

/**
 * Answers a request: what it returns is the answer, what it throws is said to the requester as the reason of the
 * failure. With nothing returned, the parts that were sent are the answer.
 */
// eslint-disable-next-line @typescript-eslint/no-invalid-void-type -- a handler that sent parts returns nothing
export type Handler = (request: Incoming) => Promise<Content | void> | Content | void;

interface Held {
  run: bigint;
  sent: number;
}

/** A connection that is mended when the daemon was restarted; what is held is held again then. */
class Desk {
  readonly held = new Map<string, Held>();
  #connection: Connection | undefined;
  readonly #mending = new Turns();
  #closed = false;

  constructor(private readonly link: Link) {}

  async call(request: Json, signal?: AbortSignal): Promise<Json> {
    for (;;) {
      const connection = await this.#mended(signal);
      try {
        return asObject(await connection.call({ call: 'serving', ...request }, signal));
      } catch (error) {
        if (this.#closed || !isRestarting(error)) throw error;
        await sleep(RECONNECT_PAUSE_MS, signal);
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.link.close();
  }

  /** The connection to the daemon that runs now; waits for one as long as it takes. */
  #mended(signal?: AbortSignal): Promise<Connection> {
    return this.#mending.run(async () => {
      for (;;) {
        try {
          const connection = await this.link.connection();
          if (this.#connection !== connection) await this.#resume(connection);
          this.#connection = connection;
          return connection;
        } catch (error) {
          if (this.#closed || !isRestarting(error)) throw error;
          await sleep(RECONNECT_PAUSE_MS, signal);
        }
      }
    });
  }

  /** What is held is held again with a new daemon. */
  async #resume(connection: Connection): Promise<void> {
    if (this.#connection === undefined || this.held.size === 0) return;
    const held = [...this.held].map(([id, { run, sent }]) => ({ id, run, sent }));
    await connection.call({ call: 'serving', op: 'resume', held });
  }
}

/**
 * Hands out requests to be answered. Each is held until it is answered or released, or this program ends: then another
 * program gets it.
 */
export class Server implements AsyncIterable<Incoming> {
  /** Resolves when the server was closed, rejects when it cannot go on. Only with a handler. */
  readonly closed: Promise<void>;
  readonly #desk: Desk;
  readonly #from: number | undefined;
  readonly #all: boolean;
  readonly #ended = new AbortController();
  readonly #working = new Set<Promise<void>>();

  /** @internal */
  private constructor(desk: Desk, from: number | undefined, options: ServeOptions, handler?: Handler) {
    this.#desk = desk;
    this.#from = from;
    this.#all = options.all === true;
    this.closed = handler ? this.#run(handler, options.concurrency ?? CONCURRENCY) : Promise.resolve();
    // Whoever looks at it is told.
    this.closed.catch(() => undefined);
  }

  /** @internal */
  static async start(
    link: Link,
    from: number | undefined,
    options: ServeOptions,
    handler?: Handler,
  ): Promise<Server> {
    if (link.isReference) throw unsupported('serving');
    // A connection of its own, so that requests are given back when the server is closed.
    return new Server(new Desk(await link.another()), from, options, handler);
  }

  /** The next request. A daemon that is restarted is waited for. */
  async next(options: CallOptions = {}): Promise<Incoming> {
    const incoming = await this.#take(options.signal);
    if (!incoming) throw new PilotError('closed', 'this server was closed');
    return incoming;
  }

  /** Requests until the server is closed. */
  async *[Symbol.asyncIterator](): AsyncIterator<Incoming> {
    for (;;) {
      const incoming = await this.#take();
      if (!incoming) return;
      yield incoming;
    }
  }

  /** Takes no more requests, waits for those that a handler works at, and gives back the rest. */
  async close(): Promise<void> {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(new PilotError('closed', 'this server was closed'));
    await Promise.allSettled(this.#working);
    await this.#desk.close();
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #take(signal?: AbortSignal): Promise<Incoming | undefined> {
    for (;;) {
      if (this.#ended.signal.aborted) return undefined;
      const request = { op: 'take', from: this.#from, all: this.#all, timeout_ms: TURN_MS };
      // The call itself is never given up, so that nothing it brings is lost.
      const taking = this.#desk.call(request);
      try {
        const reply = await this.#unlessEnded(taking, signal);
        if (reply.is === 'timed_out') continue;
        if (reply.is !== 'taken') throw unexpected(reply);
        return await Incoming.take(this.#desk, reply);
      } catch (error) {
        const ended = isAborted(this.#ended.signal);
        if (ended || isAborted(signal)) this.#giveBack(taking);
        if (ended) return undefined;
        throw error;
      }
    }
  }

  async #unlessEnded(taking: Promise<Json>, signal?: AbortSignal): Promise<Json> {
    const ended = this.#ended.signal;
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        reject(abortError(signal?.aborted ? signal : ended));
      };
      ended.addEventListener('abort', stop, { once: true });
      signal?.addEventListener('abort', stop, { once: true });
      if (ended.aborted || signal?.aborted) stop();
      const done = (): void => {
        ended.removeEventListener('abort', stop);
        signal?.removeEventListener('abort', stop);
      };
      taking.then(resolve, reject).finally(done).catch(() => undefined);
    });
  }

  /** Ends the waiting of a call; what it brings all the same is for others. */
  #giveBack(taking: Promise<Json>): void {
    const desk = this.#desk;
    desk.call({ op: 'leave' }).catch(() => undefined);
    taking
      .then(async (reply) => {
        const id = asText(asObject(reply.letter).id);
        if (reply.is === 'taken' && id !== undefined) await desk.call({ op: 'release', id });
      })
      .catch(() => undefined);
  }

  async #run(handler: Handler, concurrency: number): Promise<void> {
    const free = new Condition();
    for (;;) {
      while (this.#working.size >= concurrency) await free.wait();
      const incoming = await this.#take();
      if (!incoming) return;
      const work = incoming.answerWith(handler).finally(() => {
        this.#working.delete(work);
        free.notify();
      });
      this.#working.add(work);
    }
  }
}

/** A request that this program holds. */
export class Incoming {
  /** The message: who asks, what, its ids. */
  readonly mail: Mail;
  /** Until when the answer is waited for. */
  readonly deadline: Date;
  /** Whether pieces and progress are wanted before the answer. If not, they cost nothing. */
  readonly wantsParts: boolean;
  /** How many programs in a row have answered by themselves to bring it about. */
  readonly hops: number;
  /** Aborted when the request is not to be worked at any more: taken back, over time, or answered by somebody else. */
  readonly signal: AbortSignal;
  readonly #desk: Desk;
  readonly #withdrawn = new AbortController();
  readonly #unwatch = new AbortController();
  readonly #sent: Buffer[] = [];
  #ended = false;

  /** @internal */
  private constructor(desk: Desk, mail: Mail, taken: Json) {
    this.#desk = desk;
    this.mail = mail;
    this.deadline = new Date(Date.now() + asNumber(taken.left_ms));
    this.wantsParts = taken.parts === true;
    this.hops = asNumber(taken.hops);
    this.signal = this.#withdrawn.signal;
    this.#watch().catch(() => undefined);
  }

  /** @internal */
  static async take(desk: Desk, taken: Json): Promise<Incoming> {
    const letter = asObject(taken.letter);
    const id = asText(letter.id) ?? '';
    desk.held.set(id, { run: asBigInt(taken.run), sent: 0 });
    try {
      return new Incoming(desk, await mailOf(letter), taken);
    } catch (error) {
      desk.held.delete(id);
      await desk.call({ op: 'release', id });
      throw error;
    }
  }

  /** Its id in the inbox. */
  get id(): string {
    return this.mail.id;
  }

  /** Who asks: the address that the tunnel proved. */
  get from(): string {
    return this.mail.from;
  }

  /** Its bytes. */
  get data(): Buffer {
    return this.mail.data;
  }

  /** As UTF-8 text. */
  text(): string {
    return this.mail.text();
  }

  /** As JSON. What a peer sends is not checked. */
  json(): unknown {
    return this.mail.json();
  }

  /** Why it is not to be worked at any more, if so. */
  get withdrawal(): Withdrawal | undefined {
    return this.signal.aborted ? ((this.signal.reason as PilotError).cause as Withdrawal) : undefined;
  }

  /** Says how far the work is. */
  async progress(word: string): Promise<void> {
    await this.#interim('progress', Buffer.from(word, 'utf8').subarray(0, PART_MAX));
  }

  /** Sends the next bytes of the answer; {@link finish} sends all of them as the answer. */
  async part(data: string | Uint8Array): Promise<void> {
    const bytes = pack(data).data;
    for (let at = 0; at < bytes.length; at += PART_MAX) {
      const piece = Buffer.from(bytes.subarray(at, at + PART_MAX));
      this.#sent.push(piece);
      await this.#interim('part', piece);
    }
  }

  /** Answers with the parts that were sent, as text if they are. Gives the id of the answer. */
  finish(): Promise<string> {
    const data = Buffer.concat(this.#sent);
    return this.answer(data, { kind: isText(data) ? 'text' : 'binary' });
  }

  /** Answers. When this resolves, the answer survives a crash of the daemon. Gives its id. */
  answer(content: Content, options: { kind?: MessageKind } = {}): Promise<string> {
    return this.#end('done', content, options.kind);
  }

  /** Says that it failed, and why. */
  fail(why: string): Promise<string> {
    return this.#end('failed', why);
  }

  /** Says that it is not done, and why. */
  decline(why: string): Promise<string> {
    return this.#end('declined', why);
  }

  /** Gives it back: another program, or this one, gets it again. */
  async release(): Promise<void> {
    if (this.#ended) return;
    this.#stop();
    await this.#desk.call({ op: 'release', id: this.id });
  }

  /** @internal */
  async answerWith(handler: Handler): Promise<void> {
    try {
      let content: Content | void; // eslint-disable-line @typescript-eslint/no-invalid-void-type -- see Handler
      try {
        content = await handler(this);
      } catch (error) {
        if (!this.#ended && !this.signal.aborted) await this.fail(error instanceof Error ? error.message : String(error));
        return;
      }
      if (this.#ended) return;
      await (content === undefined ? this.finish() : this.answer(content));
    } catch (error) {
      // It was withdrawn meanwhile, or the connection was closed: there is nobody to tell.
      if (!(error instanceof PilotError)) throw error;
    } finally {
      this.#stop();
    }
  }

  async #interim(kind: 'part' | 'progress', data: Buffer): Promise<void> {
    if (!this.wantsParts) return;
    if (this.signal.aborted) throw abortError(this.signal);
    await this.#desk.call({ op: 'interim', id: this.id, kind, data: data.toString('base64') });
    const held = this.#desk.held.get(this.id);
    if (held) held.sent += 1;
  }

  async #end(outcome: string, content: Content, kind?: MessageKind): Promise<string> {
    if (this.#ended) throw new PilotError('invalid_argument', 'this request was answered or given back already');
    const packed = pack(content, kind);
    return withBody(packed, async (body) => {
      const request = { op: 'answer', id: this.id, held: true, outcome, kind: packed.kind, body };
      // From here on it is not given back, whatever happens: it may be answered.
      this.#ended = true;
      try {
        const reply = await this.#desk.call(request);
        if (reply.is !== 'answered') throw unexpected(reply);
        return asText(reply.message_id) ?? '';
      } finally {
        this.#stop();
      }
    });
  }

  #stop(): void {
    this.#ended = true;
    this.#unwatch.abort();
    this.#desk.held.delete(this.id);
  }

  /** Waits until it is not to be worked at any more. */
  async #watch(): Promise<void> {
    for (;;) {
      let why: Withdrawal = 'lost';
      try {
        const watch = { op: 'watch', id: this.id, timeout_ms: TURN_MS };
        const reply = await this.#desk.call(watch, this.#unwatch.signal);
        if (reply.is === 'timed_out') continue;
        const said = asText(reply.why);
        if (said === 'cancelled' || said === 'deadline' || said === 'answered') why = said;
      } catch (error) {
        if (this.#unwatch.signal.aborted) return;
        if (isLost(error)) continue;
      }
      if (this.#ended) return;
      this.#withdrawn.abort(new PilotError('cancelled', WITHDRAWN[why], { cause: why }));
      return;
    }
  }
}

function isText(data: Buffer): boolean {
  return Buffer.from(data.toString('utf8'), 'utf8').equals(data);
}

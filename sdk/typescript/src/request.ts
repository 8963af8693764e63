/** Requests: a message that is answered, with pieces and progress before the answer. The side that asks. */

import { formatAddress, type Address } from './address.js';
import { sleep } from './condition.js';
import { checkId, newMessageId, nowNs, pack, type Content, type MessageKind } from './content.js';
import { abortError, isLost, PilotError, protocolError } from './errors.js';
import { RECONNECT_PAUSE_MS, type Link } from './link.js';
import { mailOf, type Mail } from './mail.js';
import { itemOf, STATES, withBody, type DeliveryState, type OutboxItem } from './outbox.js';
import { Parts, type Piece } from './parts.js';
import type { CallOptions } from './stream.js';
import { asArray, asBigInt, asNumber, asObject, asText, type Json } from './wire/json.js';

/** How long an answer is waited for when nothing else is said. */
const DEADLINE_MS = 30_000;

/** How long one call waits before it is made again: what is given up here ends there by then. */
const TURN_MS = 60_000;

/** How a request is made. */
export interface RequestOptions extends CallOptions {
  /** What its bytes are; told from the content when absent. */
  kind?: MessageKind | undefined;
  /** How long the answer is waited for here, and how long it is worked at there: 30 seconds, at most a day. */
  deadlineMs?: number | undefined;
  /** Requests under one key are carried out once: a second one gets the answer of the first, for a day. */
  key?: string | undefined;
  /** Called with each word of progress. */
  onProgress?: ((word: string) => void) | undefined;
  /** Called with each piece of the answer as it is made. After `restarted` the pieces begin anew. */
  onPart?: ((part: Buffer) => void) | undefined;
  /** Whether pieces and progress are wanted; they are when one of the two above is given. */
  parts?: boolean | undefined;
  /** For how long the request is delivered; for as long as the answer is waited for, when absent. */
  ttlMs?: number | undefined;
  /** Its id; random when absent. The same id again is the same request. */
  messageId?: string | undefined;
  /** The message that it answers itself. */
  replyTo?: string | undefined;
  /** Whether a message of that node that names nothing may be the answer, as programs of release 1.18.0 send them. */
  loose?: boolean | undefined;
  /** How many programs in a row have answered by themselves to bring it about. */
  hops?: number | undefined;
}

/** How a request ended. */
export type Outcome = 'done' | 'failed' | 'cancelled' | 'declined';

/** The answer to a request. */
export interface Response {
  /** How the request ended. */
  readonly outcome: Outcome;
  /** The message, which is in the inbox. */
  readonly mail: Mail;
  /** Its bytes. */
  readonly data: Buffer;
  /** As UTF-8 text. */
  text(): string;
  /** As JSON. What a peer sends is not checked. */
  json(): unknown;
}

/** What happens to a request. */
export type RequestEvent =
  /** It has come further on its way. */
  | { readonly type: 'state'; readonly state: DeliveryState }
  /** How far the work is in the worker's words, the next bytes of the answer, or that they begin anew. */
  | Piece
  /** The end. */
  | { readonly type: 'done'; readonly response: Response };

/**
 * A request under way. Await it for the answer, or iterate over what happens until then; either, not both. It was
 * handed to the daemon's disk when `accepted` resolves.
 */
export class PendingRequest implements Promise<Response>, AsyncIterable<RequestEvent> {
  /** Its id. */
  readonly id: string;
  /** Resolves when the daemon has taken it over. */
  readonly accepted: Promise<void>;
  readonly #link: Link;
  readonly #options: RequestOptions;
  readonly #deadlineMs: number;
  readonly #deadline: number;
  readonly #sentNs = nowNs();
  readonly #parts = new Parts();
  readonly #events: RequestEvent[] = [];
  #to: Address | undefined;
  #item: OutboxItem | undefined;
  #over = false;
  #answer: Promise<Response> | undefined;

  /** @internal */
  constructor(link: Link, to: Promise<Address>, content: Content, options: RequestOptions) {
    this.#link = link;
    this.#options = options;
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.#deadline = Date.now() + this.#deadlineMs;
    this.id = options.messageId ?? newMessageId();
    // Not looked at when something else is wrong with the request.
    to.catch(() => undefined);
    this.accepted = this.#send(to, content);
    // Whoever waits for the answer is told.
    this.accepted.catch(() => undefined);
  }

  /** What the outbox knows of it. */
  get item(): OutboxItem | undefined {
    return this.#item;
  }

  /** The answer. Rejects with class `failed`, `refused` (declined), `cancelled` or `timeout` when there is none. */
  then<A = Response, B = never>(
    resolve?: ((response: Response) => A | PromiseLike<A>) | null,
    reject?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#answer ??= this.#wait();
    return this.#answer.then(resolve, reject);
  }

  /** As that of a promise. */
  catch<B = never>(reject?: ((error: unknown) => B | PromiseLike<B>) | null): Promise<Response | B> {
    return this.then(undefined, reject);
  }

  /** As that of a promise. */
  finally(last?: (() => void) | null): Promise<Response> {
    return this.then().finally(last);
  }

  readonly [Symbol.toStringTag] = 'PendingRequest';

  /** Everything that happens, up to `done`, whatever its outcome. */
  async *[Symbol.asyncIterator](): AsyncIterator<RequestEvent> {
    await this.accepted;
    for (;;) {
      const event = await this.#next();
      if (!event) return;
      yield event;
    }
  }

  /** Takes the request back. It ends with the outcome `cancelled`, or with an answer that was faster. */
  async cancel(): Promise<void> {
    await this.accepted;
    if (!this.#to) return;
    const connection = await this.#link.connection();
    await connection.call({ call: 'serving', op: 'cancel', id: this.id, to: this.#to.node });
  }

  get #wantsParts(): boolean {
    const { parts, onPart, onProgress } = this.#options;
    return parts ?? (onPart !== undefined || onProgress !== undefined);
  }

  async #send(target: Promise<Address>, content: Content): Promise<void> {
    const { signal, key, ttlMs, replyTo } = this.#options;
    for (const id of [this.id, key, replyTo]) if (id !== undefined) checkId(id);
    const to = await target;
    const packed = pack(content, this.#options.kind);
    const request = { deadline_ms: this.#deadlineMs, key, parts: this.#wantsParts };
    await withBody(packed, async (body) => {
      const ask = {
        call: 'serving',
        op: 'ask',
        to: formatAddress(to),
        kind: packed.kind,
        body,
        message_id: this.id,
        reply_to: replyTo,
        extension: { request, hops: this.#options.hops ?? hops() },
        ttl_ms: ttlMs ?? this.#deadlineMs,
        wait_ms: 0,
      };
      for (;;) {
        try {
          const connection = await this.#link.connection();
          this.#to = to;
          const reply = asObject(await connection.call(ask, signal));
          if (reply.is !== 'asked') throw unexpected(reply);
          if (reply.item !== undefined) this.#onItem(itemOf(reply.item));
          return;
        } catch (error) {
          if (signal?.aborted) this.#withdraw();
          // The id makes it the same request.
          if (!isLost(error) || Date.now() >= this.#deadline) throw error;
          await sleep(RECONNECT_PAUSE_MS, signal);
        }
      }
    });
  }

  async #wait(): Promise<Response> {
    await this.accepted;
    for (;;) {
      const event = await this.#next();
      if (!event) throw new PilotError('invalid_argument', 'the answer was handed out already');
      if (event.type === 'done') return resultOf(event.response);
    }
  }

  /** Gives it up on the other side, too, without waiting for that. */
  #withdraw(): void {
    if (this.#over) return;
    this.#over = true;
    if (!this.#to) return;
    const to = this.#to.node;
    const cancel = { call: 'serving', op: 'cancel', id: this.id, to };
    this.#link.connection().then((connection) => connection.call(cancel)).catch(() => undefined);
  }

  async #next(): Promise<RequestEvent | undefined> {
    const { signal } = this.#options;
    for (;;) {
      const event = this.#events.shift();
      if (event) {
        this.#tell(event);
        return event;
      }
      if (this.#over) return undefined;
      if (signal?.aborted) {
        this.#withdraw();
        throw abortError(signal);
      }
      const left = this.#deadline - Date.now();
      if (left <= 0) {
        this.#over = true;
        throw this.#timedOut();
      }
      try {
        const connection = await this.#link.connection();
        await this.#onNews(asObject(await connection.call(this.#question(left), signal)));
      } catch (error) {
        if (signal?.aborted) this.#withdraw();
        if (!isRestarting(error)) throw error;
        await sleep(Math.min(RECONNECT_PAUSE_MS, left), signal);
      }
    }
  }

  #tell(event: RequestEvent): void {
    if (event.type === 'progress') this.#options.onProgress?.(event.data.toString('utf8'));
    if (event.type === 'part') this.#options.onPart?.(event.data);
  }

  #question(left: number): Json {
    const { run, number } = this.#parts.seen;
    return {
      call: 'serving',
      op: 'next',
      id: this.id,
      to: this.#to?.node,
      since_ns: this.#sentNs,
      loose: this.#options.loose === true,
      run,
      number,
      state: this.#item?.state,
      timeout_ms: Math.max(Math.min(left, TURN_MS), 1),
    };
  }

  async #onNews(news: Json): Promise<void> {
    if (news.is !== 'news') throw unexpected(news);
    for (const item of asArray(news.interim)) {
      const { run, number, kind, data } = asObject(item);
      const type = kind === 'part' ? 'part' : 'progress';
      const bytes = Buffer.from(asText(data) ?? '', 'base64');
      this.#events.push(...this.#parts.onPiece(asBigInt(run), asNumber(number), type, bytes));
    }
    if (news.item !== undefined) this.#onItem(itemOf(news.item));
    if (news.answer !== undefined) this.#onAnswer(await mailOf(news.answer));
  }

  #onItem(item: OutboxItem): void {
    const known = this.#item;
    if (known && STATES.indexOf(known.state) >= STATES.indexOf(item.state)) return;
    this.#item = item;
    const reason = item.reason === undefined ? '' : `: ${item.reason}`;
    switch (item.state) {
      case 'expired':
        this.#over = true;
        throw new PilotError('timeout', `the request could not be delivered in time${reason}`);
      case 'refused':
        this.#over = true;
        throw new PilotError('refused', `${item.to} does not take the request${reason}`);
      case 'cancelled':
        this.#over = true;
        throw new PilotError('cancelled', 'the request was taken back before it was delivered');
      default:
        this.#events.push({ type: 'state', state: item.state });
    }
  }

  #onAnswer(mail: Mail): void {
    const said = mail.extension.outcome;
    const outcome: Outcome = said === 'failed' || said === 'cancelled' || said === 'declined' ? said : 'done';
    if (this.#wantsParts && outcome === 'done') this.#events.push(...this.#parts.onAnswer(mail.data));
    const response: Response = {
      outcome,
      mail,
      data: mail.data,
      text: () => mail.text(),
      json: () => mail.json(),
    };
    this.#events.push({ type: 'done', response });
    this.#over = true;
  }

  #timedOut(): PilotError {
    const state = this.#item?.state;
    const known =
      state === undefined
        ? 'nothing is known of the request'
        : state === 'queued'
          ? 'the request waits here to be delivered'
          : state === 'sent'
            ? 'the request is on its way'
            : state === 'stored'
              ? 'the request is in its inbox, and nobody has taken it'
              : 'a program there has taken the request';
    const to = this.#to ? formatAddress(this.#to) : 'the peer';
    return new PilotError('timeout', `no answer from ${to} within ${String(this.#deadlineMs)} ms; ${known}`);
  }
}

/** The answer, if the work was done; otherwise the worker's reason as an error. */
function resultOf(response: Response): Response {
  if (response.outcome === 'done') return response;
  const code = response.outcome === 'declined' ? 'refused' : response.outcome;
  const said = response.text().trim();
  const nothing = response.outcome === 'declined' ? 'the request was declined' : `the request has ${code}`;
  throw new PilotError(code, said === '' ? nothing : said);
}

/** The daemon is gone, or has not started its services yet: a moment later it may answer. */
export function isRestarting(error: unknown): boolean {
  return isLost(error) || (error instanceof PilotError && error.code === 'busy');
}

/** How many programs in a row have answered by themselves for a message that this program sends. */
function hops(): number {
  const cause = Number.parseInt(process.env.PILOT_HOPS ?? '', 10);
  return Number.isNaN(cause) ? 0 : Math.min(cause + 1, 255);
}

export function unexpected(reply: Json): PilotError {
  return protocolError(`unexpected answer about a request: ${asText(reply.is) ?? 'nothing'}`);
}

/** The inbox as a program uses it: each message as it arrives. */

import { anySignal, isAborted, sleep } from './condition.js';
import { isLost, PilotError } from './errors.js';
import { RECONNECT_PAUSE_MS, type Link } from './link.js';
import { filterJson, mailboxReply, mailOf, type Mail, type MailFilter } from './mail.js';
import type { CallOptions } from './stream.js';
import { asArray, asBigInt, asObject, type Json } from './wire/json.js';

/** How long one request waits before it is made again. */
const TURN_MS = 60_000;

/**
 * Messages as they arrive, in their order. It goes on by itself when the daemon is restarted: what arrives meanwhile
 * is not missed, and nothing is handed out twice.
 */
export class Inbox implements AsyncIterable<Mail> {
  readonly #link: Link;
  readonly #filter: Promise<Json>;
  readonly #closed = new AbortController();
  #sinceNs: bigint | undefined;
  #busy = false;

  /** @internal */
  constructor(link: Link, filter: MailFilter, from: Promise<number | undefined>) {
    this.#link = link;
    this.#filter = this.#start(filter, from);
    // Whoever asks for a message is told.
    this.#filter.catch(() => undefined);
  }

  /** The next message; it counts as read when this resolves. That the daemon is down is no error: this waits for it. */
  async next(options: CallOptions = {}): Promise<Mail> {
    const mail = await this.#next(options.signal);
    if (!mail) throw new PilotError('closed', 'this inbox was closed');
    return mail;
  }

  /** Messages until {@link close} is called, or the loop is left. */
  async *[Symbol.asyncIterator](): AsyncIterator<Mail> {
    for (;;) {
      const mail = await this.#next();
      if (!mail) return;
      yield mail;
    }
  }

  /** Ends the waiting. */
  close(): void {
    this.#closed.abort();
  }

  /** Without `unread` and a time, those that arrive from now on. */
  async #start(filter: MailFilter, from: Promise<number | undefined>): Promise<Json> {
    const wanted = filterJson(filter, await from);
    if (filter.sinceNs === undefined && filter.unread !== true) {
      const connection = await this.#link.connection();
      const list = { call: 'mailbox', op: 'list', limit: 1 };
      const newest = asArray(mailboxReply(await connection.call(list), 'messages').messages).at(-1);
      this.#sinceNs = asBigInt(asObject(newest).arrived_ns);
    }
    return wanted;
  }

  async #next(signal?: AbortSignal): Promise<Mail | undefined> {
    if (this.#busy) throw new PilotError('busy', 'the next message of this inbox is waited for already');
    this.#busy = true;
    try {
      return await this.#wait(await this.#filter, signal);
    } finally {
      this.#busy = false;
    }
  }

  async #wait(filter: Json, signal: AbortSignal | undefined): Promise<Mail | undefined> {
    for (;;) {
      if (this.#closed.signal.aborted) return undefined;
      const wait = {
        call: 'mailbox',
        op: 'wait',
        ...filter,
        since_ns: this.#sinceNs ?? filter.since_ns,
        peek: true,
        timeout_ms: TURN_MS,
      };
      const either = anySignal(this.#closed.signal, signal);
      try {
        const connection = await this.#link.connection();
        const reply = mailboxReply(await connection.call(wait, either.signal), 'message', 'timed_out');
        if (reply.is === 'timed_out') continue;
        const mail = await mailOf(reply);
        const mark = { call: 'mailbox', op: 'mark', ids: [mail.id], read: true };
        mailboxReply(await connection.call(mark), 'marked');
        this.#sinceNs = mail.arrivedNs;
        return mail;
      } catch (error) {
        if (isAborted(this.#closed.signal)) return undefined;
        if (!isLost(error)) throw error;
        await sleep(RECONNECT_PAUSE_MS, signal);
      } finally {
        either.done();
      }
    }
  }
}

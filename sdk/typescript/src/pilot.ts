/** The connection as programs see it. */

import { checkPort, endpoint, parseAddress, PORTS, type Target } from './address.js';
import { sleep } from './condition.js';
import { nowNs, pack, type Content, type MessageKind } from './content.js';
import { isLost, PilotError, unsupported } from './errors.js';
import { EventStream, type SubscribeOptions } from './events.js';
import type { PilotEvent, Subscribed } from './feed.js';
import { sendFile, type FileOptions, type FileReceipt } from './file.js';
import { Inbox } from './inbox.js';
import { Link, RECONNECT_PAUSE_MS } from './link.js';
import { entryOf, filterJson, mailboxReply, mailOf, type Mail, type MailEntry, type MailFilter } from './mail.js';
import { sendMessage, type MessageOptions, type Receipt } from './message.js';
import { NodeCalls, WAIT_MS } from './node.js';
import {
  listOutbox,
  queueFile,
  queueMessage,
  showOutbox,
  waitOutbox,
  withBody,
  type DeliveryState,
  type Outbox,
  type OutboxItem,
  type QueueOptions,
} from './outbox.js';
import { Datagrams, Listener, sendDatagram } from './ports.js';
import { PendingRequest, unexpected, type RequestOptions } from './request.js';
import { Server, type Handler, type ServeOptions } from './serve.js';
import { defaultSocket } from './socket.js';
import { PilotStream, type CallOptions } from './stream.js';
import type { Answered, ReceivedFile } from './types.js';
import { Command, service } from './wire/frames.js';
import { asArray, asBigInt, asNumber, asObject, camel, type Json } from './wire/json.js';

/** How one connects. */
export interface ConnectOptions extends CallOptions {
  /** The daemon's socket: `$PILOT_SOCKET`, else that of `config.json`, else `/tmp/pilot.sock`. */
  socket?: string | undefined;
}

/** A subscription of its own: events of one pattern. */
export interface Subscription extends AsyncIterable<PilotEvent> {
  /** What the broker granted. */
  readonly granted: Subscribed;
  /** The next event. */
  next(options?: CallOptions): Promise<PilotEvent>;
  /** Ends it. */
  close(): Promise<void>;
}

/**
 * A connection to the daemon of this machine. A daemon that is restarted is connected to again with the next call; what
 * was opened on the old connection (streams, listeners) ended with it.
 */
export class Pilot extends NodeCalls {
  #events: Promise<EventStream> | undefined;

  /** Connects to the daemon. Rejects with class `not_running` when none answers. */
  static async connect(options: ConnectOptions = {}): Promise<Pilot> {
    const link = await Link.open(options.socket ?? defaultSocket(), options.signal);
    try {
      const pilot = new Pilot(link);
      await pilot.info();
      return pilot;
    } catch (error) {
      await link.close();
      throw error;
    }
  }

  /** Ends the connection, and with it everything that was opened on it. What was written is still delivered. */
  async close(): Promise<void> {
    await this.link.close();
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // ---- streams and datagrams

  /** Opens a stream to a service; resolves when the peer has accepted it. Port 1000 unless told otherwise. */
  async dial(target: Target, port: number = PORTS.stdio, options: CallOptions = {}): Promise<PilotStream> {
    const to = await this.addressOf(target);
    const connection = await this.link.connection();
    const state = await connection.dial(Command.Dial, service(to, checkPort(port)), options.signal);
    return new PilotStream(connection, state, endpoint(to, port));
  }

  /** Claims a port; streams to it are then accepted through the listener. */
  async listen(port: number, options: CallOptions = {}): Promise<Listener> {
    return Listener.claim(await this.link.connection(), port, options.signal);
  }

  /** Claims a port for datagrams: receives those for it, and sends from it. */
  async datagrams(port: number): Promise<Datagrams> {
    return Datagrams.claim(await this.link.connection(), port, (target) => this.addressOf(target));
  }

  /** Sends one datagram from a port that the daemon chooses. Resolves when it has been handed to the network. */
  async sendDatagram(target: Target, port: number, data: string | Uint8Array): Promise<void> {
    await sendDatagram(await this.link.connection(), await this.addressOf(target), port, data);
  }

  // ---- messages

  /** Sends a message straight to a peer and waits until it is stored there. The peer must be reachable now. */
  async sendMessage(target: Target, content: Content, options: MessageOptions = {}): Promise<Receipt> {
    const to = await this.addressOf(target);
    return sendMessage(await this.link.connection(), to, content, options);
  }

  /** Hands a message to the daemon, which delivers it when it can, once and in order. It is on disk when this resolves. */
  async queueMessage(target: Target, content: Content, options: QueueOptions = {}): Promise<OutboxItem> {
    return queueMessage(this.link, await this.addressOf(target), content, options);
  }

  /** Hands a file to the daemon to be delivered. It takes a copy before this resolves. */
  async queueFile(
    target: Target,
    path: string,
    options: QueueOptions & { name?: string } = {},
  ): Promise<OutboxItem> {
    return queueFile(this.link, await this.addressOf(target), path, options);
  }

  /** What waits to be delivered, and what became of the rest. */
  async outbox(filter: { to?: Target; pending?: boolean; limit?: number } = {}): Promise<Outbox> {
    const to = filter.to === undefined ? undefined : (await this.addressOf(filter.to)).node;
    return listOutbox(this.link, to, filter.pending === true, filter.limit);
  }

  /** One message of the outbox. */
  outboxItem(id: string): Promise<OutboxItem> {
    return showOutbox(this.link, 'show', id);
  }

  /** Takes a message back that is not stored yet. */
  outboxCancel(id: string): Promise<OutboxItem> {
    return showOutbox(this.link, 'cancel', id);
  }

  /** Waits until a message has come so far, never will, or the time is over: the item tells. */
  outboxWait(
    id: string,
    until: DeliveryState,
    options: CallOptions & { timeoutMs?: number } = {},
  ): Promise<OutboxItem> {
    return waitOutbox(this.link, id, until, options.timeoutMs ?? WAIT_MS, options.signal);
  }

  /**
   * The unread messages that pass the filter, then each as it arrives; with `unread: false`, those that arrive from now
   * on. Each counts as read when it is handed out.
   */
  inbox(filter: MailFilter = {}): Inbox {
    const unread = filter.unread ?? filter.sinceNs === undefined;
    return new Inbox(this.link, { ...filter, unread }, this.nodeOf(filter.from));
  }

  /** What is in the inbox, oldest first: the newest of what passes the filter, 500 at most. */
  async listMessages(filter: MailFilter & { limit?: number; beforeNs?: bigint } = {}): Promise<MailEntry[]> {
    const from = await this.nodeOf(filter.from);
    const { limit, beforeNs } = filter;
    const list = { op: 'list', ...filterJson(filter, from), limit, before_ns: beforeNs };
    return asArray(mailboxReply(await this.#mailbox(list), 'messages').messages).map(entryOf);
  }

  /** One message of the inbox, or the newest. It counts as read then. */
  async readMessage(id?: string): Promise<Mail> {
    return mailOf(mailboxReply(await this.#mailbox({ op: 'read', id }), 'message'));
  }

  /**
   * Takes the first unread message that passes the filter, at once or when it comes; undefined when none came in time.
   * Of several programs that wait, one gets it.
   */
  async takeMessage(filter: MailFilter = {}, timeoutMs = WAIT_MS): Promise<Mail | undefined> {
    const wanted = filterJson({ ...filter, unread: true }, await this.nodeOf(filter.from));
    return this.#waitMail(wanted, timeoutMs);
  }

  /** Waits for the message that answers `messageId`; undefined when none came in time. */
  async waitReply(from: Target, messageId: string, timeoutMs = WAIT_MS): Promise<Mail | undefined> {
    const { node } = await this.addressOf(from);
    return this.#waitMail({ from: node, since_ns: nowNs(), reply_to: messageId }, timeoutMs);
  }

  /** Marks messages as read or unread; returns how many were not so before. */
  async markMessages(ids: readonly string[], read = true): Promise<number> {
    return asNumber(mailboxReply(await this.#mailbox({ op: 'mark', ids, read }), 'marked').marked);
  }

  /** Removes messages; returns how many there were. */
  async removeMessages(ids: readonly string[]): Promise<number> {
    return asNumber(mailboxReply(await this.#mailbox({ op: 'remove', ids }), 'cleared').cleared);
  }

  /**
   * Answers a message of the inbox, whoever works at it: by the message itself, its id there, or its sender's id. With
   * `as`, says that it failed or is declined, and why.
   */
  async reply(
    to: Mail | string,
    content: Content,
    options: { as?: 'answer' | 'failure' | 'refusal'; kind?: MessageKind } = {},
  ): Promise<Answered> {
    const packed = pack(content, options.kind);
    const outcome = options.as === 'failure' ? 'failed' : options.as === 'refusal' ? 'declined' : 'done';
    const id = typeof to === 'string' ? to : to.id;
    return withBody(packed, async (body) => {
      const answer = { call: 'serving', op: 'answer', id, held: false, outcome, kind: packed.kind, body };
      const reply = asObject(await this.call(answer));
      if (reply.is !== 'answered') throw unexpected(reply);
      return camel(reply) as Answered;
    });
  }

  // ---- requests

  /** Asks a peer's program. Await the result for the answer, or iterate over it for everything until then. */
  request(target: Target, content: Content, options: RequestOptions = {}): PendingRequest {
    if (this.isReference) throw unsupported('serving');
    return new PendingRequest(this.link, this.addressOf(target), content, options);
  }

  /** Answers requests of other nodes with a handler, or, without one, by iterating over the server. */
  serve(handler: Handler, options?: ServeOptions): Promise<Server>;
  serve(options?: ServeOptions): Promise<Server>;
  async serve(first: Handler | ServeOptions = {}, second: ServeOptions = {}): Promise<Server> {
    const [handler, options] = typeof first === 'function' ? [first, second] : [undefined, first];
    return Server.start(this.link, await this.nodeOf(options.from), options, handler);
  }

  // ---- files

  /** Sends a file and waits until the receiver has checked its hash and stored it. Interruptions are mended. */
  async sendFile(target: Target, path: string, options: FileOptions = {}): Promise<FileReceipt> {
    return sendFile(this.link, await this.addressOf(target), path, options);
  }

  /** Files and folders that peers sent: the newest, oldest of them first. */
  async receivedFiles(filter: { from?: Target; sinceNs?: bigint; limit?: number } = {}): Promise<ReceivedFile[]> {
    const from = await this.nodeOf(filter.from);
    const { sinceNs, limit } = filter;
    const reply = asObject(await this.call({ call: 'received', op: 'list', from, since_ns: sinceNs, limit }));
    return asArray(reply.files).map(fileOf);
  }

  /** Waits for the next file that arrives from now on, or after `sinceNs`; undefined when none came in time. */
  async waitFile(
    filter: { from?: Target; sinceNs?: bigint; timeoutMs?: number } = {},
  ): Promise<ReceivedFile | undefined> {
    const from = await this.nodeOf(filter.from);
    const since = filter.sinceNs ?? nowNs();
    return this.#patiently(filter.timeoutMs ?? WAIT_MS, async (timeout) => {
      const wait = { call: 'received', op: 'wait', from, since_ns: since, timeout_ms: timeout };
      const reply = asObject(await this.call(wait));
      return reply.is === 'file' ? fileOf(reply) : undefined;
    });
  }

  // ---- events

  /** Events of this node's broker, which also listens to those of trusted nodes; or of another node's broker alone. */
  async openEventStream(options: { at?: Target } = {}): Promise<EventStream> {
    if (options.at !== undefined) return new EventStream(this.link, await this.addressOf(options.at), false);
    const { address } = await this.info();
    const own = parseAddress(address);
    if (!own || own.node === 0) throw new PilotError('not_registered', 'this node has no address from the registry yet');
    return new EventStream(this.link, own, true);
  }

  /** Subscribes to a topic or pattern; resolves when it is in force. */
  async subscribe(pattern: string, options: SubscribeOptions & { at?: Target } = {}): Promise<Subscription> {
    const stream = await this.openEventStream(options);
    try {
      const granted = await stream.subscribe(pattern, options);
      return {
        granted,
        next: (more) => stream.next(more),
        close: () => stream.close(),
        [Symbol.asyncIterator]: () => stream[Symbol.asyncIterator](),
      };
    } catch (error) {
      await stream.close();
      throw error;
    }
  }

  /** Publishes an event to everybody who listens; resolves when the broker has it. */
  async publish(topic: string, content: Content, options: { at?: Target } = {}): Promise<void> {
    if (options.at !== undefined) {
      const there = await this.openEventStream(options);
      try {
        await there.publish(topic, content);
        await there.settle();
      } finally {
        await there.close();
      }
      return;
    }
    this.#events ??= this.openEventStream().catch((error: unknown) => {
      this.#events = undefined;
      throw error;
    });
    const events = await this.#events;
    await events.publish(topic, content);
    await events.settle();
  }

  // ----

  #mailbox(request: Json): Promise<unknown> {
    return this.call({ call: 'mailbox', ...request });
  }

  #waitMail(wanted: Json, timeoutMs: number): Promise<Mail | undefined> {
    return this.#patiently(timeoutMs, async (timeout) => {
      const reply = await this.#mailbox({ op: 'wait', ...wanted, timeout_ms: timeout });
      const found = mailboxReply(reply, 'message', 'timed_out');
      return found.is === 'message' ? mailOf(found) : undefined;
    });
  }

  /** What is waited for lies on disk, so the wait outlives a restart of the daemon. */
  async #patiently<T>(timeoutMs: number, wait: (timeoutMs: number) => Promise<T>): Promise<T> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const left = Math.max(end - Date.now(), 0);
      try {
        return await wait(left);
      } catch (error) {
        if (!isLost(error) || left <= RECONNECT_PAUSE_MS) throw error;
        await sleep(RECONNECT_PAUSE_MS);
      }
    }
  }
}

function fileOf(value: unknown): ReceivedFile {
  const file = asObject(camel(value));
  return { ...file, bytes: asNumber(file.bytes), receivedNs: asBigInt(file.receivedNs) } as ReceivedFile;
}

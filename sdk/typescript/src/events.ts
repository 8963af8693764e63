/** The event stream: subscriptions that renew themselves, and publishing. */

import { endpoint, formatAddress, PORTS, type Address } from './address.js';
import { Condition, isAborted, sleep, Turns } from './condition.js';
import { pack, type Content } from './content.js';
import { isLost, PilotError, systemError } from './errors.js';
import { Feed, QUEUE, refusedBy, type Overflow, type PilotEvent, type Position, type Subscribed } from './feed.js';
import type { Link } from './link.js';
import { PilotStream, type CallOptions } from './stream.js';
import { Command, service } from './wire/frames.js';
import {
  EventDecoder,
  eventFrame,
  isWild,
  matches,
  NOTHING,
  NoteToken,
  wireTopic,
} from './wire/events.js';
import { asText, type Json } from './wire/json.js';

/** How long a broker may take to confirm a subscription: ours waits two seconds for the brokers of other nodes. */
const CONFIRM_OWN_MS = 2_500;

/** The same for another node's broker, which waits for nobody. Those of 1.18.0 never confirm. */
const CONFIRM_OTHER_MS = 250;

/** First pause before a lost subscription is renewed; doubled while that fails. */
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 5_000;

/** The longest while there is no daemon on this machine: to look costs next to nothing. */
const PAUSE_MAX_HERE_MS = 400;

/** Brokers a resubscription may name. */
const RESUME_MAX = 512;

/** How a subscription is to be served. The default is the newest events, whatever happens to older ones. */
export interface SubscribeOptions {
  /** What happens when events come faster than they are read. */
  policy?: Overflow | undefined;
  /** Events the broker queues, from 1 to 65,536; other nodes' brokers to 4,096. */
  queue?: number | undefined;
  /** So many of the last matching events come first; at most 10,000. Brokers of 1.18.0 have none. */
  replay?: number | undefined;
}

/** Which broker. */
interface Broker {
  readonly address: Address;
  /** The local daemon's own, which understands patterns and listens to other brokers. */
  readonly isOwn: boolean;
}

/** Events that wait for the application, bounded. */
class Mailroom {
  readonly #events: PilotEvent[] = [];
  readonly #changed = new Condition();
  closed = false;

  /** Waits for room, which holds up the broker. */
  async put(event: PilotEvent): Promise<void> {
    while (this.#events.length >= QUEUE && !this.closed) await this.#changed.wait();
    this.#events.push(event);
    this.#changed.notify();
  }

  async next(signal?: AbortSignal): Promise<PilotEvent | undefined> {
    for (;;) {
      const event = this.#events.shift();
      if (event) {
        this.#changed.notify();
        return event;
      }
      if (this.closed) return undefined;
      await this.#changed.wait(signal);
    }
  }

  close(): void {
    this.closed = true;
    this.#changed.notify();
  }
}

/**
 * Events of this node and the nodes it trusts, or of one other node's broker. A subscription that was once in force is
 * renewed by itself when a broker or the local daemon goes away and comes back; what was published meanwhile follows,
 * marked as replayed, as far as the brokers' histories go back.
 */
export class EventStream implements AsyncIterable<PilotEvent> {
  readonly #link: Link;
  readonly #broker: Broker;
  readonly #mailroom = new Mailroom();
  readonly #ended = new AbortController();
  readonly #publishing = new Turns();
  #publisher: Publisher | undefined;

  /** @internal */
  constructor(link: Link, address: Address, isOwn: boolean) {
    this.#link = link;
    this.#broker = { address, isOwn };
  }

  /** Subscribes to a topic or pattern (`metrics.*`, `agent-*.results`, `a.>`); resolves when it is in force. */
  subscribe(pattern: string, options: SubscribeOptions = {}): Promise<Subscribed> {
    if (this.#ended.signal.aborted) return Promise.reject(eventsClosed());
    const subscription = new Subscription(this.#link, this.#broker, pattern, options, this.#mailroom);
    return subscription.start(this.#ended.signal);
  }

  /** The next event of any subscription. */
  async next(options: CallOptions = {}): Promise<PilotEvent> {
    const event = await this.#mailroom.next(options.signal);
    if (!event) throw eventsClosed();
    return event;
  }

  /** Events of all subscriptions, until this is closed. */
  async *[Symbol.asyncIterator](): AsyncIterator<PilotEvent> {
    for (;;) {
      const event = await this.#mailroom.next();
      if (!event) return;
      yield event;
    }
  }

  /** Publishes an event; resolves when the local daemon has it. See {@link settle}. */
  async publish(topic: string, content: Content): Promise<void> {
    const frame = eventFrame(topic, pack(content).data);
    await this.#publishing.run(async () => {
      if (this.#ended.signal.aborted) throw eventsClosed();
      let open = this.#publisher;
      this.#publisher = undefined;
      if (open?.hasEnded() === true) {
        open.close();
        open = undefined;
      }
      open ??= await Publisher.open(this.#link, this.#broker.address);
      try {
        await open.stream.write(frame);
      } catch (error) {
        open.close();
        throw error;
      }
      this.#publisher = open;
    });
  }

  /**
   * Resolves when the broker's node has acknowledged everything published so far. With a reference daemon, which cannot
   * tell, at once. Rejects when the broker has refused a publication.
   */
  settle(): Promise<void> {
    return this.#publishing.run(async () => {
      const publisher = this.#publisher;
      if (!publisher) return;
      await drained(publisher.stream);
      publisher.hasEnded();
    });
  }

  /** Ends all subscriptions. */
  async close(): Promise<void> {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(eventsClosed());
    this.#mailroom.close();
    await this.#publisher?.stream.close();
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function eventsClosed(): PilotError {
  return new PilotError('closed', 'this event stream was closed');
}

async function drained(stream: PilotStream, signal?: AbortSignal): Promise<void> {
  try {
    await stream.drain({ signal });
  } catch (error) {
    if (!(error instanceof PilotError) || error.code !== 'unsupported') throw error;
  }
}

async function dialBroker(link: Link, to: Address, signal?: AbortSignal): Promise<PilotStream> {
  const connection = await link.connection();
  const port = PORTS.eventStream;
  const state = await connection.dial(Command.Dial, service(to, port), signal);
  return new PilotStream(connection, state, endpoint(to, port));
}

/** The connection that events are published on. */
class Publisher {
  #refused: PilotError | undefined;
  #ended = false;

  private constructor(
    readonly stream: PilotStream,
    token: NoteToken,
  ) {
    this.#listen(token).then(
      () => {
        this.#ended = true;
      },
      () => {
        this.#ended = true;
      },
    );
  }

  static async open(link: Link, to: Address): Promise<Publisher> {
    const stream = await dialBroker(link, to);
    const token = new NoteToken();
    // The first event of a connection is its subscription, even if it wants nothing.
    await stream.write(token.subscription(NOTHING));
    return new Publisher(stream, token);
  }

  close(): void {
    this.stream.close().catch(() => undefined);
  }

  /** Whether the stream has been closed meanwhile; throws when the broker has refused a publication. */
  hasEnded(): boolean {
    const refused = this.#refused;
    this.#refused = undefined;
    if (refused) throw refused;
    return this.#ended;
  }

  async #listen(token: NoteToken): Promise<void> {
    const decoder = new EventDecoder();
    for await (const bytes of this.stream) {
      decoder.feed(bytes);
      for (let event = decoder.next(); event; event = decoder.next()) {
        const note = token.read(event);
        if (note?.note === 'refused') this.#refused = refusedBy(asText(note.reason) ?? 'refused');
      }
    }
  }
}

/** One subscription, on a connection of its own. */
class Subscription {
  /** How far the events of each broker have come; the empty name is the one that is subscribed at. */
  readonly #reached = new Map<string, Position>();

  constructor(
    private readonly link: Link,
    private readonly broker: Broker,
    private readonly pattern: string,
    private readonly options: SubscribeOptions,
    private readonly mailroom: Mailroom,
  ) {}

  /** Resolves when it is in force; goes on by itself from then on. */
  async start(ended: AbortSignal): Promise<Subscribed> {
    const feed = await this.#open(ended);
    try {
      const limit = this.#knowsPatterns ? CONFIRM_OWN_MS : CONFIRM_OTHER_MS;
      const subscribed = await feed.untilSubscribed(limit);
      this.#keep(feed, ended).catch(() => undefined);
      return subscribed;
    } catch (error) {
      feed.close();
      throw error;
    }
  }

  /** Only our own broker knows patterns by its rules for everybody. */
  get #knowsPatterns(): boolean {
    return this.broker.isOwn && !this.link.isReference;
  }

  async #keep(first: Feed, ended: AbortSignal): Promise<void> {
    let feed: Feed | undefined = first;
    let pause = PAUSE_MIN_MS;
    while (!ended.aborted) {
      if (feed) {
        pause = PAUSE_MIN_MS;
        await this.#pass(feed, ended);
        feed.close();
        if (isAborted(ended)) return;
      }
      await sleep(pause, ended);
      pause = Math.min(pause * 2, PAUSE_MAX_MS);
      feed = await this.#open(ended).catch((error: unknown) => {
        if (isLost(error)) pause = Math.min(pause, PAUSE_MAX_HERE_MS);
        return undefined;
      });
    }
  }

  /** Hands on what comes, until the connection ends. */
  async #pass(feed: Feed, ended: AbortSignal): Promise<void> {
    const own = formatAddress(this.broker.address);
    for (;;) {
      const step = await feed.next(ended).catch(() => undefined);
      if (!step || step.is === 'refused' || isAborted(ended)) return;
      if (step.is === 'at') this.#reach(step.broker ?? '', step.at);
      if (step.is !== 'event') continue;
      if (matches(this.pattern, step.event.topic)) await this.mailroom.put(step.event);
      if (step.at) this.#reach(step.event.broker === own ? '' : step.event.broker, step.at);
    }
  }

  #reach(broker: string, at: Position): void {
    if (this.#reached.size < RESUME_MAX || this.#reached.has(broker)) this.#reached.set(broker, at);
  }

  async #open(ended: AbortSignal): Promise<Feed> {
    const stream = await dialBroker(this.link, this.broker.address, ended);
    const token = new NoteToken();
    // Any other broker is asked for a topic it knows, and told the pattern besides; one of 1.18.0 sends everything,
    // and the rest happens here.
    const own = this.#knowsPatterns;
    const wishes: Json = {
      overflow: this.options.policy ?? 'drop-oldest',
      queue: this.options.queue,
      replay: this.#reached.size === 0 ? this.options.replay : undefined,
      resume: [...this.#reached].map(([broker, at]) => ({ broker: broker === '' ? undefined : broker, at })),
      pattern: !own && isWild(this.pattern) ? this.pattern : undefined,
    };
    try {
      await stream.write(token.subscription(own ? this.pattern : wireTopic(this.pattern), wishes));
      await drained(stream, ended);
    } catch (error) {
      stream.close().catch(() => undefined);
      throw systemError(error);
    }
    return new Feed(stream, formatAddress(this.broker.address), token);
  }
}

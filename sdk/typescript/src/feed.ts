/** What arrives on the connection of a subscription: events, and notes of the broker about them. */

import { disconnected, PilotError } from './errors.js';
import type { PilotStream } from './stream.js';
import { EventDecoder, RESERVED_PREFIX, type NoteToken, type RawEvent } from './wire/events.js';
import { asBigInt, asNumber, asObject, asText, type Json } from './wire/json.js';

/** Events held for an application that does not read. When they are full the broker is not read. */
export const QUEUE = 1024;

/** What becomes of an event for which a subscriber's queue has no room. */
export type Overflow = 'drop-oldest' | 'drop-newest' | 'block';

/** A subscription in force. */
export interface Subscribed {
  /** Brokers of trusted nodes that deliver too. */
  readonly brokers: number;
  /** Whether the broker has said so itself. One of 1.18.0 cannot. */
  readonly confirmed: boolean;
  /** What the broker granted. */
  readonly policy: Overflow;
  /** Events it queues; 0 when it does not say. */
  readonly queue: number;
}

/** An event that was received. */
export interface PilotEvent {
  /** What it is about. */
  readonly topic: string;
  /** What it says. */
  readonly data: Buffer;
  /** The node that published it, as the broker says; brokers of 1.18.0 do not. */
  readonly publisher: string | undefined;
  /** The name of that node, as the own daemon knows it. To be made printable before it is shown. */
  readonly hostname: string | undefined;
  /** The node whose broker passed it on. */
  readonly broker: string;
  /** When the broker took it from its publisher, or with 1.18.0, when it came here. */
  readonly time: Date;
  /** Its number at that broker since the broker's start, over all topics. */
  readonly seq: number | undefined;
  /** It comes out of the broker's history. */
  readonly replayed: boolean;
  /** Events of this subscription that are lost, just before this one. */
  readonly lost: number;
  /** More than `lost` may be lost. */
  readonly lostAtLeast: boolean;
  /** The subscription asked to block and was not read for too long; it drops the oldest events from here on. */
  readonly demoted: boolean;
  /** As UTF-8 text. */
  text(): string;
  /** As JSON. What a peer sends is not checked. */
  json(): unknown;
}

/** A place in the order in which one broker took its events. */
export interface Position {
  readonly epoch: bigint;
  readonly seq: bigint;
}

/** Something that came on the connection of a subscription. */
export type Step =
  | { readonly is: 'subscribed'; readonly subscribed: Subscribed }
  | { readonly is: 'event'; readonly event: PilotEvent; readonly at: Position | undefined }
  /** Nothing up to here is missing; without a broker, of the one of the connection. */
  | { readonly is: 'at'; readonly broker: string | undefined; readonly at: Position }
  | { readonly is: 'refused'; readonly reason: string };

/** Events and notes of one connection. */
export class Feed {
  readonly #decoder = new EventDecoder();
  #source: Json = {};
  #lost = 0;
  #lostAtLeast = false;
  #demoted = false;
  /** Came while the confirmation was awaited. */
  readonly #early: Step[] = [];

  constructor(
    private readonly stream: PilotStream,
    private readonly broker: string,
    private readonly token: NoteToken,
  ) {}

  /** Reads until the subscription is in force, or so much has come that it must be, or the time is over. */
  async untilSubscribed(limitMs: number): Promise<Subscribed> {
    const unconfirmed = { brokers: 0, confirmed: false, policy: 'drop-oldest', queue: 0 } as const;
    const late = new AbortController();
    const timer = setTimeout(() => {
      late.abort();
    }, limitMs);
    try {
      for (;;) {
        const step = await this.#step(late.signal);
        if (!step) throw disconnected();
        if (step.is === 'subscribed') return step.subscribed;
        if (step.is === 'refused') throw refusedBy(step.reason);
        this.#early.push(step);
        if (this.#early.length >= QUEUE) return { ...unconfirmed, confirmed: true };
      }
    } catch (error) {
      if (late.signal.aborted) return unconfirmed;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Undefined at the end of the connection. */
  async next(signal: AbortSignal): Promise<Step | undefined> {
    return this.#early.shift() ?? this.#step(signal);
  }

  close(): void {
    this.stream.close().catch(() => undefined);
  }

  async #step(signal: AbortSignal): Promise<Step | undefined> {
    for (;;) {
      for (let event = this.#decoder.next(); event; event = this.#decoder.next()) {
        const step = this.#read(event);
        if (step) return step;
      }
      const bytes = await this.stream.read({ signal });
      if (!bytes) return undefined;
      this.#decoder.feed(bytes);
    }
  }

  #read(event: RawEvent): Step | undefined {
    if (!event.topic.startsWith(RESERVED_PREFIX)) return this.#received(event);
    const note = this.token.read(event);
    if (!note) return undefined;
    switch (note.note) {
      case 'subscribed':
        return {
          is: 'subscribed',
          subscribed: {
            brokers: asNumber(note.brokers),
            confirmed: true,
            policy: (asText(note.overflow) ?? 'drop-oldest') as Overflow,
            queue: asNumber(note.queue),
          },
        };
      case 'at': {
        const at = positionOf(note.at);
        return at && { is: 'at', broker: asText(note.broker), at };
      }
      case 'replayed': {
        const at = note.answer === undefined ? positionOf(note.at) : undefined;
        return at && { is: 'at', broker: undefined, at };
      }
      case 'refused':
        return { is: 'refused', reason: asText(note.reason) ?? 'the broker does not allow it' };
      case 'from':
        this.#source = note;
        return undefined;
      case 'lost':
        this.#lost += asNumber(note.events);
        this.#lostAtLeast ||= note.at_least === true;
        return undefined;
      case 'demoted':
        this.#demoted = true;
        return undefined;
      default:
        return undefined;
    }
  }

  #received({ topic, payload }: RawEvent): Step {
    const source = this.#source;
    this.#source = {};
    const at = positionOf(source.at);
    const time = asBigInt(source.time);
    const event: PilotEvent = {
      topic,
      data: payload,
      publisher: asText(source.publisher),
      hostname: asText(source.hostname),
      broker: asText(source.via) ?? this.broker,
      time: time === 0n ? new Date() : new Date(Number(time / 1_000_000n)),
      seq: at && Number(at.seq),
      replayed: source.replayed === true,
      lost: this.#lost,
      lostAtLeast: this.#lostAtLeast,
      demoted: this.#demoted,
      text: () => payload.toString('utf8'),
      json: () => JSON.parse(payload.toString('utf8')) as unknown,
    };
    this.#lost = 0;
    this.#lostAtLeast = false;
    this.#demoted = false;
    return { is: 'event', event, at };
  }
}

function positionOf(value: unknown): Position | undefined {
  const { epoch, seq } = asObject(value);
  return epoch === undefined || seq === undefined ? undefined : { epoch: asBigInt(epoch), seq: asBigInt(seq) };
}

/** The broker does not allow something. */
export function refusedBy(reason: string): PilotError {
  return new PilotError('permission_denied', reason);
}

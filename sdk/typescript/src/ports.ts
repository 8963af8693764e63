/** Claimed ports: streams that peers open, and datagrams. */

import { checkPort, type Address, type Endpoint, type Target } from './address.js';
import { nextOf, type Connection, type Datagram, type Queue, type Arrival } from './connection.js';
import { PilotError } from './errors.js';
import { PilotStream, type CallOptions } from './stream.js';
import { Command, service, u16 } from './wire/frames.js';

/** A claimed port. Closing it gives the port back; streams that were accepted go on. */
export class Listener implements AsyncIterable<PilotStream> {
  readonly #connection: Connection;
  readonly #queue: Queue<Arrival>;
  /** The port. */
  readonly port: number;

  /** @internal */
  private constructor(connection: Connection, port: number, queue: Queue<Arrival>) {
    this.#connection = connection;
    this.port = port;
    this.#queue = queue;
  }

  /** @internal */
  static async claim(connection: Connection, port: number, signal?: AbortSignal): Promise<Listener> {
    const queue = connection.addListener(checkPort(port));
    try {
      await connection.claim(port, signal);
    } catch (error) {
      connection.removeListener(port);
      throw error;
    }
    return new Listener(connection, port, queue);
  }

  /** The next stream that a peer opens. */
  async accept(options: CallOptions = {}): Promise<PilotStream> {
    const arrival = await nextOf(this.#connection, this.#queue, options.signal);
    if (!arrival) throw new PilotError('closed', `port ${String(this.port)} is no longer listened on`);
    return new PilotStream(this.#connection, arrival.stream, arrival.from);
  }

  /** Streams as peers open them, until the listener is closed. */
  async *[Symbol.asyncIterator](): AsyncIterator<PilotStream> {
    for (;;) {
      const arrival = await nextOf(this.#connection, this.#queue);
      if (!arrival) return;
      yield new PilotStream(this.#connection, arrival.stream, arrival.from);
    }
  }

  /** Gives the port back. Streams that were not accepted are refused. */
  async close(): Promise<void> {
    if (this.#queue.closed) return;
    this.#connection.removeListener(this.port);
    await this.#connection.release(this.port);
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The datagrams of one port: single packets, unordered, and lost when something on the way is full. */
export class Datagrams implements AsyncIterable<Datagram> {
  readonly #connection: Connection;
  readonly #queue: Queue<Datagram>;
  readonly #addressOf: (target: Target) => Promise<Address>;
  /** The port. */
  readonly port: number;

  /** @internal */
  private constructor(
    connection: Connection,
    port: number,
    queue: Queue<Datagram>,
    addressOf: (target: Target) => Promise<Address>,
  ) {
    this.#connection = connection;
    this.#queue = queue;
    this.#addressOf = addressOf;
    this.port = port;
  }

  /** @internal */
  static async claim(
    connection: Connection,
    port: number,
    addressOf: (target: Target) => Promise<Address>,
  ): Promise<Datagrams> {
    const queue = connection.addDatagrams(checkPort(port));
    try {
      await connection.claim(port);
    } catch (error) {
      connection.removeDatagrams(port);
      throw error;
    }
    return new Datagrams(connection, port, queue, addressOf);
  }

  /** Sends from this port. A reference daemon sends from a port of its own choice. */
  async sendTo(to: Target | Endpoint, port: number, data: string | Uint8Array): Promise<void> {
    const target = typeof to === 'object' ? to.address : to;
    await sendDatagram(this.#connection, await this.#addressOf(target), port, data, this.port);
  }

  /** The next datagram: who sent it, and what. */
  async receive(options: CallOptions = {}): Promise<Datagram> {
    const datagram = await nextOf(this.#connection, this.#queue, options.signal);
    if (!datagram) throw new PilotError('closed', `datagrams of port ${String(this.port)} are not wanted any more`);
    return datagram;
  }

  /** Datagrams as they come, until this is closed. */
  async *[Symbol.asyncIterator](): AsyncIterator<Datagram> {
    for (;;) {
      const datagram = await nextOf(this.#connection, this.#queue);
      if (!datagram) return;
      yield datagram;
    }
  }

  /** Takes no more, and gives the port back. */
  async close(): Promise<void> {
    if (this.#queue.closed) return;
    this.#connection.removeDatagrams(this.port);
    await this.#connection.release(this.port);
  }

  /** As {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Sends one datagram; resolves when it has been handed to the network. */
export async function sendDatagram(
  connection: Connection,
  to: Address,
  port: number,
  data: string | Uint8Array,
  from?: number,
): Promise<void> {
  const bytes = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
  const header = service(to, checkPort(port));
  if (from !== undefined && !connection.isReference) {
    const payload = Buffer.concat([u16(from), header, bytes]);
    await connection.order(Command.SendFrom, payload, Command.SendToOk);
    return;
  }
  await connection.order(Command.SendToConfirm, Buffer.concat([header, bytes]), Command.SendToOk);
}

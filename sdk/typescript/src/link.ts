/** The way to the daemon of one socket: its connection, and a new one when the daemon was restarted. */

import { Connection } from './connection.js';
import { PilotError } from './errors.js';

/** Pause before something is taken up again with a daemon that was restarted. */
export const RECONNECT_PAUSE_MS = 100;

export class Link {
  #current: Connection | undefined;
  #connecting: Promise<Connection> | undefined;
  #closed = false;

  private constructor(readonly path: string) {}

  static async open(path: string, signal?: AbortSignal): Promise<Link> {
    const link = new Link(path);
    link.#current = await Connection.open(path, signal);
    return link;
  }

  /** Another connection to the same daemon, with ports and requests of its own. */
  another(signal?: AbortSignal): Promise<Link> {
    return Link.open(this.path, signal);
  }

  /** The connection, or a new one in the place of one that broke. What was opened on the old one ended with it. */
  async connection(): Promise<Connection> {
    if (this.#closed) throw new PilotError('closed', 'this connection to the daemon was closed by the program');
    if (this.#current && !this.#current.over) return this.#current;
    this.#connecting ??= this.#connect();
    return this.#connecting;
  }

  /** The connection as it is, for what belongs to it. */
  get current(): Connection | undefined {
    return this.#current;
  }

  get isReference(): boolean {
    return this.#current?.isReference === true;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const connecting = this.#connecting;
    if (connecting) await connecting.then((connection) => connection.close(), () => undefined);
    await this.#current?.close();
  }

  async #connect(): Promise<Connection> {
    try {
      const connection = await Connection.open(this.path);
      this.#current = connection;
      return connection;
    } finally {
      this.#connecting = undefined;
    }
  }
}

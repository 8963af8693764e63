/** The first words with a daemon: whether there is one, and how it talks. */

import { createConnection, type Socket } from 'node:net';

import { abortError, lost, PilotError } from './errors.js';
import { Command, frame, Reader, u8, type FrameDecoder } from './wire/frames.js';
import { asObject, parseJson } from './wire/json.js';

/** Version of the extended dialect that is asked for. */
const DIALECT = 1;

/** How long whoever answers on the socket may take to say its first word. A daemon takes well under a millisecond. */
const HELLO_TIMEOUT_MS = 10_000;

/** How the daemon talks. */
export type Dialect =
  /** As released 1.18 daemons do: one request at a time, no credit, failures as text. */
  | { readonly kind: 'reference' }
  /** With request numbers, credit, half-close and typed failures. */
  | { readonly kind: 'extended'; readonly initialCredit: number };

/** Connects to whoever listens at `path`. */
export function connectTo(path: string, signal?: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(abortError(signal));
      return;
    }
    const socket = createConnection({ path });
    const abort = (): void => {
      socket.destroy();
      if (signal) reject(abortError(signal));
    };
    signal?.addEventListener('abort', abort, { once: true });
    const settle = (): void => {
      signal?.removeEventListener('abort', abort);
      socket.removeAllListeners();
    };
    socket.once('connect', () => {
      settle();
      resolve(socket);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      settle();
      reject(connectError(path, error));
    });
  });
}

function connectError(path: string, error: NodeJS.ErrnoException): PilotError {
  const cause = error;
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') {
    const hint = 'start it with `pilotctl daemon start`';
    return lost(new PilotError('not_running', `no daemon answers at ${path}`, { hint, cause }));
  }
  if (error.code === 'EACCES' || error.code === 'EPERM') {
    const hint = 'run as that user, or start a daemon of your own with `--socket`';
    return lost(new PilotError('permission_denied', `the daemon at ${path} belongs to another user`, { hint, cause }));
  }
  const hint = 'is PILOT_SOCKET the socket of a Pilot daemon?';
  return lost(new PilotError('internal', `cannot connect to ${path}: ${error.message}`, { hint, cause }));
}

function strange(reason: string): PilotError {
  const hint = 'is PILOT_SOCKET the socket of a Pilot daemon?';
  return lost(new PilotError('internal', `no Pilot daemon on the connection: ${reason}`, { hint }));
}

/** Asks for the extended dialect. A reference daemon answers with an error, and then we speak as it does. */
export function hello(socket: Socket, decoder: FrameDecoder, signal?: AbortSignal): Promise<Dialect> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      socket.removeAllListeners();
      socket.pause();
    };
    const fail = (error: PilotError): void => {
      settle();
      reject(error);
    };
    const abort = (): void => {
      if (signal) fail(abortError(signal));
    };
    const timer = setTimeout(() => {
      fail(strange(`no answer within ${String(HELLO_TIMEOUT_MS / 1000)} s`));
    }, HELLO_TIMEOUT_MS);
    signal?.addEventListener('abort', abort, { once: true });
    socket.on('error', (error) => {
      fail(strange(error.message));
    });
    socket.on('close', () => {
      fail(strange('the connection was closed at once'));
    });
    socket.on('data', (bytes: Buffer) => {
      decoder.feed(bytes);
      try {
        for (let next = decoder.next(); next; next = decoder.next()) {
          const dialect = greeting(next);
          if (dialect) {
            settle();
            resolve(dialect);
            return;
          }
        }
      } catch (error) {
        fail(strange(error instanceof Error ? error.message : String(error)));
      }
    });
    socket.write(frame(Command.Hello, u8(DIALECT)));
  });
}

/** What the first word of a daemon means; undefined when it is none. */
function greeting(bytes: Buffer): Dialect | undefined {
  const reader = new Reader(bytes);
  const command = reader.u8();
  if (command === Command.HelloOk) {
    const version = reader.u8();
    const features = asObject(parseJson(reader.rest().toString('utf8')));
    const credit = features.initial_credit;
    if (version !== DIALECT) return { kind: 'reference' };
    if (typeof credit !== 'number' || !(credit > 0)) throw strange('a greeting without credit');
    return { kind: 'extended', initialCredit: credit };
  }
  if (command === Command.Error || command === Command.Failure) return { kind: 'reference' };
  // Datagrams go to every client, even to one that has asked for nothing yet.
  if (command === Command.RecvFrom) return undefined;
  throw strange('an answer that nobody asked for');
}

/** What can go wrong: a class for programs, a sentence for people, and what to do next. */

/** The class of a failure. Decide by this, never by the text. */
export type PilotErrorCode =
  /** The request itself is wrong; repeating it cannot help. */
  | 'invalid_argument'
  /** No such node, name, stream, message or network. */
  | 'not_found'
  /** The peer has not agreed to talk to us, or we not to it. */
  | 'not_trusted'
  /** Not allowed for this caller. */
  | 'permission_denied'
  /** Nothing happened within the time allowed. */
  | 'timeout'
  /** The peer answered: nobody listens on that port, or it does not want this. */
  | 'refused'
  /** The peer cannot be reached at present. */
  | 'unreachable'
  /** The registry cannot be reached at present. */
  | 'registry_unreachable'
  /** This node has no address from the registry yet. */
  | 'not_registered'
  /** The name or port is taken. */
  | 'already_exists'
  /** A limit of the daemon or the peer is reached; later may work. */
  | 'busy'
  /** The stream ended. */
  | 'closed'
  /** The caller withdrew the request. */
  | 'cancelled'
  /** A program of the peer tried, and it failed; the text is its own. */
  | 'failed'
  /** The daemon or peer does not know how to do this. */
  | 'unsupported'
  /** No daemon answers on the local socket. */
  | 'not_running'
  /** A fault of the daemon, or of the system. */
  | 'internal'
  /** A class that this version does not know. */
  | 'other';

const CODES: ReadonlySet<string> = new Set<PilotErrorCode>([
  'invalid_argument',
  'not_found',
  'not_trusted',
  'permission_denied',
  'timeout',
  'refused',
  'unreachable',
  'registry_unreachable',
  'not_registered',
  'already_exists',
  'busy',
  'closed',
  'cancelled',
  'failed',
  'unsupported',
  'not_running',
  'internal',
  'other',
]);

/** Those after which the same call may succeed without anybody changing anything. */
const RETRYABLE: ReadonlySet<PilotErrorCode> = new Set<PilotErrorCode>([
  'timeout',
  'unreachable',
  'registry_unreachable',
  'not_registered',
  'busy',
  'not_running',
]);

/** What else is known of a failure. */
export interface PilotErrorOptions {
  /** What the user can do about it. */
  hint?: string | undefined;
  /** What is known about a peer that cannot be reached, as the daemon says it. */
  unreachable?: unknown;
  /** The error behind this one. */
  cause?: unknown;
}

/** Every error of this package. */
export class PilotError extends Error {
  override readonly name = 'PilotError';
  /** The class of the failure. */
  readonly code: PilotErrorCode;
  /** What the user can do about it. */
  readonly hint: string | undefined;
  /** What is known about a peer that cannot be reached: when it was last seen, the addresses tried, the relay. */
  readonly unreachable: unknown;

  constructor(code: PilotErrorCode, message: string, options: PilotErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.unreachable = options.unreachable;
  }

  /** Whether the same call may succeed later, without anybody changing anything. */
  get retryable(): boolean {
    return RETRYABLE.has(this.code);
  }
}

/** Errors of the connection, not of what was asked: another daemon on the same socket may do it. */
const LOST = new WeakSet<PilotError>();

/** Marks an error as one of the connection. */
export function lost(error: PilotError): PilotError {
  LOST.add(error);
  return error;
}

/** Whether the connection failed, not what was asked on it. */
export function isLost(error: unknown): boolean {
  return error instanceof PilotError && LOST.has(error);
}

/** The daemon went away while something was under way. */
export function disconnected(): PilotError {
  const hint = 'see `pilotctl daemon status`';
  return lost(new PilotError('not_running', 'the daemon ended the connection', { hint }));
}

export function protocolError(reason: string): PilotError {
  return new PilotError('internal', `the daemon broke the protocol: ${reason}`);
}

export function invalid(message: string, hint?: string): PilotError {
  return new PilotError('invalid_argument', message, { hint });
}

export function unsupported(what: string): PilotError {
  return new PilotError('unsupported', `a reference daemon runs here, and it does not know \`${what}\``, {
    hint: 'stop it and start `pilotctl daemon start` in its place',
  });
}

export function streamClosed(): PilotError {
  return new PilotError('closed', 'the stream is closed');
}

/** Something that the system, not Pilot, failed to do. */
export function systemError(error: unknown): PilotError {
  if (error instanceof PilotError) return error;
  const code = (error as { code?: unknown } | undefined)?.code;
  const message = error instanceof Error ? error.message : String(error);
  const kind = code === 'ENOENT' ? 'not_found' : code === 'EACCES' ? 'permission_denied' : 'internal';
  return new PilotError(kind, message, { cause: error });
}

/** Why a signal was aborted, as an error: running out of time is told apart from being withdrawn. */
export function abortError(signal: AbortSignal): PilotError {
  const reason: unknown = signal.reason;
  if (reason instanceof PilotError) return reason;
  const timedOut = reason instanceof Error && reason.name === 'TimeoutError';
  return timedOut
    ? new PilotError('timeout', 'nothing happened within the time allowed', { cause: reason })
    : new PilotError('cancelled', 'the caller withdrew the request', { cause: reason });
}

/** A failure as the daemon writes it in JSON. What is no failure still is an error. */
export function failureFrom(value: unknown): PilotError {
  const failure = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const code = typeof failure.code === 'string' && CODES.has(failure.code) ? failure.code : 'other';
  const message = typeof failure.message === 'string' ? failure.message : 'the request failed';
  const hint = typeof failure.hint === 'string' ? failure.hint : undefined;
  return new PilotError(code as PilotErrorCode, message, { hint, unreachable: failure.unreachable });
}

/** Parts of the texts of 1.18 and the class they stand for; the first that occurs decides. */
const REFERENCE_TEXTS: readonly (readonly [string, PilotErrorCode])[] = [
  ['unknown command', 'unsupported'],
  ['connection refused', 'refused'],
  ['timeout', 'timeout'],
  ['untrusted', 'not_trusted'],
  ['was not trusted', 'not_found'],
  ['not trusted', 'not_trusted'],
  ['trust_required', 'not_trusted'],
  ['not found', 'not_found'],
  ['already', 'already_exists'],
  ['not owned by this client', 'permission_denied'],
  ['dial tcp', 'registry_unreachable'],
  ['too large', 'invalid_argument'],
  ['missing', 'invalid_argument'],
  ['invalid', 'invalid_argument'],
  ['maximum', 'invalid_argument'],
  ['cannot target', 'invalid_argument'],
];

/** A failure of a reference daemon, which has texts only: the class is read from the text here and nowhere else. */
export function referenceFailure(text: string): PilotError {
  const found = REFERENCE_TEXTS.find(([part]) => text.includes(part));
  return new PilotError(found?.[1] ?? 'other', text);
}

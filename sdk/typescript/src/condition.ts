/** Waiting until something has changed, with a way out. */

import { abortError } from './errors.js';

/** Those who wait look again when it is notified. */
export class Condition {
  readonly #waiting = new Set<() => void>();

  /** Resolves with the next notification; rejects when the signal is aborted before. */
  wait(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortError(signal));
        return;
      }
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      const abort = (): void => {
        this.#waiting.delete(wake);
        if (signal) reject(abortError(signal));
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Wakes everybody. */
  notify(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

/** One after the other, in the order of asking. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when everything before it has ended, however it ended. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

/** Whether a signal is aborted by now: it may have become so since one looked. */
export function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** Waits so long; rejects when the signal is aborted before. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(abortError(signal));
      return;
    }
    const abort = (): void => {
      clearTimeout(timer);
      if (signal) reject(abortError(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** A signal that is aborted when either of both is; `done` lets go of them. */
export function anySignal(...signals: readonly (AbortSignal | undefined)[]): {
  signal: AbortSignal;
  done: () => void;
} {
  const both = new AbortController();
  const undo: (() => void)[] = [];
  for (const signal of signals) {
    if (!signal) continue;
    const abort = (): void => {
      both.abort(signal.reason);
    };
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    undo.push(() => {
      signal.removeEventListener('abort', abort);
    });
  }
  return {
    signal: both.signal,
    done: () => {
      for (const step of undo) step();
    },
  };
}

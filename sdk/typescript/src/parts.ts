/**
 * Pieces of an answer, put in order: each is handed out once, and together they are the answer. Pieces may be lost on
 * their way; the answer carries all of them again. After a gap nothing more is handed out until the answer is there.
 */

import { createHash, type Hash } from 'node:crypto';

/** What is handed out. */
export type Piece =
  | { readonly type: 'part'; readonly data: Buffer }
  | { readonly type: 'progress'; readonly data: Buffer }
  | { readonly type: 'restarted' };

/** One request's pieces. */
export class Parts {
  #run = 0n;
  #last = 0;
  #gap = false;
  /** How many bytes were handed out in this run, and their hash. */
  #given = 0;
  #hash: Hash = createHash('sha256');

  /** The run and number of the last piece that came. */
  get seen(): { readonly run: bigint; readonly number: number } {
    return { run: this.#run, number: this.#last };
  }

  /** A piece came. */
  onPiece(run: bigint, number: number, type: 'part' | 'progress', data: Buffer): Piece[] {
    const pieces: Piece[] = [];
    if (run > this.#run) {
      if (this.#given > 0) pieces.push({ type: 'restarted' });
      this.#run = run;
      this.#last = 0;
      this.#gap = false;
      this.#given = 0;
      this.#hash = createHash('sha256');
    }
    if (run < this.#run || number <= this.#last) return pieces;
    if (number !== this.#last + 1) this.#gap = true;
    this.#last = number;
    if (type === 'progress') {
      pieces.push({ type, data });
    } else if (!this.#gap && data.length > 0) {
      this.#given += data.length;
      this.#hash.update(data);
      pieces.push({ type, data });
    }
    return pieces;
  }

  /** The answer came: what of it has not been handed out. */
  onAnswer(body: Buffer): Piece[] {
    const pieces: Piece[] = [];
    const begin = createHash('sha256').update(body.subarray(0, this.#given)).digest();
    if (body.length < this.#given || !begin.equals(this.#hash.copy().digest())) {
      pieces.push({ type: 'restarted' });
      this.#given = 0;
    }
    const rest = body.subarray(this.#given);
    if (rest.length > 0) pieces.push({ type: 'part', data: rest });
    return pieces;
  }
}

/** Bytes that came in pieces, taken in other pieces, without copying more than once. */
export class ByteQueue {
  #chunks: Buffer[] = [];
  #length = 0;

  /** How many there are. */
  get length(): number {
    return this.#length;
  }

  push(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.#length += bytes.length;
  }

  /** At least the first `count` bytes in one piece; there must be so many. */
  peek(count: number): Buffer {
    const first = this.#chunks[0];
    if (first && first.length >= count) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }

  /** Removes the first `count` bytes; there must be so many. */
  take(count: number): Buffer {
    const first = this.peek(count);
    if (first.length === count) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(count);
    this.#length -= count;
    return first.subarray(0, count);
  }
}

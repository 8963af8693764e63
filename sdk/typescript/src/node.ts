/** What a program asks about its node, other nodes and trust. */

import { backbone, checkPort, endpoint, formatAddress, literalAddress, parseAddress, PORTS } from './address.js';
import type { Address, Target } from './address.js';
import { invalid, protocolError } from './errors.js';
import type { Link } from './link.js';
import { PilotStream, type CallOptions } from './stream.js';
import type {
  ConnectionInfo,
  DaemonStatus,
  HandshakeStatus,
  Health,
  NodeInfo,
  PeerInfo,
  PendingTrust,
  Pong,
  ResolvedNode,
  TrustedNode,
  TrustEntry,
  TrustWait,
} from './types.js';
import { Command, service, text, u16, u32, u8 } from './wire/frames.js';
import { asArray, asNumber, asObject, asText, camel, toJson } from './wire/json.js';

/** The longest wait for trust that a reference daemon allows in one request. */
const REFERENCE_WAIT_MS = 30_000;

/** How long a ping may take, unless told otherwise. */
const PING_MS = 5_000;

/** How long something is waited for, unless told otherwise. */
export const WAIT_MS = 30_000;

/** The part of {@link Pilot} that is about nodes. */
export abstract class NodeCalls {
  #info: NodeInfo = asInfo({});

  /** @internal */
  protected constructor(
    /** @internal */
    protected readonly link: Link,
  ) {}

  // ---- the node

  /** The address of this node, as of the last {@link info}; `0:0000.0000.0000` before it is registered. */
  get address(): string {
    return this.#info.address;
  }

  /** The number of this node, as of the last {@link info}. */
  get nodeId(): number {
    return this.#info.nodeId;
  }

  /** The name of this node, as of the last {@link info}; empty without one. */
  get hostname(): string {
    return this.#info.hostname;
  }

  /** The daemon's socket. */
  get socket(): string {
    return this.link.path;
  }

  /** True when the daemon speaks the reference dialect only: no half-close, no inbox, one request at a time. */
  get isReference(): boolean {
    return this.link.isReference;
  }

  /** The node, its peers and streams. */
  async info(): Promise<NodeInfo> {
    this.#info = asInfo(await this.json(Command.Info, Buffer.alloc(0), Command.InfoOk));
    return this.#info;
  }

  /** Counters only. */
  async health(): Promise<Health> {
    return camel(await this.json(Command.Health, Buffer.alloc(0), Command.HealthOk)) as Health;
  }

  /** How the daemon runs: registry, paths, services, alarms. */
  async status(): Promise<DaemonStatus> {
    return camel(await this.call({ call: 'status' })) as DaemonStatus;
  }

  /** Peers with a tunnel. */
  async peers(): Promise<PeerInfo[]> {
    if (this.isReference) return [...(await this.info()).peerList];
    return asArray(camel(await this.call({ call: 'peers' }))) as PeerInfo[];
  }

  /** Open streams of all programs. */
  async connections(): Promise<ConnectionInfo[]> {
    if (this.isReference) return [...(await this.info()).connList];
    return asArray(camel(await this.call({ call: 'connections' }))) as ConnectionInfo[];
  }

  /** Ends a stream of any program. */
  async disconnect(stream: number): Promise<void> {
    const connection = await this.link.connection();
    if (connection.isReference) await connection.order(Command.Close, u32(stream), Command.CloseOk);
    else await connection.call({ call: 'disconnect', stream });
  }

  /** Names the node in the registry; an empty name takes the name away. */
  async setHostname(name: string): Promise<void> {
    await this.json(Command.SetHostname, text(name), Command.SetHostnameOk);
    await this.info();
  }

  /** Public nodes answer everyone, private ones only those they trust. */
  async setVisibility(isPublic: boolean): Promise<void> {
    await this.json(Command.SetVisibility, u8(isPublic ? 1 : 0), Command.SetVisibilityOk);
  }

  /** Tags the node in the registry, with three tags at most; none takes all away. */
  async setTags(tags: readonly string[]): Promise<void> {
    await this.json(Command.SetTags, text(toJson(tags)), Command.SetTagsOk);
  }

  /** Where the daemon posts its events; an empty URL turns it off. */
  async setWebhook(url: string): Promise<void> {
    await this.json(Command.SetWebhook, text(url), Command.SetWebhookOk);
  }

  /** One of the daemon's own calls, as JSON in both directions (docs/local-socket.md). */
  async call(call: Readonly<Record<string, unknown>>, options: CallOptions = {}): Promise<unknown> {
    return (await this.link.connection()).call(call, options.signal);
  }

  // ---- other nodes

  /** Finds a node by address, number or hostname. Only a hostname needs the registry. */
  async resolve(target: Target): Promise<ResolvedNode> {
    const address = literalAddress(target);
    if (!address) return this.find(String(target));
    return { nodeId: address.node, address: formatAddress(address), hostname: '', public: false };
  }

  /** Asks the registry for a node, as this node may see it. */
  async find(target: Target): Promise<ResolvedNode> {
    const name = String(target);
    const answer = this.isReference
      ? await this.json(Command.ResolveHostname, text(name), Command.ResolveHostnameOk)
      : await this.call({ call: 'resolve', target: name });
    const found = asObject(camel(answer));
    const address = asText(found.address) ?? '';
    if (!parseAddress(address)) throw protocolError(`no address in the answer for ${name}`);
    return {
      nodeId: asNumber(found.nodeId),
      address,
      hostname: asText(found.hostname) ?? '',
      public: found.public === true,
    };
  }

  /** What the registry knows of a node: the registry's own JSON. */
  async lookup(target: Target): Promise<Readonly<Record<string, unknown>>> {
    const { node } = await this.addressOf(target);
    return asObject(camel(await this.call({ call: 'lookup', node })));
  }

  /** One round trip to a peer's node. With a reference daemon, to its echo service. */
  async ping(target: Target, options: CallOptions & { timeoutMs?: number; size?: number } = {}): Promise<Pong> {
    const to = await this.addressOf(target);
    const timeout = options.timeoutMs ?? PING_MS;
    if (this.isReference) return this.#echo(to, timeout);
    const call = { call: 'ping', node: to.node, size: options.size ?? 0, timeout_ms: timeout };
    return camel(await this.call(call, options)) as Pong;
  }

  /** Why a peer is reached as it is, or is not. With a time, the peer is tried and the registry asked. */
  async why(target: Target, timeoutMs = 0): Promise<Readonly<Record<string, unknown>>> {
    const { node } = await this.addressOf(target);
    return asObject(camel(await this.call({ call: 'why', node, timeout_ms: timeoutMs })));
  }

  // ---- trust

  /** Asks a node for trust. The owner of that node sees the justification. */
  async handshake(target: Target, justification = ''): Promise<HandshakeStatus> {
    return this.#handshake(1, target, text(justification));
  }

  /** Agrees to a node that asked. */
  async approve(target: Target): Promise<HandshakeStatus> {
    return this.#handshake(2, target);
  }

  /** Declines a node that asked. Its owner sees the reason. */
  async reject(target: Target, reason = ''): Promise<HandshakeStatus> {
    return this.#handshake(3, target, text(reason));
  }

  /** Takes trust back, on both sides. */
  async revoke(target: Target): Promise<HandshakeStatus> {
    return this.#handshake(6, target);
  }

  /** Who asked and waits for an answer. */
  async pending(): Promise<PendingTrust[]> {
    const list = asObject(camel(await this.json(Command.Handshake, u8(4), Command.HandshakeOk)));
    return asArray(list.pending) as PendingTrust[];
  }

  /** Who is trusted. */
  async trusted(): Promise<TrustedNode[]> {
    const list = asObject(camel(await this.json(Command.Handshake, u8(5), Command.HandshakeOk)));
    return asArray(list.trusted) as TrustedNode[];
  }

  /** Every relation to another node. */
  async trustList(): Promise<TrustEntry[]> {
    return asArray(asObject(camel(await this.call({ call: 'trust_list' }))).nodes) as TrustEntry[];
  }

  /** Waits until a node has answered a request for trust, or the time is over; tells how things stand then. */
  async waitTrust(target: Target, options: CallOptions & { timeoutMs?: number } = {}): Promise<TrustWait> {
    const { node } = await this.addressOf(target);
    const timeout = options.timeoutMs ?? WAIT_MS;
    if (!this.isReference) {
      return camel(await this.call({ call: 'wait_trust', node, timeout_ms: timeout }, options)) as TrustWait;
    }
    const end = Date.now() + timeout;
    for (;;) {
      const left = Math.min(Math.max(end - Date.now(), 0), REFERENCE_WAIT_MS);
      const payload = Buffer.concat([u8(7), u32(node), u32(left)]);
      const waited = asObject(await this.json(Command.Handshake, payload, Command.HandshakeOk, options.signal));
      const trusted = waited.trusted === true;
      if (trusted || left < REFERENCE_WAIT_MS) return { nodeId: node, state: trusted ? 'trusted' : 'requested' };
    }
  }

  /** Whether requests for trust are agreed to without asking. Asks only, when nothing is given. */
  async autoApprove(enabled?: boolean): Promise<boolean> {
    return asObject(await this.call({ call: 'auto_approve', enabled })).enabled === true;
  }

  // ---- networks: the answers are the registry's own JSON

  /** All networks. */
  async networkList(): Promise<Readonly<Record<string, unknown>>> {
    return this.#network(u8(1));
  }

  /** Becomes a member; the token is empty where none is asked for. */
  async networkJoin(network: number, token = ''): Promise<Readonly<Record<string, unknown>>> {
    return this.#network(u8(2), u16(network), text(token));
  }

  /** Ends membership. */
  async networkLeave(network: number): Promise<Readonly<Record<string, unknown>>> {
    return this.#network(u8(3), u16(network));
  }

  /** Who is in a network. */
  async networkMembers(network: number): Promise<Readonly<Record<string, unknown>>> {
    return this.#network(u8(4), u16(network));
  }

  /** Sends a datagram to all members of a network. */
  async broadcast(network: number, port: number, data: string | Uint8Array, token = ''): Promise<void> {
    const proof = text(token);
    const bytes = typeof data === 'string' ? text(data) : data;
    const payload = Buffer.concat([u16(network), u16(checkPort(port)), u16(proof.length), proof, bytes]);
    const connection = await this.link.connection();
    await connection.order(Command.Broadcast, payload, Command.BroadcastOk);
  }

  // ----

  /** @internal */
  protected async json(command: number, payload: Buffer, expects: number, signal?: AbortSignal): Promise<unknown> {
    return (await this.link.connection()).json(command, payload, expects, signal);
  }

  /** @internal */
  protected async addressOf(target: Target): Promise<Address> {
    if (target === '') throw invalid('a target is a hostname, an address or a number');
    const literal = literalAddress(target);
    if (literal) return literal;
    const found = await this.find(target);
    return parseAddress(found.address) ?? backbone(found.nodeId);
  }

  /** @internal */
  protected async nodeOf(target: Target | undefined): Promise<number | undefined> {
    return target === undefined ? undefined : (await this.addressOf(target)).node;
  }

  async #handshake(subcommand: number, target: Target, rest: Buffer = Buffer.alloc(0)): Promise<HandshakeStatus> {
    const { node } = await this.addressOf(target);
    const payload = Buffer.concat([u8(subcommand), u32(node), rest]);
    return camel(await this.json(Command.Handshake, payload, Command.HandshakeOk)) as HandshakeStatus;
  }

  async #network(...parts: Buffer[]): Promise<Readonly<Record<string, unknown>>> {
    return asObject(camel(await this.json(Command.Network, Buffer.concat(parts), Command.NetworkOk)));
  }

  async #echo(to: Address, timeoutMs: number): Promise<Pong> {
    const signal = AbortSignal.timeout(timeoutMs);
    const connection = await this.link.connection();
    const state = await connection.dial(Command.Dial, service(to, PORTS.echo), signal);
    const stream = new PilotStream(connection, state, endpoint(to, PORTS.echo));
    try {
      const begin = process.hrtime.bigint();
      await stream.write('ping-1', { signal });
      await stream.readExactly(6, { signal });
      const rttUs = Number((process.hrtime.bigint() - begin) / 1000n);
      return { nodeId: to.node, rttUs, relay: undefined, endpoint: '' };
    } finally {
      stream.close().catch(() => undefined);
    }
  }
}

/** The lists and texts of the information are there, also when a daemon leaves them out. */
function asInfo(value: unknown): NodeInfo {
  const info = asObject(camel(value));
  return {
    ...info,
    nodeId: asNumber(info.nodeId),
    address: asText(info.address) ?? formatAddress(backbone(0)),
    hostname: asText(info.hostname) ?? '',
    version: asText(info.version) ?? '',
    features: asArray(info.features),
    networks: asArray(info.networks),
    peerList: asArray(info.peerList),
    connList: asArray(info.connList),
  } as unknown as NodeInfo;
}

/** What the daemon tells: its JSON with names as JavaScript writes them. Later daemons may tell more. */

/** The node, its peers and streams. */
export interface NodeInfo {
  readonly nodeId: number;
  /** `0:0000.0000.0000` before registration. */
  readonly address: string;
  /** Empty without one. */
  readonly hostname: string;
  readonly version: string;
  readonly publicKey?: string;
  /** Where this node is reached, `ip:port`. */
  readonly endpoint: string;
  readonly transport: string;
  readonly features: readonly string[];
  readonly uptimeSecs: number;
  readonly connections: number;
  readonly ports: number;
  readonly peers: number;
  readonly encryptedPeers: number;
  readonly authenticatedPeers: number;
  readonly relayPeerCount: number;
  readonly encrypt: boolean;
  readonly networks: readonly { readonly networkId: number; readonly address: string; readonly name?: string }[];
  readonly peerList: readonly PeerInfo[];
  readonly connList: readonly ConnectionInfo[];
  readonly bytesSent: number;
  readonly bytesRecv: number;
  readonly pktsSent: number;
  readonly pktsRecv: number;
  readonly handshakePendingCount: number;
  readonly [more: string]: unknown;
}

/** A peer with a tunnel. */
export interface PeerInfo {
  readonly nodeId: number;
  readonly address?: string;
  readonly hostname?: string;
  readonly endpoint: string;
  readonly encrypted: boolean;
  readonly authenticated: boolean;
  /** Is it reached through the relay? */
  readonly relay: boolean;
  /** Round-trip time in microseconds. */
  readonly rttUs?: number;
  readonly idleMs?: number;
  readonly bytesSent?: number;
  readonly bytesRecv?: number;
  readonly [more: string]: unknown;
}

/** A stream of any program. */
export interface ConnectionInfo {
  readonly id: number;
  readonly localPort: number;
  readonly remoteAddr: string;
  readonly remotePort: number;
  readonly state: string;
  readonly bytesSent: number;
  readonly bytesRecv: number;
  readonly [more: string]: unknown;
}

/** Counters only. */
export interface Health {
  readonly status: string;
  readonly uptimeSeconds: number;
  readonly connections: number;
  readonly peers: number;
  readonly bytesSent: number;
  readonly bytesRecv: number;
  readonly [more: string]: unknown;
}

/** How the daemon runs. */
export interface DaemonStatus {
  readonly pid: number;
  readonly version: string;
  readonly uptimeSecs: number;
  /** Where its state is kept. */
  readonly home: string;
  readonly inboxDir: string;
  readonly receivedDir: string;
  readonly socket: string;
  readonly listen: string;
  readonly nodeId: number;
  readonly address: string;
  readonly hostname: string;
  /** Does it answer everyone? */
  readonly public: boolean;
  readonly registry: { readonly address: string; readonly connected: boolean; readonly error?: string };
  readonly beacon: string;
  readonly peers: number;
  readonly connections: number;
  /** Requests for trust that wait for an answer. */
  readonly pending: number;
  readonly [more: string]: unknown;
}

/** A node that was found. */
export interface ResolvedNode {
  readonly nodeId: number;
  readonly address: string;
  /** Empty when the target was an address or number. */
  readonly hostname: string;
  /** Does it answer everyone? */
  readonly public: boolean;
}

/** How a node stands to us. */
export type TrustState = 'none' | 'pending' | 'requested' | 'trusted' | 'rejected' | 'revoked';

/** A node that asked for trust. */
export interface PendingTrust {
  readonly nodeId: number;
  readonly publicKey?: string;
  /** Its reason, written by its owner: untrusted text. */
  readonly justification: string;
  /** Unix time in seconds. */
  readonly receivedAt: number;
  readonly hostname?: string;
}

/** A trusted node. */
export interface TrustedNode {
  readonly nodeId: number;
  readonly publicKey?: string;
  /** Did both sides say so? */
  readonly mutual: boolean;
  /** The network it was met in. */
  readonly network: number;
  /** Unix time in seconds. */
  readonly approvedAt: number;
  readonly hostname?: string;
  readonly [more: string]: unknown;
}

/** The relation to one node. */
export interface TrustEntry {
  readonly nodeId: number;
  readonly address: string;
  readonly hostname: string;
  readonly state: TrustState;
  readonly publicKey?: string;
  readonly since: number;
  /** Its reason, or ours when we asked. Untrusted text. */
  readonly justification: string;
}

/** The end of a wait for trust. */
export interface TrustWait {
  readonly nodeId: number;
  readonly state: TrustState;
  /** What the peer said when it declined. Untrusted text. */
  readonly reason?: string;
}

/** The answer to a handshake, an approval, a rejection or a revocation. */
export interface HandshakeStatus {
  readonly nodeId: number;
  /** `sent`, `approved`, `rejected`; absent after a revocation. */
  readonly status?: string;
}

/** The answer to a ping. */
export interface Pong {
  readonly nodeId: number;
  /** Round-trip time in microseconds. */
  readonly rttUs: number;
  /** Did it go through the relay? Not known from a reference daemon. */
  readonly relay: boolean | undefined;
  /** Where the peer is reached, `ip:port`; empty from a reference daemon. */
  readonly endpoint: string;
}

/** A file or folder that a peer sent. */
export interface ReceivedFile {
  /** Its name in the directory. */
  readonly name: string;
  readonly bytes: number;
  readonly modified: string;
  /** Where it is, absolute. */
  readonly path: string;
  /** Who sent it. */
  readonly from?: string;
  readonly fromHostname?: string;
  readonly sha256?: string;
  /** The name its sender gave it. */
  readonly announced?: string;
  /** How many files it has, when it is a folder. */
  readonly files?: number;
  /** When it was completed, nanoseconds since 1970. */
  readonly receivedNs: bigint;
}

/** An answer to a message of the inbox was handed over. */
export interface Answered {
  /** Its id. */
  readonly messageId: string;
  /** Whom it is for. */
  readonly to: string;
  /** The message it answers, by its sender's id. */
  readonly replyTo?: string;
  /** The same by its id in the inbox. */
  readonly id: string;
}

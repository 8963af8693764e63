/** Nodes, addresses and services as text and as the six bytes on the wire. */

import { invalid } from './errors.js';

/** How a caller names a node: hostname, address (`0:0000.0000.0002`) or number. */
export type Target = string | number;

/** A service of a node. */
export interface Endpoint {
  /** The node's address, `0:0000.0000.0002`. */
  readonly address: string;
  /** The node's number. */
  readonly nodeId: number;
  /** The port on it. */
  readonly port: number;
}

/** The ports that the daemon's own services have. */
export const PORTS = {
  echo: 7,
  stdio: 1000,
  dataExchange: 1001,
  eventStream: 1002,
} as const;

const ADDRESS = /^(\d{1,5}):([0-9a-fA-F]{4})\.([0-9a-fA-F]{4})\.([0-9a-fA-F]{4})$/;

/** An address taken apart. */
export interface Address {
  readonly network: number;
  readonly node: number;
}

/** Reads `0:0000.0000.0002`; undefined when the text is no address. */
export function parseAddress(text: string): Address | undefined {
  const groups = ADDRESS.exec(text);
  if (!groups) return undefined;
  const network = Number(groups[1]);
  const [repeated, high, low] = [groups[2], groups[3], groups[4]].map((group) => parseInt(group ?? '', 16));
  // The network stands in an address twice, and must be the same.
  if (network > 0xffff || repeated !== network || high === undefined || low === undefined) return undefined;
  return { network, node: high * 0x10000 + low };
}

/** Writes `0:0000.0000.0002`. */
export function formatAddress({ network, node }: Address): string {
  const group = (value: number): string => value.toString(16).toUpperCase().padStart(4, '0');
  return `${String(network)}:${group(network)}.${group(node >>> 16)}.${group(node & 0xffff)}`;
}

/** The address of a node in the network that everybody belongs to. */
export function backbone(node: number): Address {
  return { network: 0, node };
}

/** The address a target says by itself; undefined when it is a hostname. */
export function literalAddress(target: Target): Address | undefined {
  if (typeof target === 'number') {
    if (!Number.isInteger(target) || target < 0 || target > 0xffffffff) {
      throw invalid(`${String(target)} is no node number`);
    }
    return backbone(target);
  }
  const number = /^\d{1,10}$/.test(target) ? Number(target) : NaN;
  return number <= 0xffffffff ? backbone(number) : parseAddress(target);
}

export function endpoint(address: Address, port: number): Endpoint {
  return { address: formatAddress(address), nodeId: address.node, port };
}

/** The number of a port, or an error that says what is wrong. */
export function checkPort(port: number): number {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw invalid(`${String(port)} is no port: ports are whole numbers from 0 to 65535`);
  }
  return port;
}

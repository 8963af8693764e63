/**
 * Pilot from Node.js: streams, messages, requests, files and events between agents, through the daemon of this machine.
 *
 * @packageDocumentation
 */

export { PORTS, type Endpoint, type Target } from './address.js';
export type { Datagram } from './connection.js';
export type { Content, MessageKind } from './content.js';
export { PilotError, type PilotErrorCode, type PilotErrorOptions } from './errors.js';
export { EventStream, type SubscribeOptions } from './events.js';
export type { Overflow, PilotEvent, Subscribed } from './feed.js';
export type { FileOptions, FileProgress, FileReceipt } from './file.js';
export { Inbox } from './inbox.js';
export { Mail, type MailEntry, type MailFilter } from './mail.js';
export type { MessageOptions, Receipt } from './message.js';
export type { DeliveryState, Outbox, OutboxItem, QueueOptions } from './outbox.js';
export { Pilot, type ConnectOptions, type Subscription } from './pilot.js';
export { Datagrams, Listener } from './ports.js';
export {
  PendingRequest,
  type Outcome,
  type RequestEvent,
  type RequestOptions,
  type Response,
} from './request.js';
export { Incoming, Server, type Handler, type ServeOptions, type Withdrawal } from './serve.js';
export { defaultSocket } from './socket.js';
export { PilotStream, type CallOptions } from './stream.js';
export type * from './types.js';
export type { Timing } from './wire/exchange.js';

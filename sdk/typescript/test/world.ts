/** Real processes in a temporary place: a rendezvous, and agents with daemons. */

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { Pilot } from '../src/index.js';

/** The folder of this package, seen from `build/test`. */
export const PACKAGE = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** The repository. */
export const REPOSITORY = join(PACKAGE, '..', '..');

/** The program under test's counterpart: command line, daemon and rendezvous in one. */
export const PILOTCTL = process.env.PILOTCTL ?? join(REPOSITORY, 'target', 'debug', 'pilotctl');

/** Nothing of the tester's own settings. */
export function environment(home: string, socket: string): NodeJS.ProcessEnv {
  const clean = Object.entries(process.env).filter(([name]) => !name.startsWith('PILOT_'));
  return {
    ...Object.fromEntries(clean),
    HOME: home,
    PILOT_HOME: home,
    PILOT_SOCKET: socket,
    PILOT_SEND_PATIENCE: '2s',
  };
}

/** A process that says in one line of JSON that it is ready. */
class Running {
  private constructor(
    readonly child: ChildProcess,
    readonly ready: Record<string, unknown>,
  ) {}

  static async start(command: string, words: readonly string[], home: string, socket: string): Promise<Running> {
    mkdirSync(home, { recursive: true });
    const log = openSync(join(home, 'test.log'), 'a');
    const child = spawn(command, words, { env: environment(home, socket), cwd: home, stdio: ['ignore', 'pipe', log] });
    closeSync(log);
    assert.ok(child.stdout);
    const lines = createInterface({ input: child.stdout });
    const [line] = (await Promise.race([once(lines, 'line'), once(child, 'exit').then(() => [''])])) as [string];
    const said = JSON.parse(line === '' ? '{}' : line) as { status?: string; data?: Record<string, unknown> };
    assert.equal(said.status, 'ok', `${command} ${words.join(' ')}: ${line}\n${readFileSync(join(home, 'test.log'), 'utf8')}`);
    return new Running(child, said.data ?? {});
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exit = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exit;
  }
}

/** One machine: its own state, its own socket, a daemon. */
export class Agent {
  #daemon: Running | undefined;

  constructor(
    private readonly world: World,
    readonly name: string,
    readonly home: string,
    readonly socket: string,
  ) {}

  async start(): Promise<void> {
    const { registry, beacon } = this.world;
    const words = ['daemon', 'run', '--json', '--registry', registry, '--beacon', beacon];
    words.push('--hostname', this.name, '--listen', '127.0.0.1:0');
    this.#daemon = await Running.start(PILOTCTL, words, this.home, this.socket);
    if (this.#daemon.ready.registered === true) return;
    // A slow machine: the daemon is ready before its registry has answered.
    const pilot = await Pilot.connect({ socket: this.socket });
    await until(async () => (await pilot.info()).nodeId !== 0, 60_000);
    await pilot.close();
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    await this.#daemon?.kill();
  }

  /** A connection to its daemon, closed with the world. */
  async pilot(): Promise<Pilot> {
    const pilot = await Pilot.connect({ socket: this.socket });
    this.world.pilots.push(pilot);
    return pilot;
  }

  /** Runs a line of `pilotctl` that must succeed; the `data` of its JSON. */
  async ctl(...words: string[]): Promise<Record<string, unknown>> {
    const env = environment(this.home, this.socket);
    const child = spawn(PILOTCTL, [...words, '--json'], { env, cwd: this.home, stdio: ['ignore', 'pipe', 'pipe'] });
    const parts: Buffer[] = [];
    child.stdout.on('data', (part: Buffer) => parts.push(part));
    child.stderr.resume();
    const [status] = (await once(child, 'close')) as [number];
    const text = Buffer.concat(parts).toString();
    assert.equal(status, 0, `pilotctl ${words.join(' ')}: ${text}`);
    return (JSON.parse(text) as { data: Record<string, unknown> }).data;
  }
}

/** A rendezvous and the temporary directory of everything around it. */
export class World {
  readonly pilots: Pilot[] = [];
  readonly #agents: Agent[] = [];
  registry = '';
  beacon = '';
  #rendezvous: Running | undefined;

  // Short: the path of a socket may have about a hundred characters.
  private constructor(readonly directory = mkdtempSync('/tmp/pts-')) {}

  static async start(): Promise<World> {
    const world = new World();
    const home = join(world.directory, 'rendezvous');
    const words = ['rendezvous', 'run', '--json', '--registry-addr', '127.0.0.1:0', '--beacon-addr', '127.0.0.1:0'];
    world.#rendezvous = await Running.start(PILOTCTL, words, home, join(home, 'sock'));
    world.registry = String(world.#rendezvous.ready.registry_addr);
    world.beacon = String(world.#rendezvous.ready.beacon_addr);
    return world;
  }

  /** A machine with a daemon that has registered under its name. */
  async agent(name: string): Promise<Agent> {
    const agent = new Agent(this, name, join(this.directory, name), join(this.directory, `${name}.sock`));
    this.#agents.push(agent);
    await agent.start();
    return agent;
  }

  /** Two agents that trust each other, and a connection to each. */
  async friends(): Promise<{ a: Agent; b: Agent; alice: Pilot; bob: Pilot }> {
    const [a, b] = await Promise.all([this.agent('agent-a'), this.agent('agent-b')]);
    const [alice, bob] = [await a.pilot(), await b.pilot()];
    await befriend(alice, bob);
    return { a, b, alice, bob };
  }

  async stop(): Promise<void> {
    await Promise.all(this.pilots.map((pilot) => pilot.close()));
    await Promise.all(this.#agents.map((agent) => agent.kill()));
    await this.#rendezvous?.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** `from` asks, `to` approves; resolves when both know it. */
export async function befriend(from: Pilot, to: Pilot): Promise<void> {
  await from.handshake(to.nodeId, 'for the test');
  await until(async () => (await to.pending()).some(({ nodeId }) => nodeId === from.nodeId));
  await to.approve(from.nodeId);
  assert.equal((await from.waitTrust(to.nodeId, { timeoutMs: 20_000 })).state, 'trusted');
}

/** Waits, with a bound, until something that nobody announces has come true. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `not within ${String(limitMs)} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Bytes that differ from place to place. */
export function pattern(length: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let at = 0, state = 1; at < length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[at] = state >>> 24;
  }
  return data;
}

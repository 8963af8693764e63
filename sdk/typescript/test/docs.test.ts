/** The code in docs/typescript.md and in the README runs, and so do the examples. */

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import ts from 'typescript';

import type { Pilot } from '../src/index.js';
import { environment, PACKAGE, REPOSITORY, until, World, type Agent } from './world.js';

let world: World;
let a: Agent;
let b: Agent;
let bob: Pilot;
let folder: string;
const running: ChildProcess[] = [];

before(async () => {
  world = await World.start();
  [a, b] = await Promise.all([world.agent('agent-a'), world.agent('agent-b')]);
  bob = await b.pilot();
  await bob.autoApprove(true);
  folder = join(world.directory, 'project');
  mkdirSync(join(folder, 'node_modules'), { recursive: true });
  symlinkSync(PACKAGE, join(folder, 'node_modules', 'pilot-agents'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
});

after(async () => {
  for (const child of running) child.kill('SIGKILL');
  await world.stop();
});

interface Block {
  readonly agent: string;
  readonly code: string;
}

function blocks(path: string): Block[] {
  const found = readFileSync(path, 'utf8').matchAll(/^```ts ?(.*)\n([^]*?)^```$/gm);
  return [...found].map(([, agent, code]) => ({ agent: agent === '' ? 'agent-a' : (agent ?? ''), code: code ?? '' }));
}

let count = 0;

/** Starts code as a program of an agent, as a user would after compiling it. */
function start(agent: Agent, code: string, ...words: string[]): { child: ChildProcess; said: () => string } {
  const path = join(folder, `block-${String((count += 1))}.js`);
  const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
  writeFileSync(path, ts.transpileModule(code, { compilerOptions: options }).outputText);
  const child = spawn(process.execPath, [path, ...words], { cwd: folder, env: environment(agent.home, agent.socket) });
  running.push(child);
  let said = '';
  const hear = (part: Buffer): void => {
    said += part.toString();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  return { child, said: () => said };
}

async function finish({ child, said }: { child: ChildProcess; said: () => string }): Promise<string> {
  if (child.exitCode === null) await once(child, 'close');
  assert.equal(child.exitCode, 0, said());
  return said();
}

test('every piece of the guide runs', async () => {
  const guide = blocks(join(REPOSITORY, 'docs', 'typescript.md'));
  assert.ok(guide.length >= 8);
  const output: string[] = [];
  const waiting: { child: ChildProcess; said: () => string }[] = [];
  for (const { agent, code } of guide) {
    if (agent === 'agent-b') {
      const other = start(b, code);
      waiting.push(other);
      if (code.includes('.listen(')) {
        await until(isListenedOn, 60_000);
      }
    } else {
      output.push(await finish(start(a, code)));
    }
  }
  const all = output.join('');
  for (const said of ['agent-a 0:', 'trusted', 'reading', 'first half, second half', 'ACK TEXT', 'stored', 'hello, echo', 'agent-a.progress']) {
    assert.ok(all.includes(said), `${said} in ${all}`);
  }
  const inbox = waiting.find(({ said }) => said().includes('agent-a text process this'));
  assert.ok(inbox, waiting.map(({ said }) => said()).join('---'));
  await finish(inbox);
});

/** Whether a program of the other node takes streams on port 1000. */
async function isListenedOn(): Promise<boolean> {
  const alice = await a.pilot();
  const stream = await alice.dial('agent-b', 1000).catch(() => undefined);
  await stream?.close();
  await alice.close();
  return stream !== undefined;
}

test('the code of the README compiles and begins', async () => {
  const [block] = blocks(join(PACKAGE, 'README.md'));
  assert.ok(block);
  const program = start(a, block.code);
  await until(() => program.said().includes(a.name === '' ? '' : '0:'));
  program.child.kill('SIGKILL');
});

test('the asker is answered by the worker', async () => {
  const example = (name: string): string => readFileSync(join(PACKAGE, 'examples', name), 'utf8');
  for (const child of running) child.kill('SIGKILL');
  const worker = start(b, example('worker.ts'));
  await until(() => worker.said().includes('works at'));
  const said = await finish(start(a, example('asker.ts'), 'agent-b', 'one', 'two', 'three'));
  assert.ok(said.includes('ONE\nTWO\nTHREE\n') && said.includes('3 of 3'), said);
  worker.child.kill('SIGINT');
  await finish(worker);
});

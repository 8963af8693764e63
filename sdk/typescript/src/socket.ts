/** Where the daemon's socket is. */

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The socket of a daemon that was started without saying otherwise. */
const DEFAULT = '/tmp/pilot.sock';

/**
 * The socket to connect to when none is given: `$PILOT_SOCKET`, else what `config.json` in `$PILOT_HOME` or
 * `~/.pilot` says, else `/tmp/pilot.sock`.
 */
export function defaultSocket(): string {
  return nonEmpty(process.env.PILOT_SOCKET) ?? configured() ?? DEFAULT;
}

function configured(): string | undefined {
  const home = nonEmpty(process.env.PILOT_HOME) ?? join(homedir(), '.pilot');
  try {
    const config = JSON.parse(readFileSync(join(home, 'config.json'), 'utf8')) as { socket?: unknown } | null;
    return typeof config?.socket === 'string' ? nonEmpty(config.socket) : undefined;
  } catch {
    // No settings, or none that can be read: the default is where the daemon is then, too.
    return undefined;
  }
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

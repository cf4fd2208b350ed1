// npm links a workspace's command at install time only if its file exists by then, and ours is
// built later. This makes the link anyway, so that `npx pinhole` works after any build.
import { mkdirSync, symlinkSync } from 'node:fs';

if (process.platform !== 'win32') {
  mkdirSync('node_modules/.bin', { recursive: true });
  try {
    symlinkSync('../../apps/cli/dist/main.js', 'node_modules/.bin/pinhole');
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
}

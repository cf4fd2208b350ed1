#!/usr/bin/env node
import { runToExit } from './exit.js';
import { createProgram } from './program.js';

await runToExit(() => createProgram().parseAsync(process.argv));

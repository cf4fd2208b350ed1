#!/usr/bin/env node
const [command = 'help'] = process.argv.slice(2);
process.stdout.write(`pinhole: ${command}: no commands yet\n`);

export { Fuzzer } from './fuzzer.js';
export { TARGETS } from './targets.js';

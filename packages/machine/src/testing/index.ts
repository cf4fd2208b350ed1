export type { Check, Rule } from './check.js';
export { RULES } from './check.js';
export type { CheckArchitectureOptions } from './check-architecture.js';
export { checkArchitecture } from './check-architecture.js';

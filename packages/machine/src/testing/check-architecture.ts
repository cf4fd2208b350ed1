import {
  type Architecture,
  createSeededDisk,
  type DiskSource,
  type PlatformVariant,
  type Scenario,
} from '@pinhole/machine';
import { type Check, Findings, RULES, type Rule } from './check.js';
import {
  buildPlatform,
  checkCoherent,
  checkImpossible,
  checkPhysical,
  checkPrivate,
  checkSpaces,
} from './probe-rules.js';
import {
  type Case,
  casesOf,
  checkCase,
  DISK_SIZE,
  describeCase,
  isSecureByItself,
  scenarioOf,
} from './run-rules.js';

/** Options of {@link checkArchitecture}. */
export interface CheckArchitectureOptions {
  /** The guest's kernel. Default: that of scenarios. */
  readonly kernel?: string;
  /** Default: 1. */
  readonly seed?: number;
}

/**
 * Holds an architecture against what every architecture must keep: builds each of its machines, looks
 * at it, and runs a workload with and without ACCESS_PLATFORM, over split and packed rings, with an
 * ordinary and a secure guest where it has one; a variant that is secure by itself has no ordinary
 * one. Throws nothing; belongs to no test runner.
 */
export function checkArchitecture(
  architecture: Architecture,
  options: CheckArchitectureOptions = {},
): readonly Check[] {
  const { id, variants } = architecture;
  if (variants.length === 0) {
    const findings = new Findings();
    findings.hold('declares', false, () => 'expected a variant, found none');
    return [findings.check('declares', id)];
  }
  const disk = createSeededDisk(options.seed ?? 1, DISK_SIZE);
  return variants.flatMap((variant) => checkVariant(architecture, variant, disk, options));
}

function checkVariant(
  architecture: Architecture,
  variant: PlatformVariant,
  disk: DiskSource,
  options: CheckArchitectureOptions,
): Check[] {
  const findings = new Findings();
  const cases = casesOf(architecture, variant);
  const rules = (Object.keys(RULES) as Rule[]).filter((rule) => isFor(rule, cases));
  checkName(architecture, variant, findings);
  for (const one of cases) {
    let scenario: Scenario;
    try {
      scenario = scenarioOf(architecture, one, options);
    } catch (error) {
      findings.hold('declares', false, () => `${variant.id}: ${String(error)}`);
      break;
    }
    checkCase(architecture, scenario, one, { disk, findings });
    if (!one.packed) probe(architecture, scenario, one, findings);
  }
  return rules.map((rule) => findings.check(rule, variant.id));
}

// Of a secure guest nobody says that it works; of an ordinary one, that it hides anything.
function isFor(rule: Rule, cases: readonly Case[]): boolean {
  if (rule === 'private') return cases.some(({ isSecure }) => isSecure);
  if (rule === 'works' || rule === 'coherent') return cases.some(({ isSecure }) => !isSecure);
  return true;
}

function checkName(
  { id, variants, secure }: Architecture,
  variant: PlatformVariant,
  to: Findings,
): void {
  to.hold('declares', variant.id.startsWith(id) && variant.title !== '', () => {
    return `expected a title and an id that starts with "${id}", found "${variant.id}"`;
  });
  const alike = variants.filter((other) => other.id === variant.id).length;
  to.hold('declares', alike === 1, () => `"${variant.id}" names ${alike} variants`);
  to.hold('declares', secure !== undefined || !isSecureByItself(variant), () => {
    return `"${variant.id}" has guest.secure: expected the architecture to say what that is there (secure: ...), found nothing`;
  });
}

// A secure guest's coherent memory is the business of the runs: there are machines that lose it.
function probe(architecture: Architecture, scenario: Scenario, one: Case, to: Findings): void {
  const where = describeCase(one);
  try {
    const platform = buildPlatform(architecture, scenario);
    checkPhysical(platform, where, to);
    checkSpaces(platform, where, to);
    if (one.isSecure) checkPrivate(platform, where, to);
    if (!one.flag) return;
    if (!one.isSecure) checkCoherent(platform, where, to);
    if (!one.isSecure || isSecureByItself(one.variant)) checkImpossible(architecture, scenario, to);
  } catch (error) {
    to.hold('answers', false, () => `${where}: ${String(error)}`);
  }
}

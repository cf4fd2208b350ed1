import { latin1 } from './bytes.js';
import { FdtError } from './errors.js';
import { baseName, quote } from './names.js';
import type { FdtNode, FdtProperty } from './types.js';

/** A path in a message is not longer than this; the middle goes. */
const MAX_SHOWN = 240;

/** The path of the last of nested nodes, given their names from the root on. */
export function pathOf(names: string[]): string {
  const path = names.slice(1).join('/');
  if (path.length <= MAX_SHOWN) return `/${path}`;
  return `/${path.slice(0, MAX_SHOWN / 2)}...${path.slice(-MAX_SHOWN / 2)}`;
}

/**
 * The node at `path`: `/cpus/cpu@0`. A unit address can be left out where that leaves one node; a
 * name without one is preferred. A path that does not start with `/` starts with an alias.
 * Several slashes count as one. [Devicetree v0.4 §2.2.3 "Path Names", §3.3 "/aliases node"]
 *
 * libfdt takes the first node that fits instead. [dtc v1.6.1 libfdt/fdt_ro.c fdt_path_offset]
 * @returns `undefined` when there is no such node
 * @throws FdtError `E_FDT_PATH` for a path that is empty or fits more than one node
 */
export function findNode(root: FdtNode, path: string): FdtNode | undefined {
  if (path === '') {
    throw new FdtError('E_FDT_PATH', { what: 'path', expected: 'a path', found: 'none' });
  }
  const names = path.split('/').filter((name) => name !== '');
  let node: FdtNode | undefined = root;
  if (!path.startsWith('/')) {
    const target = aliasOf(root, names.shift() ?? '');
    // An alias is a full path: one that leads to another alias could go round in circles.
    if (!target?.startsWith('/')) return undefined;
    names.unshift(...target.split('/').filter((name) => name !== ''));
  }
  for (const name of names) {
    node = childOf(node, name, path);
    if (node === undefined) return undefined;
  }
  return node;
}

/** The property of that name. */
export function findProperty(node: FdtNode, name: string): FdtProperty | undefined {
  return node.properties.find((property) => property.name === name);
}

function childOf(parent: FdtNode, name: string, path: string): FdtNode | undefined {
  const exact = parent.children.find((child) => child.name === name);
  if (exact) return exact;
  const [first, second] = parent.children.filter((child) => baseName(child.name) === name);
  if (first && second) {
    throw new FdtError('E_FDT_PATH', {
      what: `path ${quote(path)}`,
      expected: `a unit address after ${quote(name)}`,
      found: `${quote(first.name)} and ${quote(second.name)}`,
    });
  }
  return first;
}

/** What an alias stands for: a string, less its NUL. */
function aliasOf(root: FdtNode, alias: string): string | undefined {
  const aliases = root.children.find((child) => child.name === 'aliases');
  const value = aliases && findProperty(aliases, alias)?.value;
  return value && latin1(value).replace(/\0.*$/s, '');
}

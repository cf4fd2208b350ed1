import { describe, expect, test } from 'vitest';
import { eventCatalogue } from './events.js';
import { parseTemplate } from './template.js';

test('names are unique and spelt as tracepoints are', () => {
  const names = eventCatalogue.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z][a-z0-9_]*$/);
});

describe.each(eventCatalogue.map((event) => [event.name, event] as const))('%s', (_, event) => {
  const { fields } = parseTemplate(event.template);

  test.each([event.template, ...event.variants])('%s is fields and plain text', (form) => {
    const parsed = parseTemplate(form);
    for (const text of [...parsed.fields.map(({ before }) => before), parsed.tail]) {
      expect(text).toMatch(/^[\x20-\x7a]*$/);
    }
    // Two fields without text between them could not be read.
    for (const { before } of parsed.fields.slice(1)) expect(before).not.toBe('');
  });

  test('its arguments are those of the template, each once', () => {
    expect(event.args).toEqual(fields.map(({ arg }) => arg));
    const names = event.args.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    // An invalidation of everything says no more than that.
    if (!/ global(ly)?$|all$|^$|^reset!$/.test(event.template))
      expect(names.length).toBeGreaterThan(0);
  });

  test('its summary is one line without a full stop', () => {
    expect(event.summary).toMatch(/^\S.{8,90}[^.\s]$/);
  });

  test('only the events of the model are spans', () => {
    if (event.span) expect(event.source).toBe('pinhole');
  });
});

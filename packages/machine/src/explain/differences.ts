/** What a version change does to the same machine. */
import type { Answer, DeviceExplanation, Difference } from './explanation.js';

/** What is compared, and how it is shown. */
const ASPECTS: readonly { readonly what: string; readonly of: (answer: Answer) => string }[] = [
  { what: 'path', of: ({ path }) => path.name },
  {
    what: 'hypercalls per read of 4 KiB / 64 KiB / 1 MiB',
    of: ({ cost }) => cost?.rows.map(({ hcalls }) => hcalls).join(' / ') ?? 'none: no I/O',
  },
  {
    what: 'IOMMU maps per read of 4 KiB / 64 KiB / 1 MiB',
    of: ({ cost }) => cost?.rows.map(({ iommu }) => iommu.maps).join(' / ') ?? 'none: no I/O',
  },
  {
    what: 'IOMMU commands per read of 4 KiB / 64 KiB / 1 MiB',
    of: ({ cost }) =>
      cost?.rows.map(({ iommu }) => Math.round(iommu.commands * 1000) / 1000).join(' / ') ??
      'none: no I/O',
  },
  {
    what: 'translations per read of 4 KiB / 64 KiB / 1 MiB',
    of: ({ cost }) =>
      cost?.rows.map(({ translations }) => translations).join(' / ') ?? 'none: no I/O',
  },
  {
    what: 'bytes copied per read of 4 KiB / 64 KiB / 1 MiB',
    of: ({ cost }) =>
      cost?.rows.map(({ bytesCopied }) => bytesCopied).join(' / ') ?? 'none: no I/O',
  },
  { what: 'reach', of: ({ reach }) => reach.text },
  {
    what: 'errors and warnings',
    of: ({ risks }) =>
      risks
        .filter(({ severity }) => severity !== 'note')
        .map(({ id }) => id)
        .join(', ') || 'none',
  },
];

// The steps that an answer does not share with all the others, one a line.
function ownSteps(answers: readonly Answer[]): (answer: Answer) => string {
  const textsOf = ({ steps }: Answer): string[] =>
    steps.map(({ text, fact }) => `${text}: ${fact}`);
  const all = answers.map((answer) => new Set(textsOf(answer)));
  return (answer) =>
    textsOf(answer)
      .filter((text) => !all.every((texts) => texts.has(text)))
      .join('\n') || 'none of its own';
}

/** Only what is not the same under all kernels. */
export function differencesOf(
  devices: readonly DeviceExplanation[],
  kernels: readonly string[],
): Difference[] {
  if (kernels.length < 2) return [];
  return devices.flatMap(({ name, answers }) => {
    const assumptions = [...new Set(answers.map(({ assuming }) => assuming))];
    return assumptions.flatMap((assuming) => {
      const compared = answers.filter((answer) => answer.assuming === assuming);
      const aspects = [...ASPECTS, { what: 'steps', of: ownSteps(compared) }];
      return aspects
        .map(({ what, of }) => ({
          device: name,
          assuming,
          what,
          values: compared.map((answer) => ({ kernel: answer.kernel, value: of(answer) })),
        }))
        .filter(({ values }) => new Set(values.map(({ value }) => value)).size > 1);
    });
  });
}

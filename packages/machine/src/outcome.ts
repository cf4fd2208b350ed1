/**
 * How a run ended.
 * - `works`: correct data, no hypercall and no IOMMU command per request.
 * - `works-slow`: correct data, paid for with hypercalls, with an IOMMU command a request or more, or
 *   with translations that vhost asks for again and again.
 * - `refused`: the driver found no usable device.
 * - `fails`: requests hang, completed with errors, or could not be given to the device.
 * - `wrong-data`: every request "succeeded", and data is wrong.
 */
export const OUTCOMES = ['works', 'works-slow', 'refused', 'fails', 'wrong-data'] as const;
/** How a run ended: see {@link OUTCOMES}. */
export type Outcome = (typeof OUTCOMES)[number];

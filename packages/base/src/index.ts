export type { Gpa, HiLo, Ioba, Liobn, Tce } from './address.js';
export {
  addU64,
  distanceU64,
  hex,
  hex64,
  hi32,
  hiOf,
  isSafeHi,
  joinNumber,
  joinU64,
  lo32,
  loOf,
  splitU64,
  u16,
} from './address.js';
export { InternalError, invariant, ModelError, NotModelled } from './errors.js';
export { editDistance, nearestName } from './nearest.js';
export type { Rng } from './rng.js';
export { createRng } from './rng.js';
export { formatSize, parseSize } from './size.js';
export type { Clock, TraceEvent, TraceSink, TraceValue } from './trace.js';
export { createTickClock, NO_TRACE, Tracer } from './trace.js';

/** Each device's way to memory: one model of addresses a device. */
import type { AddressModel, Disagreement } from './address-model.js';
import type { BounceAddresses } from './bounce-addresses.js';
import { type DeviceMaps, routeFrom } from './device-route.js';
import { DirectAddresses } from './direct-addresses.js';
import type { GuestOperation } from './guest-operations.js';
import type { Inference } from './inference.js';
import type { IommuRanges } from './iommu-ranges.js';
import { IovaAddresses } from './iova-addresses.js';
import { forecastOptionsOf, IovaForecast } from './iova-forecast.js';
import { kernelBeginsOn } from './platform.js';

/** Options of {@link DeviceAddresses}. */
export interface DeviceAddressesOptions {
  readonly inference: Inference;
  readonly bounce: BounceAddresses | undefined;
  readonly ranges: IommuRanges | undefined;
  readonly devices: ReadonlyMap<string, DeviceMaps>;
  /** The trace has a device's mappings from its first one on. */
  readonly isWhole: (device: string) => boolean;
}

/** log2 of an entry of the page table's next to the top one: KASLR moves the linear map by these. */
const LINEAR_MAP_SHIFT = 30;
const MAX_DEVICES = 4096;

/** Asks the model of the device that an operation is of. */
export class DeviceAddresses implements AddressModel {
  readonly iovas: IovaAddresses[] = [];
  readonly forecasts: IovaForecast[] = [];
  readonly #options: DeviceAddressesOptions;
  readonly #models = new Map<string, AddressModel>();
  readonly #direct: DirectAddresses;

  constructor(options: DeviceAddressesOptions) {
    this.#options = options;
    const { inference, bounce } = options;
    const { platform, guestPageSize } = inference;
    this.#direct = new DirectAddresses({
      pageSize: guestPageSize,
      bounce,
      isForced: platform.isBounceForced,
      kernelBegins: kernelBeginsOn(platform.machine),
      linearMapShift:
        ['x86-64', 'arm64'].includes(platform.machine) && guestPageSize === 4096
          ? LINEAR_MAP_SHIFT
          : Math.log2(guestPageSize),
    });
  }

  begin(operation: GuestOperation): Disagreement | undefined {
    return this.#of(operation.device).begin(operation);
  }

  end(operation: GuestOperation): Disagreement | undefined {
    return this.#of(operation.device).end(operation);
  }

  /** Physical addresses of the pages of coherent memory behind an IOMMU, if the trace has them. */
  pagesOf(operation: GuestOperation): readonly bigint[] | undefined {
    for (const model of this.iovas) {
      const pages = model.pagesOf(operation);
      if (pages !== undefined) return pages;
    }
    return undefined;
  }

  #of(device: string): AddressModel {
    if (this.#options.inference.platform.iommu === 'none') return this.#direct;
    let model = this.#models.get(device);
    if (model === undefined) {
      model = this.#make(device);
      if (this.#models.size < MAX_DEVICES) this.#models.set(device, model);
    }
    return model;
  }

  // Behind an IOMMU that lets a device through, addresses are physical ones.
  #make(device: string): AddressModel {
    const { devices, ranges, isWhole, inference } = this.#options;
    const kernelBegins = kernelBeginsOn(inference.platform.machine);
    const maps = devices.get(device);
    if (maps !== undefined && routeFrom(maps, 0).kind === 'direct') return this.#direct;
    const forecast = isWhole(device) ? new IovaForecast(forecastOptionsOf(inference)) : undefined;
    if (forecast !== undefined) this.forecasts.push(forecast);
    const model = new IovaAddresses({ ranges, forecast, kernelBegins });
    this.iovas.push(model);
    return model;
  }
}

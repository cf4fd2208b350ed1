import type { KernelProfile } from './kernel-profiles/types.js';

/** Platforms whose memory can be protected. */
export type ProtectedPlatform = 'pseries' | 's390x' | 'x86-64' | 'xen' | 'arm64';

/**
 * Whether a guest refuses virtio devices without VERSION_1 and ACCESS_PLATFORM, by its kernel's rule.
 * powerpc installs no such check: a secure pseries guest takes such a device, which then gets
 * addresses of private pages.
 * [linux v6.1 drivers/virtio/virtio.c virtio_features_ok; drivers/virtio/virtio_anchor.c]
 */
export function hasRestrictedVirtioAccess(
  kernel: KernelProfile,
  platform: ProtectedPlatform,
  isProtected: boolean,
): boolean {
  const { kind, platforms } = kernel.restrictedAccess;
  return kind !== 'none' && isProtected && (platforms as readonly string[]).includes(platform);
}

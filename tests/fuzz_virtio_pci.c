/* fuzz_virtio_pci.c - fuzz_virtio.c over virtio-pci, with either kind of rings  MIT licence, see LICENSE
 */
#define FUZZ_PCI    true
#define FUZZ_PACKED (f.how & 128)
#include "fuzz_virtio.c"

/* vmm --binary virtio64.bin --entry 0x1000 --mode 64 [--disk FILE]; linked at 0x1000
   expect: COM1 "rng: 16 bytes", with a disk "disk: " and the first line of the disk, status 0
   Status 1: a device did not do what it was asked; 2: there is no random number generator.
   MIT licence, see LICENSE */
#include "guest.h"

static void print_first_line(void)
{
    char text[2] = "";

    print("disk: ");
    for (unsigned i = 0; i < 512 && BUFFER[i] >= ' ' && BUFFER[i] < 0x7f; i++) {
        text[0] = (char)BUFFER[i];
        print(text);
    }
    print("\n");
}

static int guest(void)
{
    bool random = false;
    struct dev d;

    for (unsigned slot = 0; slot < MMIO_SLOTS; slot++) {
        if (!probe(&d, slot) || (d.id != ID_RNG && d.id != ID_BLK))
            continue;
        if (!start(&d) || !request(&d))
            return 1;
        if (d.id == ID_RNG)
            print("rng: 16 bytes\n");
        else
            print_first_line();
        random = random || d.id == ID_RNG;
        if (!reset(&d))
            return 1;
    }
    return random ? 0 : 2;
}

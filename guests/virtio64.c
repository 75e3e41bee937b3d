/* vmm --binary virtio64.bin --entry 0x1000 --mode 64 [--disk FILE]; linked at 0x1000
   expect: COM1 "rng: 16 bytes", with a disk "disk: " and the first line of the disk, status 0; the
   same again for packed rings if the devices offer them
   Status 1: a device did not do what it was asked; 2: there is no random number generator.
   MIT licence, see LICENSE */
#include "guest.h"

static void print_first_line(const struct dev *d)
{
    char text[2] = "";

    print("disk: ");
    for (unsigned i = 0; i < 512 && d->at->buffer[i] >= ' ' && d->at->buffer[i] < 0x7f; i++) {
        text[0] = (char)d->at->buffer[i];
        print(text);
    }
    print("\n");
}

/* Works with one kind of rings with all devices; -1: all is well. */
static int use_all(bool packed, bool *random)
{
    struct dev d;

    for (unsigned slot = 0; slot < NSLOTS; slot++) {
        if (!probe(&d, slot, packed) || (d.id != ID_RNG && d.id != ID_BLK) || !offers(&d))
            continue;
        if (!start(&d) || !request(&d))
            return 1;
        if (d.id == ID_RNG)
            print(packed ? "rng, packed: 16 bytes\n" : "rng: 16 bytes\n");
        else
            print_first_line(&d);
        *random = *random || d.id == ID_RNG;
        if (!reset(&d))
            return 1;
    }
    return 0;
}

static int guest(void)
{
    bool random = false;

    if (use_all(false, &random) || use_all(true, &random))
        return 1;
    return random ? 0 : 2;
}

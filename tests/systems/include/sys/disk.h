#ifndef STUB_SYS_DISK_H
#define STUB_SYS_DISK_H

/* of macOS: _IOR('d', 24, uint32_t), _IOR('d', 25, uint64_t) */
#define DKIOCGETBLOCKSIZE  0x40046418ul
#define DKIOCGETBLOCKCOUNT 0x40086419ul

#endif

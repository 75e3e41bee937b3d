/* mach/mach_time.h - for programs that play Hypervisor.framework on Linux   MIT licence, see LICENSE */
#ifndef MACH_MACH_TIME_H
#define MACH_MACH_TIME_H

#include <stdint.h>

struct mach_timebase_info {
    uint32_t numer, denom;
};
typedef struct mach_timebase_info mach_timebase_info_data_t;

uint64_t mach_absolute_time(void);
int mach_timebase_info(struct mach_timebase_info *info);

#endif

/* shim_hvf.h - vmm on a Hypervisor.framework that shim_hvf_arm64.c plays on Linux' KVM: the backend as
   VMM_BACKEND names it.                                            MIT licence, see LICENSE */
void *shim_symbol(const char *name);
#define HVF_SYMBOL shim_symbol
#include "../hv_hvf.h"

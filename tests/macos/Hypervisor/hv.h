#include <Hypervisor/Hypervisor.h> /* all of it is there */

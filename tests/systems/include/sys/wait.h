#ifndef STUB_SYS_WAIT_H
#define STUB_SYS_WAIT_H
#include <stub.h>

#define WNOHANG 1

pid_t waitpid(pid_t pid, int *status, int flags);

#endif

/* nvmevf.c - gives a virtual function of an NVMe controller its resources; runs in the lab's machine

     nvmevf /dev/nvme0 CONTROLLER RESOURCE ACTION NUMBER

   One Virtualization Management command ("NVM Express Base Specification", 5.28): RESOURCE 0 is
   queues, 1 interrupts; ACTION 1 sets the primary controller's share, 7 takes a secondary one
   offline, 8 gives it NUMBER of them, 9 brings it online. */
#include <errno.h>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
    struct nvme_admin_cmd cmd = {.opcode = 0x1c};
    int fd = argc == 6 ? open(argv[1], O_RDWR) : -1, status;

    if (fd < 0) {
        fprintf(stderr, "nvmevf: %s\n", argc == 6 ? strerror(errno) : "five arguments");
        return 2;
    }
    cmd.cdw10 = (unsigned)(atoi(argv[2]) << 16 | atoi(argv[3]) << 8 | atoi(argv[4]));
    cmd.cdw11 = (unsigned)atoi(argv[5]);
    status = ioctl(fd, (int)NVME_IOCTL_ADMIN_CMD, &cmd);
    if (status)
        fprintf(stderr, "nvmevf: status 0x%x: %s\n", (unsigned)status,
                status < 0 ? strerror(errno) : "");
    return status != 0;
}

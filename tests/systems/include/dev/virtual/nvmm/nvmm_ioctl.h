#ifndef STUB_NVMM_IOCTL_H
#define STUB_NVMM_IOCTL_H
#include <dev/virtual/nvmm/nvmm.h>
#include <sys/ioctl.h>

struct nvmm_ioc_capability {
    struct nvmm_capability cap;
};

struct nvmm_ioc_vcpu_create {
    uint32_t machid, cpuid;
#if !defined(__NetBSD__)
    struct nvmm_comm_page *comm;
#endif
};

struct nvmm_ioc_vcpu_configure {
    uint32_t machid, cpuid;
    uint64_t op;
    void *conf;
};

struct nvmm_ioc_vcpu_run {
    uint32_t machid, cpuid;
    struct nvmm_vcpu_exit exit;
};

struct nvmm_ioc_hva_map {
    uint32_t machid;
    uintptr_t hva;
    size_t size;
    int flags;
};

struct nvmm_ioc_gpa_map {
    uint32_t machid;
    uintptr_t hva;
    uint64_t gpa;
    size_t size;
    int prot;
};

#define NVMM_IOC_CAPABILITY     _IOR('N', 0, struct nvmm_ioc_capability)
#define NVMM_IOC_VCPU_CONFIGURE _IOW('N', 6, struct nvmm_ioc_vcpu_configure)
#define NVMM_IOC_VCPU_RUN       _IOWR('N', 10, struct nvmm_ioc_vcpu_run)
#define NVMM_IOC_GPA_MAP        _IOW('N', 11, struct nvmm_ioc_gpa_map)
#define NVMM_IOC_HVA_MAP        _IOW('N', 13, struct nvmm_ioc_hva_map)
#if defined(__NetBSD__)
#define NVMM_IOC_VCPU_CREATE _IOW('N', 4, struct nvmm_ioc_vcpu_create)
#else
#define NVMM_IOC_VCPU_CREATE _IOWR('N', 4, struct nvmm_ioc_vcpu_create)
#endif

#endif

# vmm: one translation unit, one static binary. `make deps` once, then `make`, `make run`, `make check`.
#   make CC=gcc | CC=clang    dynamic, for debugging         make SAN=1    ASan and UBSan (with gcc)
#   make ARCH=aarch64         on x86_64: writes ./vmm-aarch64
#   make HV=nvmm              for NVMM in place of /dev/kvm: writes ./vmm-nvmm
#   make universal            on macOS: for both of its architectures
# macOS, NetBSD, DragonFly (gmake there) and Haiku: `make` and `make install`; tests and the lab are Linux programs.
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)

SYSTEM  ?= $(shell uname -s)
PREFIX  ?= $(if $(filter Haiku,$(SYSTEM)),/boot/system/non-packaged,/usr/local)
WARN    := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror
HEADERS := vmm.h hv_kvm.h hv_hvf.h hv_nvmm.h hv_x86.h host.h boot.h dev_legacy.h dev_pci.h dev_virtio.h dev_vfio.h disk.h debug.h dev_bios.h

ifneq ($(SYSTEM),Linux)
# With the system's compiler and libraries alone, but for libfdt (on macOS, brew install dtc), by which an arm64 kernel is
# told what there is. Without libdeflate neither qcow2 clusters nor kernels that are compressed with it can be read. What
# a compiler warns of there nobody here has seen: no -Werror.
ARCH    ?= $(shell uname -m)
CFLAGS  ?= -O2 -g
WARN    := $(filter-out -Werror,$(WARN))
FDT     ?= $(shell brew --prefix 2>/dev/null)
arm64   := -DBOOT_ARM64 -DBOOT_NO_X86 -isystem $(FDT)/include $(FDT)/lib/libfdt.a
# Haiku's errors are negative; this macro and the library before others turn them.
Haiku   := -D_BSD_SOURCE -DB_USE_POSITIVE_POSIX_ERRORS -lposix_error_mapper -lnetwork -lbsd
MAN1    := $(PREFIX)/$(if $(filter Haiku,$(SYSTEM)),documentation,share)/man/man1
.PHONY: all universal install clean
all: vmm

ifeq ($(SYSTEM),Darwin)
MACOS = $(CC) $(WARN) $(CFLAGS) -mmacosx-version-min=13.0 vmm.c -framework Hypervisor
SIGN  = codesign --force --sign - --entitlements vmm.entitlements # without it the system denies a VM
vmm: vmm.c $(HEADERS) vmm.entitlements
	$(MACOS) -arch $(ARCH) $($(ARCH)) -o $@
	$(SIGN) $@
universal: vmm.c $(HEADERS) vmm.entitlements
	$(MACOS) -arch arm64 $(arm64) -o vmm-arm64
	$(MACOS) -arch x86_64 -o vmm-x86_64
	lipo -create vmm-arm64 vmm-x86_64 -output vmm
	$(SIGN) vmm
else
vmm: vmm.c $(HEADERS)
	$(CC) $(WARN) $(CFLAGS) vmm.c -o $@ $(if $(filter Haiku,$(SYSTEM)),,-pthread) $($(SYSTEM))
endif

install: vmm
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MAN1)
	install -m 755 vmm $(DESTDIR)$(PREFIX)/bin/vmm
	install -m 644 vmm.1 $(DESTDIR)$(MAN1)/vmm.1

clean:
	rm -f vmm vmm-arm64 vmm-x86_64
else

ifneq ($(SAN),)
CC := gcc
else ifeq ($(origin CC),default)
CC := musl-gcc
endif

B       := build
comma   := ,
CFLAGS  ?= -Os -g
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# musl-gcc looks nowhere but in musl; the kernel's headers come after those
KERNEL_HEADERS := -idirafter /usr/include -idirafter /usr/include/$(shell uname -m)-linux-gnu
# Nothing unwinds stacks in the static binaries: the linker drops what libraries bring for that (lean.ld). And data may
# begin in the page of the file in which code ends. On arm64 long
# double is software, with which musl's printf computes; nobody here prints such (tests/test_headers.sh).
LEAN    := -Wl,-T,$(B)/lean.ld -Wl,--gc-sections -Wl,-z,norelro -Wl,-z,noseparate-code -Wl,-z,common-page-size=16 \
	-Wl,--build-id=none
LEAN64  := $(patsubst %,-Wl$(comma)--defsym=__%=abort,addtf3 subtf3 multf3 eqtf2 netf2 fixtfsi fixunstfsi floatsitf \
	floatunsitf extenddftf2)
ifneq ($(findstring musl,$(CC)),)
BUILD := $(KERNEL_HEADERS) -static -s -fno-pie -no-pie -fno-unwind-tables -fno-asynchronous-unwind-tables
endif
ifneq ($(SAN),)
BUILD := $(SANFLAGS)
endif
STATIC = $(if $(filter -static,$(BUILD)),$(LEAN))

# What inflates compressed qcow2 clusters, linked statically everywhere
UNPACK  := -DDISK_LIBDEFLATE
LIBS    := $(shell gcc -print-file-name=libdeflate.a)

# An arm64 kernel is told by a device tree what there is. There: on arm64, and when compiled for it here.
ARM64   := -DBOOT_ARM64 -DBOOT_NO_X86
HOST    := $(shell uname -m)
ARCH    ?= $(HOST)
ifeq ($(HOST),aarch64)
NATIVE  := $(ARM64)
LEAN    += $(LEAN64)
LIBS    += $(shell gcc -print-file-name=libfdt.a)
endif

# The cross compiler is glibc's; it is told where to find musl, and the libraries, of which make deps keeps a copy. On
# arm64 that is the system's compiler, and what it has.
CROSS   := aarch64-linux-gnu-
ROOT    := $(if $(filter aarch64,$(HOST)),/usr,$(B)/arm64/root/usr)
MUSL    := $(ROOT)/lib/aarch64-linux-musl
SHORTER := -fno-move-loop-invariants -fno-thread-jumps # which make this program longer, 1.6 KB
CROSS_BUILD = -nostdinc -isystem $(ROOT)/include/aarch64-linux-musl -isystem $(shell $(CROSS)gcc -print-file-name=include) \
	-idirafter $(ROOT)/include -idirafter $(ROOT)/include/aarch64-linux-gnu -mno-outline-atomics \
	-fno-unwind-tables -fno-asynchronous-unwind-tables -fno-pie -fno-stack-protector $(SHORTER)
CROSS_LINK = -nostdlib -static -no-pie -s $(MUSL)/crt1.o $(MUSL)/crti.o $(1) \
	$(MUSL)/libc.a $(shell $(CROSS)gcc -print-libgcc-file-name) $(MUSL)/crtn.o
CROSS_LIBS := $(patsubst %,$(ROOT)/lib/aarch64-linux-gnu/%.a,libfdt libdeflate)

# Where make deps brought a copy, checks include arm64: in its lab, and pure headers under QEMU's user emulation.
ifneq ($(wildcard $(MUSL)),)
GUESTS64 := $(patsubst guests/arm64/%,$(B)/guests64/%.bin,$(basename $(wildcard guests/arm64/*.S guests/arm64/*.c)))
TESTS64 := $(patsubst %,$(B)/tests64/%,test_vmm test_boot test_boot_arm64 test_console test_debug test_disk test_firmware \
	test_gdb test_gic test_hvf_arm64 test_irqchip test_legacy test_net test_packed test_pci test_primecell test_unzstd \
	test_virtio test_virtio_pci test_x86 fuzz_boot fuzz_boot_arm64 fuzz_debug fuzz_disk fuzz_gdb fuzz_gic fuzz_hvf_arm64 \
	fuzz_legacy fuzz_net fuzz_packed fuzz_pci fuzz_primecell fuzz_unzstd fuzz_virtio fuzz_virtio_pci fuzz_x86)
CHECK64 := vmm-aarch64 $(B)/vmm-hvf-arm64 $(GUESTS64) $(B)/guests64/debug.elf $(TESTS64)
endif

PLAYED  := -Itests/macos -Itests/macos/linux # a framework of macOS that is played by a program here

ifeq ($(HOST),x86_64)
BOOTS   := $(B)/minibios $(B)/guest
SHIM    := $(B)/vmm-nvmm-shim $(B)/vmm-hvf-shim
GUESTS  := $(patsubst guests/%,$(B)/guests/%.bin,$(basename $(wildcard guests/*.S guests/*.c)))
GUESTS  += $(patsubst guests/boot/%.S,$(B)/guests/%.img,$(wildcard guests/boot/*.S))
endif
# Tests of one architecture; those of arm64 are among TESTS64.
OTHERS_x86_64  := %_hvf_arm64.c
OTHERS_aarch64 := %_hvf_arm64.c %_hvf_x86.c %_nvmm.c %_kvm.c $(patsubst %,tests/%.c,test_bios test_halt test_options test_run embed_guest \
	fuzz_options)
OTHERS  := $(OTHERS_$(HOST))
TESTS   := $(patsubst tests/%.c,$(B)/tests/%,$(filter-out $(OTHERS),$(wildcard tests/test_*.c tests/embed_*.c tests/disk_tool.c)))
# host.h's other loops, which run here, too: the one for systems with a kqueue on a stand-in of it, Haiku's with its errors
TESTS   += $(B)/tests/test_host_kqueue $(B)/tests/test_host_poll
TOOLS   := $(patsubst guests/tools/%.c,$(B)/tools/bin/%,$(wildcard guests/tools/*.c))
FUZZERS := $(patsubst tests/%.c,$(B)/tests/%,$(filter-out tests/fuzz_main.c $(OTHERS),$(wildcard tests/fuzz_*.c)))

.PHONY: all run check unit lab bench fuzz hvf-check bsd-check install clean deps dist FORCE
ifneq ($(HV),)
all: vmm-$(HV)
else ifeq ($(ARCH),$(HOST))
all: vmm $(BOOTS)
else
all: vmm-$(ARCH)
endif

vmm: vmm.c $(HEADERS) $(B)/flags
	$(CC) $(WARN) $(CFLAGS) $(BUILD) $(STATIC) $(UNPACK) $(NATIVE) $< -o $@ -pthread $(LIBS)

# The same program on another hypervisor; and with that hypervisor played on /dev/kvm, for the lab.
COMPARED = -DVMM_BACKEND='"tests/shim_compare.h"' -DSHIM_BACKEND='"../hv_$(1).h"'
WRAPS = -Wl,--wrap=open,--wrap=close,--wrap=ioctl,--wrap=mmap,--wrap=munmap
vmm-nvmm: vmm.c $(HEADERS) $(B)/flags
	$(CC) $(WARN) $(CFLAGS) $(BUILD) $(STATIC) $(UNPACK) -DVMM_BACKEND='"hv_nvmm.h"' $< -o $@ -pthread $(LIBS)

$(B)/vmm-nvmm-shim: vmm.c tests/shim_nvmm.c tests/shim_compare.h $(HEADERS) $(B)/flags
	$(CC) $(WARN) $(CFLAGS) $(BUILD) $(STATIC) $(UNPACK) $(call COMPARED,nvmm) vmm.c tests/shim_nvmm.c -o $@ -pthread $(LIBS) \
		$(WRAPS)

# and for macOS on Intel, whose framework is played on that NVMM
$(B)/vmm-hvf-shim: vmm.c tests/shim_hvf_x86.c tests/shim_nvmm.c tests/shim_compare.h $(HEADERS) $(B)/flags
	$(CC) $(WARN) $(CFLAGS) $(BUILD) $(STATIC) $(UNPACK) $(call COMPARED,hvf) -I. $(PLAYED) vmm.c tests/shim_hvf_x86.c \
		tests/shim_nvmm.c -o $@ -pthread $(LIBS) $(WRAPS)

vmm-aarch64: vmm.c $(HEADERS) $(B)/flags
	$(CROSS)gcc $(WARN) $(CFLAGS) $(CROSS_BUILD) $(UNPACK) $(ARM64) $< -o $@ $(LEAN) $(LEAN64) \
		$(call CROSS_LINK,$(CROSS_LIBS))

$(B)/flags: FORCE # rebuilds when the compiler or its flags change
	@mkdir -p $(B)/tests $(B)/tests64 $(B)/guests $(B)/guests64 $(B)/tools/bin
	@echo 'SECTIONS { /DISCARD/ : { *(.eh_frame) } } INSERT BEFORE .text' >$(B)/lean.ld
	@echo '$(CC) $(CFLAGS) $(BUILD) $(LIBS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(BUILD) $(LIBS)' >$@

run: all
	sh tests/run.sh linux

check: all $(SHIM) $(GUESTS) $(TOOLS) $(TESTS) $(FUZZERS) $(CHECK64)
	sh tests/run.sh all

unit: all $(TESTS) $(FUZZERS) $(TESTS64)
	sh tests/run.sh unit

lab: all $(SHIM) $(GUESTS) $(TOOLS) $(filter-out $(TESTS64),$(CHECK64))
	sh tests/run.sh guests

bench: all $(SHIM) $(GUESTS) $(TOOLS)
	sh tests/bench.sh

hvf-check: # compiles and links for macOS, of which there is nothing here; part of make unit
	sh tests/test_systems.sh macos

bsd-check: # the same for others, which are only compiled for
	sh tests/test_systems.sh netbsd dragonfly haiku

fuzz: # libFuzzer, one minute each
	sh tests/fuzz.sh

$(B)/tests/%: tests/%.c $(HEADERS) vmm.c $(wildcard tests/*.h) | $(B)/flags
	gcc $(WARN) -O1 -g $(SANFLAGS) $(UNPACK) -I. $(if $(findstring hvf,$<),$(PLAYED)) $< \
		$(if $(findstring fuzz_,$<),tests/fuzz_main.c) -o $@ -pthread $(LIBS) \
		$(if $(findstring arm64,$<),-l:libfdt.a) $(if $(findstring zydis,$<),-lZydis) $(if $(findstring embed_nvmm,$<),tests/shim_nvmm.c $(WRAPS)) \
		$(if $(findstring test_unzstd,$<),-DTEST_LIBZSTD -l:libzstd.a)

$(B)/tests/embed_nvmm: tests/shim_nvmm.c

$(B)/tests/test_host_kqueue: LOOP := -DHOST_LOOP_KQUEUE -isystem tests/kqueue
$(B)/tests/test_host_poll: LOOP := -DHOST_LOOP_POLL -isystem tests/haiku
$(B)/tests/test_host_kqueue $(B)/tests/test_host_poll: tests/test_host.c host.h vmm.h tests/kqueue/sys/event.h tests/haiku/errno.h | $(B)/flags
	gcc $(WARN) -O1 -g $(SANFLAGS) $(LOOP) $< -o $@ -pthread

# vmm for macOS' framework, which is played on KVM; for the lab's arm64 machine
$(B)/vmm-hvf-arm64: tests/shim_hvf_arm64.c tests/shim_hvf.h vmm.c $(HEADERS) | $(B)/flags
	$(CROSS)gcc $(WARN) -O1 -g $(CROSS_BUILD) $(UNPACK) $(ARM64) -DVMM_BACKEND='"tests/shim_hvf.h"' -I. $(PLAYED) \
		$< vmm.c -o $@ $(call CROSS_LINK,$(CROSS_LIBS))

$(B)/bench/bench_time64: tests/bench_time.c
	$(CROSS)gcc -std=c11 -O2 $(CROSS_BUILD) $< -o $@ $(call CROSS_LINK,)

$(B)/tests64/%: tests/%.c $(HEADERS) $(wildcard tests/*.h) | $(B)/flags
	$(CROSS)gcc $(WARN) -O1 $(CROSS_BUILD) $(UNPACK) -I. $(if $(findstring hvf,$<),$(PLAYED)) $< \
		$(if $(findstring fuzz_,$<),tests/fuzz_main.c) -o $@ \
		$(call CROSS_LINK,$(CROSS_LIBS))

$(B)/tests/fuzz_packed $(B)/tests/fuzz_virtio_pci: tests/fuzz_virtio.c

$(B)/tests/test_bios: | $(B)/minibios

# the mini BIOS; dev_bios.h holds the same bytes, which guests/bios/embed writes there. And what it can boot.
SECTOR = gcc -nostdlib -static -no-pie -Wl,--build-id=none,--oformat=binary,-e,0,-Ttext=
$(B)/minibios: guests/bios/minibios.S | $(B)/flags
	$(SECTOR)0xfc00 $< -o $@
$(B)/guest: guests/boot/hello.S | $(B)/flags
	$(SECTOR)0x7c00 $< -o $@
$(B)/guests/%.img: guests/boot/%.S | $(B)/flags
	$(SECTOR)0x7c00 $< -o $@

GUEST_FLAGS := -O1 -ffreestanding -fno-stack-protector -fno-pic -no-pie -mno-sse -mno-red-zone \
	-fcf-protection=none -nostdlib -static -Wl,--build-id=none,--oformat=binary,-e,0,-Ttext=0x1000
$(B)/guests/%.bin: guests/%.S | $(B)/flags
	gcc $(GUEST_FLAGS) $< -o $@
$(B)/guests/%.bin: guests/%.c $(wildcard guests/*.h) | $(B)/flags
	gcc -std=gnu11 -Wall -Wextra -Werror $(GUEST_FLAGS) $< -o $@

$(B)/guests/forms64.bin: tests/x86_rounds.h vmm.h

# The same for arm64: MMU off, where all memory is Device memory
GUEST64 := $(CROSS)gcc -std=gnu11 -Wall -Wextra -Werror -O1 -ffreestanding -fno-stack-protector -fno-pic -no-pie \
	-mgeneral-regs-only -mstrict-align -nostdlib -static -Wl,--build-id=none,-e,_start
$(B)/guests64/%.elf: guests/arm64/%.c guests/arm64/guest.h | $(B)/flags
	$(GUEST64) -Wl,--section-start=.start=0x40001000,-Ttext=0x40001010 $< -o $@
$(B)/guests64/%.elf: guests/arm64/%.S | $(B)/flags
	$(GUEST64) -Wl,-Ttext=0x40001000 $< -o $@
$(B)/guests64/%.bin: $(B)/guests64/%.elf
	$(CROSS)objcopy -O binary $< $@

# programs for guests and for the lab's machine: they bring no libraries along
$(B)/tools/bin/%: guests/tools/%.c | $(B)/flags
	musl-gcc $(WARN) -O2 $(KERNEL_HEADERS) -static -s $< -o $@

dist: # one-file copies of the headers, vmm.h inlined
	sh tests/dist.sh dist

install: all
	install -D vmm $(DESTDIR)$(PREFIX)/bin/vmm
	install -D -m 644 vmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/vmm.1

deps:
	sh tests/deps.sh

clean:
	rm -rf vmm vmm-aarch64 vmm-nvmm $(SHIM) dist $(B)/tests $(B)/tests64 $(B)/guests64 $(B)/guests $(B)/tools $(B)/flags
endif

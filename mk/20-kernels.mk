# The kernels: PTX for compute_52, embedded in the library, with sm_52 machine code beside it where a ptxas that knows sm_52 is found; and compiled for the host as the
# emulated driver.
#
# KERNEL_COMPILER  clang (default), or nvcc of CUDA 11.0-12.9
# PTXAS            a ptxas that knows sm_52; `none`: do not look for one (tools/get_ptxas.sh fetches one)

KERNEL_COMPILER ?= clang
NVCC ?= nvcc
PTXAS ?=

KERNEL_SRCS := $(sort $(wildcard src/backend/cuda/kernels/*.cu))
KERNEL_NAMES := $(notdir $(KERNEL_SRCS:.cu=))
KERNEL_PTX := $(KERNEL_NAMES:%=$(BUILD)/ptx/%.ptx)
KERNEL_FLAGS := -O3 -DM40_DEVICE_CODE -Iinclude -Isrc

PTXAS_FOUND := $(shell tools/find_ptxas.sh $(BUILD)/gen "$(PTXAS)")
KERNEL_CUBIN := $(if $(PTXAS_FOUND),$(KERNEL_NAMES:%=$(BUILD)/cubin/%.cubin))

ifeq ($(KERNEL_COMPILER),nvcc)
ifneq ($(filter 13.% 14.%,$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')),)
$(error $(NVCC) cannot compile the kernels: CUDA 13 removed Maxwell. Use nvcc 11.0-12.9, or clang)
endif
PTX_COMPILE = $(NVCC) -arch=compute_52 -ptx --fmad=false -Wno-deprecated-gpu-targets $(KERNEL_FLAGS) -MMD -MP -MF $(@:.ptx=.d) -MT $@ -o $@ $<
else
# --cuda-path: newer clangs would raise the PTX version to that of a toolkit they find, beyond what old drivers read.
PTX_COMPILE = $(CLANG) -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-path=/nonexistent --cuda-gpu-arch=sm_52 -Xclang -target-feature -Xclang +ptx60 -ffp-contract=off \
	-Wno-unknown-cuda-version -Wall -Wextra $(WERROR) -Wshadow -Wno-unused-function $(KERNEL_FLAGS) -MMD -MP -MF $(@:.ptx=.d) -MT $@ -S -o $@ $<
endif

$(BUILD)/ptx/%.ptx: src/backend/cuda/kernels/%.cu
	@mkdir -p $(@D)
	$(PTX_COMPILE)

$(BUILD)/cubin/%.cubin: $(BUILD)/ptx/%.ptx
	@mkdir -p $(@D)
	$(PTXAS_FOUND) -arch=sm_52 --fmad=false -o $@ $<

.PHONY: ptx cubin check-ptx
ptx: $(KERNEL_PTX)
check-ptx: $(KERNEL_PTX)
	tools/check_ptx.sh $(KERNEL_PTX)
cubin: $(KERNEL_CUBIN)

# ---- embedding ----

KERNEL_OBJS := $(BUILD)/obj/gen/kernel_images.o

# Changes when a kernel file comes or goes, or machine code does.
KERNEL_LIST := $(if $(KERNEL_CUBIN),cubin,none) $(KERNEL_NAMES)
.PHONY: FORCE
FORCE:
$(BUILD)/gen/kernels.list: FORCE
	@mkdir -p $(@D)
	@echo '$(KERNEL_LIST)' | cmp -s - $@ || echo '$(KERNEL_LIST)' >$@

$(BUILD)/gen/kernel_images.S: $(BUILD)/gen/kernels.list tools/embed_kernels.sh
	tools/embed_kernels.sh $(BUILD) $(KERNEL_LIST) >$@

$(BUILD)/obj/gen/kernel_images.o: $(BUILD)/gen/kernel_images.S $(KERNEL_PTX) $(KERNEL_CUBIN)
	@mkdir -p $(@D)
	$(CC) -c -o $@ $<

$(LIB_A) $(LIB_SO): $(KERNEL_OBJS)

# The images alone, for test programs.
KERNELS_SO := $(BUILD)/libm40-kernels.so
$(KERNELS_SO): $(KERNEL_OBJS)
	$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,$(notdir $@) -o $@ $^
TEST_LDFLAGS := -Wl,-rpath,'$$ORIGIN/..'

# ---- the emulated driver ----

EMU_SRCS := $(sort $(wildcard src/backend/cuda/emu/*.c))
EMU_TEST_SRCS := $(sort $(wildcard tests/emu_kernels/*.cu))
EMU_OBJS := $(EMU_SRCS:%.c=$(BUILD)/emu/%.o) $(KERNEL_SRCS:%.cu=$(BUILD)/emu/%.o)
EMU_TEST_OBJS := $(EMU_TEST_SRCS:%.cu=$(BUILD)/emu/%.o)
# It runs where it was built: fmaf as one instruction makes it several times faster.
EMU_ARCH := $(shell grep -qw fma /proc/cpuinfo 2>/dev/null && echo -mavx2 -mfma -mf16c)
EMU_CFLAGS = $(ALL_CFLAGS) -I. -std=gnu17 $(EMU_ARCH) -Wno-unused-function
EMU_LIB := $(BUILD)/libcuda-emu.so
EMU_TEST_LIB := $(BUILD)/libcuda-emu-test.so

.PHONY: emu
emu: $(EMU_LIB) $(EMU_TEST_LIB)
all: emu

$(BUILD)/emu/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(EMU_CFLAGS) -c -o $@ $<

# -g1: lines without variables, whose bookkeeping takes half of the compiler's time on kernels under sanitizers.
$(BUILD)/emu/%.o: %.cu
	@mkdir -p $(@D)
	$(CC) $(EMU_CFLAGS) -g1 -x c -c -o $@ $<

$(EMU_LIB): $(EMU_OBJS)
# With the deliberately wrong kernels of tests/emu_kernels.
$(EMU_TEST_LIB): $(EMU_OBJS) $(EMU_TEST_OBJS)
$(EMU_LIB) $(EMU_TEST_LIB):
	$(CC) $(ALL_LDFLAGS) -shared -o $@ $^ -lm -lpthread

# Tests open it at run time.
$(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c)): | $(EMU_LIB)
$(BUILD)/tests/test_emu: | $(EMU_TEST_LIB)

-include $(KERNEL_PTX:.ptx=.d) $(EMU_OBJS:.o=.d) $(EMU_TEST_OBJS:.o=.d)

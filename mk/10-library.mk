# libm40llm.a, libm40llm.so: everything under src/ but the command line and the emulated driver.

LIB_DIRS := base tensor gguf tokenizer tokenizer/template backend backend/cpu backend/cuda model engine api
LIB_SRCS := $(sort $(foreach d,$(LIB_DIRS),$(wildcard src/$(d)/*.c)))
LIB_OBJS := $(LIB_SRCS:%.c=$(BUILD)/obj/%.o)
LIB_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -ldl -lpthread
LIB_A := $(BUILD)/libm40llm.a
LIB_SO := $(BUILD)/libm40llm.so.0

.PHONY: all lib
all: lib

lib: $(LIB_A) $(LIB_SO)

# Everything but the CPU variants is plain x86-64. gcc turns loops of any length into vectors at -O3 only.
$(BUILD)/obj/src/backend/cpu/%_avx2.o: ARCH := -mavx2 -mfma -mf16c -O3
$(BUILD)/obj/src/backend/cpu/%_avx512.o: ARCH := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -O3
$(BUILD)/obj/src/backend/cpu/%.o: ALL_CFLAGS += $(OPENMP)
ifeq ($(SAN),thread) # one thread computes: its arithmetic need not be watched
$(BUILD)/obj/src/backend/cpu/%.o: SANFLAGS :=
$(BUILD)/obj/src/backend/cpu/%.o: OPT := -O2
endif
# Copies weights on several cores.
$(BUILD)/obj/src/backend/cuda/cuda_upload.o: ALL_CFLAGS += $(OPENMP)
$(BUILD)/obj/src/tokenizer/%.o: ALL_CFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ARCH) -c -o $@ $<

# Without the kernels, which test programs share as libm40-kernels.so instead of holding 11 MB each.
CORE_A := $(BUILD)/libm40llm-core.a
$(CORE_A): $(LIB_OBJS)
$(LIB_A): $(LIB_OBJS) $(KERNEL_OBJS)
$(CORE_A) $(LIB_A):
	@rm -f $@
	$(AR) rcs $@ $^

$(LIB_SO): $(LIB_OBJS) $(KERNEL_OBJS) src/api/exports.map
	$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,$(notdir $@) -Wl,--version-script=src/api/exports.map -o $@ $(LIB_OBJS) $(KERNEL_OBJS) $(OPENMP) $(LIB_LIBS)
	ln -sf $(notdir $@) $(BUILD)/libm40llm.so

-include $(LIB_OBJS:.o=.d)

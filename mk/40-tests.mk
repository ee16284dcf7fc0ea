# Tests. tests/unit/test_X.c and tests/golden/test_X.c each make one program, linked with the static library, cmocka, and tests/harness/*.c.

HARNESS_SRCS := $(wildcard tests/harness/*.c)
HARNESS_OBJS := $(HARNESS_SRCS:%.c=$(BUILD)/obj/%.o)
UNIT_SRCS := $(wildcard tests/unit/test_*.c)
UNIT_BINS := $(UNIT_SRCS:tests/unit/%.c=$(BUILD)/tests/%)
TEST_LIBS := $(shell pkg-config --libs $(TEST_PKGS) 2>/dev/null)

$(BUILD)/obj/tests/%.o: ALL_CFLAGS += -Itests $(shell pkg-config --cflags $(TEST_PKGS) 2>/dev/null)

$(UNIT_BINS): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(HARNESS_OBJS) $(CORE_A) $(KERNELS_SO)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(TEST_LDFLAGS) -o $@ $^ $(OPENMP) $(TEST_LIBS) $(LIB_LIBS)

# A cuBLAS for the emulated driver, opened at run time.
FAKE_CUBLAS := $(BUILD)/libcublas-fake.so
$(FAKE_CUBLAS): $(BUILD)/obj/tests/fake_cublas/fake_cublas.o
	$(CC) $(ALL_LDFLAGS) -shared -o $@ $^ -ldl
$(BUILD)/tests/test_cublas $(BUILD)/tests/test_cli: | $(FAKE_CUBLAS) $(EMU_TEST_LIB)
-include $(BUILD)/obj/tests/fake_cublas/fake_cublas.d

# The same of NVML.
FAKE_NVML := $(BUILD)/libnvidia-ml-fake.so
$(FAKE_NVML): $(BUILD)/obj/tests/fake_nvml/fake_nvml.o
	$(CC) $(ALL_LDFLAGS) -shared -o $@ $^
$(BUILD)/tests/test_nvml: | $(FAKE_NVML)
-include $(BUILD)/obj/tests/fake_nvml/fake_nvml.d

# The server's parts that are no face on the network.
$(BUILD)/tests/test_thinking: $(BUILD)/obj/src/server/thinking.o $(BUILD)/obj/src/server/thinking_markers.o
$(BUILD)/tests/test_nvml: $(BUILD)/obj/src/server/nvml.o

.PHONY: unit
unit: $(UNIT_BINS)

-include $(UNIT_SRCS:%.c=$(BUILD)/obj/%.d) $(HARNESS_OBJS:.o=.d)

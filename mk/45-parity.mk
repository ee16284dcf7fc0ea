# m40-parity: every backend's operations against the scalar CPU backend, and that against doubles. See tests/parity/parity.h.

PARITY_SRCS := $(wildcard tests/parity/*.c)
PARITY_OBJS := $(PARITY_SRCS:%.c=$(BUILD)/obj/%.o)
PARITY_BIN := $(BUILD)/tests/m40-parity

$(PARITY_BIN): $(PARITY_OBJS) $(HARNESS_OBJS) $(CORE_A) $(KERNELS_SO)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(TEST_LDFLAGS) -o $@ $^ $(OPENMP) $(TEST_LIBS) $(LIB_LIBS)

$(PARITY_BIN): | $(FAKE_CUBLAS)

.PHONY: parity
parity: $(PARITY_BIN)
	$(PARITY_BIN)

-include $(PARITY_OBJS:.o=.d)

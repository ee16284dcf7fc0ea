# m40-parity: every backend's operations against the scalar CPU backend, and that against doubles. See tests/parity/parity.h.

comma := ,
PARITY_SRCS := $(wildcard tests/parity/*.c)
PARITY_OBJS := $(PARITY_SRCS:%.c=$(BUILD)/obj/%.o)
PARITY_BIN := $(BUILD)/tests/m40-parity
# The reference is weak, which alone would not bring it in from an archive.
PARITY_CUDA := $(if $(wildcard src/backend/cuda/cuda_backend.c),-Wl$(comma)-u$(comma)m40_backend_open_cuda)

$(PARITY_BIN): $(PARITY_OBJS) $(HARNESS_OBJS) $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(PARITY_CUDA) -o $@ $^ $(OPENMP) $(TEST_LIBS) $(LIB_LIBS)

.PHONY: parity
parity: $(PARITY_BIN)
	$(PARITY_BIN)

-include $(PARITY_OBJS:.o=.d)

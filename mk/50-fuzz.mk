# Fuzz targets: tests/fuzz/fuzz_X.c. Each makes $(BUILD)/tests/replay_X, which runs the stored inputs of tests/fuzz/corpus/X under any compiler (`make replay`), and, with clang's
# libFuzzer, $(BUILD)/libfuzzer/tests/fuzz_X (`make fuzz`: FUZZ_SECONDS for each).

FUZZ_SRCS := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_NAMES := $(FUZZ_SRCS:tests/fuzz/fuzz_%.c=%)
FUZZ_BINS := $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz_%)
REPLAY_BINS := $(FUZZ_NAMES:%=$(BUILD)/tests/replay_%)
FUZZ_SECONDS ?= 60

$(REPLAY_BINS): $(BUILD)/tests/replay_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(LIB_LIBS)

$(FUZZ_BINS): $(BUILD)/tests/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(OPENMP) $(LIB_LIBS)

# The server's parsers of requests. Its objects need the library, which stands before them: once more behind them.
SERVER_OBJS := $(filter $(BUILD)/obj/src/server/%,$(CLI_OBJS)) $(PAGE_OBJ)
REQUEST_FUZZ_BINS := $(BUILD)/tests/replay_request $(BUILD)/tests/fuzz_request
$(BUILD)/obj/tests/fuzz/fuzz_request.o: ALL_CFLAGS += $(shell pkg-config --cflags $(CLI_PKGS) 2>/dev/null)
$(REQUEST_FUZZ_BINS): $(SERVER_OBJS)
$(REQUEST_FUZZ_BINS): private LIB_LIBS := $(LIB_A) $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null) $(LIB_LIBS)

.PHONY: replay fuzz fuzz-bins
replay: $(REPLAY_BINS)
	@for name in $(FUZZ_NAMES); do $(BUILD)/tests/replay_$$name tests/fuzz/corpus/$$name || exit 1; done

fuzz-bins: $(FUZZ_BINS)

# New inputs go to the build folder; those worth keeping are copied to tests/fuzz/corpus by hand.
fuzz:
	$(MAKE) fuzz-bins CC=$(CLANG) SAN=1 BUILD=$(BUILD)/libfuzzer CFLAGS='-g -fsanitize=fuzzer-no-link'
	@for name in $(FUZZ_NAMES); do mkdir -p $(BUILD)/libfuzzer/found/$$name; \
		$(BUILD)/libfuzzer/tests/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/libfuzzer/found/ \
			$(BUILD)/libfuzzer/found/$$name tests/fuzz/corpus/$$name || exit 1; done

-include $(FUZZ_SRCS:%.c=$(BUILD)/obj/%.d) $(BUILD)/obj/tests/fuzz/replay.d

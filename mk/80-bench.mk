# sm52-cost: what the kernels cost on a Tesla M40, from their sm_52 machine code. `make sm52-cost` makes the listings again and prints the table; it needs ptxas and
# nvdisasm of CUDA 11.0-12.9 (tools/get_ptxas.sh fetches both). The program itself needs neither.
#
# NVDISASM  default: the one beside ptxas

SM52_SRCS := bench/sm52_parse.c bench/sm52_model.c bench/sm52_predict.c
SM52_OBJS := $(SM52_SRCS:%.c=$(BUILD)/obj/%.o)
SM52_COST := $(BUILD)/sm52-cost
SM52_LISTINGS := $(KERNEL_NAMES:%=$(BUILD)/sm52/%.sass)
NVDISASM ?= $(if $(PTXAS_FOUND),$(dir $(PTXAS_FOUND))nvdisasm)

$(BUILD)/obj/bench/%.o $(BUILD)/obj/tests/unit/test_sm52_cost.o: ALL_CFLAGS += -I.

$(SM52_COST): $(BUILD)/obj/bench/sm52_cost.o $(SM52_OBJS) $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(LIB_LIBS)

$(BUILD)/sm52/%.sass: $(BUILD)/ptx/%.ptx tools/sm52_listing.sh
	@mkdir -p $(@D)
	@test -x "$(NVDISASM)" || { echo "no nvdisasm beside ptxas: run tools/get_ptxas.sh" >&2; exit 1; }
	tools/sm52_listing.sh $(PTXAS_FOUND) $(NVDISASM) $< >$@.tmp
	@mv $@.tmp $@

.PHONY: sm52-cost sm52-listings
sm52-listings: $(SM52_LISTINGS)
sm52-cost: $(SM52_COST) $(SM52_LISTINGS)
	@$(SM52_COST) $(SM52_LISTINGS)

# Its objects need the library, which stands before them in the tests' rule: once more behind them.
$(BUILD)/tests/test_sm52_cost: $(SM52_OBJS)
$(BUILD)/tests/test_sm52_cost: private LIB_LIBS := $(LIB_A) $(LIB_LIBS)

-include $(SM52_OBJS:.o=.d) $(BUILD)/obj/bench/sm52_cost.d

# bench-kernels: the operations of the CUDA backend on a card, against its measured limits. `make bench-kernels BENCH_ARGS='--types q4_k --tokens 1,8'` runs it.

BENCH_ARGS ?=
BENCH_SRCS := bench/bench_kernels.c bench/bench_device.c bench/bench_cases.c bench/bench_experts.c bench/bench_load.c bench/bench_report.c
BENCH_OBJS := $(BENCH_SRCS:%.c=$(BUILD)/obj/%.o)
BENCH_BIN := $(BUILD)/bench-kernels

$(BENCH_BIN): $(BENCH_OBJS) $(CORE_A) $(KERNELS_SO)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -Wl,-rpath,'$$ORIGIN' -o $@ $^ $(OPENMP) $(LIB_LIBS)

.PHONY: bench-kernels
bench-kernels: $(BENCH_BIN)
	$(BENCH_BIN) $(BENCH_ARGS)

all-tests: $(BENCH_BIN)

-include $(BENCH_OBJS:.o=.d)

# bench-engine: many requests at once. `make bench-engine`, then build/bench-engine MODEL.

BENCH_ENGINE := $(BUILD)/bench-engine
$(BENCH_ENGINE): $(BUILD)/obj/bench/bench_engine.o $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(LIB_LIBS)

.PHONY: bench-engine
bench-engine: $(BENCH_ENGINE)

all-tests: $(BENCH_ENGINE)

-include $(BUILD)/obj/bench/bench_engine.d

# bench-serve: a load generator for m40llm serve. `make bench-serve`, then build/bench-serve --port P --streams N.

BENCH_SERVE := $(BUILD)/bench-serve
BENCH_SERVE_OBJS := $(patsubst %,$(BUILD)/obj/bench/%.o,bench_serve sse_client bench_times)
$(BENCH_SERVE_OBJS): ALL_CFLAGS += $(shell pkg-config --cflags jansson 2>/dev/null)
$(BENCH_SERVE): $(BENCH_SERVE_OBJS) $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(LIB_LIBS)

.PHONY: bench-serve
bench-serve: $(BENCH_SERVE)

all-tests: $(BENCH_SERVE)

-include $(BENCH_SERVE_OBJS:.o=.d)

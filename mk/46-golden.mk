# tests/golden/test_X.c each make one program, as unit tests do; the other files of the folder are linked with all of them.

GOLDEN_SRCS := $(wildcard tests/golden/test_*.c)
GOLDEN_OBJS := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(GOLDEN_SRCS),$(wildcard tests/golden/*.c)))
GOLDEN_BINS := $(GOLDEN_SRCS:tests/golden/%.c=$(BUILD)/tests/%)

$(GOLDEN_BINS): $(BUILD)/tests/%: $(BUILD)/obj/tests/golden/%.o $(GOLDEN_OBJS) $(HARNESS_OBJS) $(CORE_A) $(KERNELS_SO)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(TEST_LDFLAGS) -o $@ $^ $(OPENMP) $(TEST_LIBS) $(LIB_LIBS)

.PHONY: golden
golden: $(GOLDEN_BINS)

-include $(GOLDEN_SRCS:%.c=$(BUILD)/obj/%.d) $(GOLDEN_OBJS:.o=.d)

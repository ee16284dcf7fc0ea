# Black-box tests: of the command line, one program, tests/cli/*.c, that runs $(CLI); and of m40llm.h, a program linked with the shared library alone.
# And what the library's random models are made with.

$(BUILD)/obj/src/model/synth.o: ALL_CFLAGS += $(OPENMP)

CLI_TEST_SRCS := $(wildcard tests/cli/*.c)
CLI_TEST_OBJS := $(CLI_TEST_SRCS:%.c=$(BUILD)/obj/%.o)
CLI_TEST_BIN := $(BUILD)/tests/test_cli
HEADER_TEST_OBJ := $(BUILD)/obj/tests/header/test_public_header.o
HEADER_TEST_BIN := $(BUILD)/tests/test_public_header
CLI_TEST_BINS := $(CLI_TEST_BIN) $(HEADER_TEST_BIN)

$(CLI_TEST_BIN): $(CLI_TEST_OBJS) $(HARNESS_OBJS) $(LIB_A) $(CLI)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(CLI_TEST_OBJS) $(HARNESS_OBJS) $(LIB_A) $(OPENMP) $(TEST_LIBS) $(LIB_LIBS)

# X(name) for each function of the header.
$(BUILD)/gen/public_functions.h: include/m40llm.h
	@mkdir -p $(@D)
	sed -n 's/^M40LLM_API [^(]*[ *]\(m40llm_[a-z0-9_]*\)(.*/X(\1)/p' $< >$@

# The header is C17 and C++ without a warning and without anything else of ours.
$(BUILD)/gen/header.checked: include/m40llm.h
	@mkdir -p $(@D)
	echo '#include <m40llm.h>' | $(CC) -std=c17 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c -
	echo '#include <m40llm.h>' | $(CLANG) -std=c++11 -Wall -Wextra -Wpedantic -Werror -Iinclude -fsyntax-only -x c++ -
	@touch $@

$(HEADER_TEST_OBJ): ALL_CFLAGS += -D_GNU_SOURCE
$(HEADER_TEST_OBJ): $(BUILD)/gen/public_functions.h $(BUILD)/gen/header.checked

$(HEADER_TEST_BIN): $(HEADER_TEST_OBJ) $(BUILD)/obj/tests/harness/harness.o $(LIB_SO)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(HEADER_TEST_OBJ) $(BUILD)/obj/tests/harness/harness.o -L$(BUILD) -lm40llm -Wl,-rpath,'$$ORIGIN/..' $(TEST_LIBS) -ldl

.PHONY: cli-tests
cli-tests: $(CLI_TEST_BINS)

-include $(CLI_TEST_OBJS:.o=.d) $(HEADER_TEST_OBJ:.o=.d)

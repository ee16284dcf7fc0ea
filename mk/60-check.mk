# make check: every test, on the emulated driver and on a card where there is one. The list of what runs is tests/list.sh.

SAN_BUILD := $(BUILD)/san
TEST_JOBS ?= $(JOBS)

TSAN_BUILD := $(BUILD)/tsan
TSAN_TESTS := test_engine test_engine_many

.PHONY: tsan check check-full quick-check check-built check-full-built all-tests
all-tests: lib $(CLI) $(EMU_LIB) $(EMU_TEST_LIB) $(FAKE_CUBLAS) $(FAKE_NVML) $(UNIT_BINS) $(GOLDEN_BINS) $(PARITY_BIN) $(CLI_TEST_BINS) $(REPLAY_BINS)

# The packages first, then a new make: what it asks pkg-config must be there.
check:
	tools/install_deps.sh test
	$(MAKE) --no-print-directory check-built

check-full:
	tools/install_deps.sh test
	$(MAKE) --no-print-directory check-full-built

check-built check-full-built:
	$(MAKE) --no-print-directory -s -j$(JOBS) all-tests
	$(MAKE) --no-print-directory -s -j$(JOBS) SAN=1 BUILD=$(SAN_BUILD) all-tests
	tests/list.sh $(BUILD) $(SAN_BUILD) $(if $(filter check-full%,$@),full,check) | tests/run.sh $(BUILD)/logs -j $(TEST_JOBS)
	$(if $(filter check-full%,$@),$(MAKE) --no-print-directory tsan)

quick-check:
	$(MAKE) --no-print-directory -s -j$(JOBS) all-tests
	tests/list.sh $(BUILD) none quick | tests/run.sh $(BUILD)/logs-quick -j $(TEST_JOBS)

# The engine's and the server's threads under ThreadSanitizer.
tsan:
	$(MAKE) --no-print-directory -s -j$(JOBS) SAN=thread BUILD=$(TSAN_BUILD) $(TSAN_BUILD)/m40llm $(TSAN_TESTS:%=$(TSAN_BUILD)/tests/%)
	{ for t in $(TSAN_TESTS); do echo "tsan-$$t 600 $(TSAN_BUILD)/tests/$$t"; done; \
		for t in completions access bad_input; do echo "tsan-server-$$t 600 M40LLM_BIN=$(TSAN_BUILD)/m40llm python3 tests/server/test_$$t.py"; done; } | tests/run.sh $(BUILD)/logs-tsan -j $(TEST_JOBS)

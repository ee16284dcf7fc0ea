# Heavier proof of the server, beside make check. check-openai: OpenAI's own Python client talks to it. soak: 200 streams at once, then SOAK_SECONDS of clients that come, leave and misbehave; with
# AddressSanitizer and ThreadSanitizer a tenth of that. The last figures are in docs/validation.md.

OPENAI_VENV := $(BUILD)/openai
SOAK_SECONDS ?= 600
SOAK_SAN_SECONDS ?= $(shell expr $(SOAK_SECONDS) / 10)

$(OPENAI_VENV)/installed: tests/server/openai.txt
	@rm -rf $(OPENAI_VENV)
	$(PYTHON) -m venv $(OPENAI_VENV)
	$(OPENAI_VENV)/bin/pip install -q -r $<
	@touch $@

.PHONY: check-openai soak soak-plain soak-san soak-tsan
check-openai: $(OPENAI_VENV)/installed $(CLI)
	echo "server-openai 120 M40LLM_BIN=$(CLI) $(OPENAI_VENV)/bin/python tests/server/test_openai.py" | tests/run.sh $(BUILD)/logs-openai

soak: soak-plain soak-san soak-tsan

soak-plain: $(CLI) $(BENCH_SERVE)
	M40LLM_BIN=$(CLI) $(PYTHON) tests/server/soak.py --seconds $(SOAK_SECONDS) --bench $(BENCH_SERVE)

soak-san: $(BENCH_SERVE)
	$(MAKE) --no-print-directory -s -j$(JOBS) SAN=1 BUILD=$(SAN_BUILD) $(SAN_BUILD)/m40llm
	M40LLM_BIN=$(SAN_BUILD)/m40llm $(PYTHON) tests/server/soak.py --seconds $(SOAK_SAN_SECONDS) --bench $(BENCH_SERVE) --sanitized

soak-tsan: $(BENCH_SERVE)
	$(MAKE) --no-print-directory -s -j$(JOBS) SAN=thread BUILD=$(TSAN_BUILD) $(TSAN_BUILD)/m40llm
	M40LLM_BIN=$(TSAN_BUILD)/m40llm $(PYTHON) tests/server/soak.py --seconds $(SOAK_SAN_SECONDS) --bench $(BENCH_SERVE) --sanitized

# make demo: the bundled model writes a text. make bundle: a folder that runs elsewhere. make help.

DEMO_PROMPT ?= The old man sat by the fire and

.PHONY: demo demo-built bundle help clean
demo:
	@tools/install_deps.sh build
	@$(MAKE) --no-print-directory -s -j$(JOBS) WERROR= $(CLI)
	@$(CLI) run models/demo.gguf -p "$(DEMO_PROMPT)" -n 160 --echo --seed 7

# Program, tests, data and the shared libraries they need; check.sh in it runs the tests there. Nothing but the NVIDIA driver need be installed.
bundle:
	tools/install_deps.sh test
	$(MAKE) --no-print-directory -s -j$(JOBS) all-tests
	tools/make_bundle.sh $(BUILD) bundle

help:
	@echo 'make demo         build, and let the bundled model write a text'
	@echo 'make check        build and run every test (8 minutes on 2 cores at most)'
	@echo 'make quick-check  the unit tests and fuzz corpora only'
	@echo 'make check-full   all seeds, windows and sanitizers'
	@echo 'make tsan         the engine under ThreadSanitizer'
	@echo 'make check-openai the server through the official Python client of OpenAI (fetches it)'
	@echo 'make soak         the server for SOAK_SECONDS=600 under clients that come, leave and misbehave'
	@echo 'make check-page   the chat page in a headless Chromium'
	@echo 'make fuzz         libFuzzer for FUZZ_SECONDS=60 each'
	@echo 'make bundle       a folder that runs on another x86-64 Linux'
	@echo 'make all          program and libraries in build/'
	@echo 'make install      the same, a header and a systemd unit in PREFIX=/usr/local; make uninstall takes them away'
	@echo 'tools/get_ptxas.sh fetches a ptxas that makes sm_52 machine code (optional)'

clean:
	rm -rf $(BUILD) bundle

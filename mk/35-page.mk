# The chat page: src/server/page/ as one HTML file, held by the program. `make check-page` drives it in a headless Chromium.

PAGE_DIR := $(BUILD)/gen/page
PAGE_OBJ := $(BUILD)/obj/gen/chat_page.o

$(PAGE_DIR)/chat_page.h: $(wildcard src/server/page/*) tools/embed_page.sh
	tools/embed_page.sh src/server/page $(PAGE_DIR)

$(PAGE_OBJ): $(PAGE_DIR)/chat_page.h
	@mkdir -p $(@D)
	$(CC) -c -o $@ $(PAGE_DIR)/chat_page.S

$(BUILD)/obj/src/server/chat_page.o: ALL_CFLAGS += -I$(PAGE_DIR)
$(BUILD)/obj/src/server/chat_page.o: $(PAGE_DIR)/chat_page.h

$(CLI): $(PAGE_OBJ)

.PHONY: check-page
check-page: $(CLI)
	M40LLM_BIN=$(CLI) $(PYTHON) tests/server/test_page.py

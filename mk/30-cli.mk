# build/m40llm: the command line and the server.

CLI_SRCS := $(sort $(wildcard src/cli/*.c src/server/*.c))
CLI_OBJS := $(CLI_SRCS:%.c=$(BUILD)/obj/%.o)
CLI := $(BUILD)/m40llm

all: $(CLI)

$(BUILD)/obj/src/cli/%.o $(BUILD)/obj/src/server/%.o: ALL_CFLAGS += $(shell pkg-config --cflags $(CLI_PKGS) 2>/dev/null)

$(CLI): $(CLI_OBJS) $(LIB_A)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null) $(LIB_LIBS)

-include $(CLI_OBJS:.o=.d)

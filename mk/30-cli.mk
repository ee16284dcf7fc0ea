# build/m40llm: the command line and the server.

# Chats are typed with libedit where it is there, and with the terminal's own editing where it is not.
LIBEDIT := $(shell pkg-config --exists libedit 2>/dev/null && echo libedit)
CLI_PKGS += $(LIBEDIT)
CLI_SRCS := $(filter-out src/cli/line_$(if $(LIBEDIT),getline,libedit).c,$(sort $(wildcard src/cli/*.c src/server/*.c)))
CLI_OBJS := $(CLI_SRCS:%.c=$(BUILD)/obj/%.o)
CLI := $(BUILD)/m40llm

all: $(CLI)

$(BUILD)/obj/src/cli/%.o $(BUILD)/obj/src/server/%.o: ALL_CFLAGS += $(shell pkg-config --cflags $(CLI_PKGS) 2>/dev/null)

$(CLI): $(CLI_OBJS) $(LIB_A)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(OPENMP) $(shell pkg-config --libs $(CLI_PKGS) 2>/dev/null) $(LIB_LIBS)

-include $(CLI_OBJS:.o=.d)

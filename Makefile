# m40-llm. The two commands to know: `make demo` and `make check`. `make help` lists the rest.
#
# BUILD  where everything is built (default build)
# CC     host compiler, gcc or clang
# CLANG  compiler of the kernels (PTX)
# SAN=1  AddressSanitizer and UBSan (use another BUILD)
# SAN=thread  ThreadSanitizer, without OpenMP, whose barriers it does not understand (use another BUILD)

BUILD ?= build
CC ?= cc
AR ?= ar
CLANG ?= clang
PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

PKGS := libpcre2-8 libutf8proc jansson
CLI_PKGS := jansson libmicrohttpd libutf8proc
TEST_PKGS := cmocka jansson

# WERROR= for a compiler newer than this code.
WERROR ?= -Werror
WARN := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef -Wwrite-strings -Wno-unknown-pragmas -Wno-pass-failed
# The numerical contract: no contraction, no fast-math.
FLOAT := -ffp-contract=off -fno-fast-math
INCLUDES := -Iinclude -Isrc -I$(BUILD)/gen
ifeq ($(SAN),1)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT ?= -O1
else ifeq ($(SAN),thread)
WARN += -Wno-unused -Wno-unused-parameter # what only a pragma of OpenMP uses
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
OPT ?= -O1
OPENMP ?=
else
OPT ?= -O2
endif
OPENMP ?= -fopenmp
CFLAGS ?= -g
ALL_CFLAGS = -std=c17 $(OPT) $(CFLAGS) $(WARN) $(FLOAT) $(SANFLAGS) $(INCLUDES) -fPIC -fvisibility=hidden -MMD -MP
ALL_LDFLAGS = $(SANFLAGS) $(LDFLAGS)

include $(wildcard mk/*.mk)

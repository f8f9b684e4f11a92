# dfs: build, check and install. `make help` lists the targets.
ifeq ($(origin CC),default)
CC      := gcc
endif
MODE    ?= release
B       := build/$(notdir $(CC))-$(MODE)

CPPFLAGS += -I. -D_GNU_SOURCE $(shell pkg-config --cflags fuse3 libuv openssl libisal)
LDLIBS  += -lfuse3 -lnng -lraft -luv -llmdb -lmicrohttpd -lisal -lxxhash -lcrypto -lpthread
CFLAGS  += -std=c11 -g -fno-omit-frame-pointer -fno-common -fstack-protector-strong -ffunction-sections
WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings \
           -Wundef -Wvla -Wformat=2 -Wredundant-decls
# Sanitizers' own code hides from gcc what is never NULL and always set; the release build sees it.
WARN    += $(if $(filter asan tsan,$(MODE)),-Wno-maybe-uninitialized,-Wnull-dereference)
ifneq (,$(findstring clang,$(shell $(CC) --version)))
WARN    += -Wthread-safety -Wimplicit-fallthrough -Wno-string-conversion
else
WARN    += -Wduplicated-cond -Wlogical-op -Wimplicit-fallthrough=5
endif

faults       := -DDFS_FAULTS -DDFS_SLOW_ASSERT
mode_release := -O2 -D_FORTIFY_SOURCE=2
mode_debug   := -O0 $(faults)
mode_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all $(faults)
mode_tsan    := -O1 -fsanitize=thread -DDFS_FAULTS
# with CC=clang only: what `make fuzz` builds
mode_fuzz    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize=fuzzer-no-link $(faults)
ifndef mode_$(MODE)
$(error MODE=$(MODE): want release, debug, asan, tsan or fuzz)
endif
CFLAGS  += $(mode_$(MODE)) $(WARN) $(if $(WERROR),-Werror)
LDFLAGS += $(filter -fsanitize%,$(mode_$(MODE))) -Wl,--gc-sections

SRC   := $(sort $(shell find cluster replication fs -name '*.c'))
LIB   := $(filter-out fs/main.c,$(SRC))
HELP  := $(wildcard test/wire/*.c)
UNIT  := $(patsubst test/unit/%.c,$(B)/unit/%,$(wildcard test/unit/*_test.c))
FUZZ  := $(patsubst test/fuzz/%.c,$(B)/fuzz/%,$(filter-out test/fuzz/replay.c,$(wildcard test/fuzz/*.c)))
SIM   := $(wildcard test/sim/*.c)
BATS  := $(wildcard test/bats/*.bats)

# The state machine and its like: no data race can be in them, and they are slow with the race detector.
PURE     := acl balance compact conf extmap json lock_table mapdb members ns_attr ns_audit ns_content \
            ns_model ns_quota ns_range ns_replay ns_session ns perm placement reconcile repair rule wire
THREADED := $(filter-out $(PURE:%=$(B)/unit/%_test),$(UNIT))

# V=1 shows the commands.
Q    := $(if $(V),,@)
say   = $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,@printf '  %-5s %s\n' $(1) $(2))

all: build/dfs  ## build the binary

build/dfs: $(B)/dfs
	@ln -sf $(notdir $(B))/dfs $@
# The link tells which MODE was built last.
ifneq ($(shell readlink build/dfs),$(notdir $(B))/dfs)
build/dfs: FORCE
endif
$(B)/dfs: $(B)/fs/main.o $(B)/libdfs.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/libdfs.a: $(LIB:%.c=$(B)/%.o)
	@rm -f $@
	@$(AR) rcs $@ $^
$(B)/libtest.a: $(HELP:%.c=$(B)/%.o)
	@rm -f $@
	@$(AR) rcs $@ $^
$(B)/unit/%: $(B)/test/unit/%.o $(B)/libtest.a $(B)/libdfs.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
# Fuzz targets: libFuzzer brings main() in MODE=fuzz, a small program that replays files elsewhere.
$(B)/fuzz/%: $(B)/test/fuzz/%.o $(if $(filter fuzz,$(MODE)),,$(B)/test/fuzz/replay.o) \
             $(B)/libtest.a $(B)/libdfs.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS)
# The simulator is one program; without arguments it prints TAP over its seeds.
$(B)/sim: $(SIM:%.c=$(B)/%.o) $(B)/libtest.a $(B)/libdfs.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(B)/test/%.o: CFLAGS += -Wno-conversion -Wno-sign-conversion -Wno-null-dereference

# Leaks that are not ours.
export LSAN_OPTIONS := suppressions=$(CURDIR)/test/lsan.supp:print_suppressions=0

check: check-unit check-fuzz check-sim check-bats  ## all tests
build-tests: $(UNIT) $(FUZZ) $(if $(SIM),$(B)/sim)
build-threaded: $(THREADED)
check-unit: $(UNIT)  ## unit tests
	@scripts/run-tap -j 2 -t 300 $(UNIT)
check-threads: $(THREADED)  ## unit tests of what has threads, for MODE=tsan
	@scripts/run-tap -j 2 -t 300 $(THREADED)
check-fuzz: $(FUZZ)  ## replay the fuzz targets' corpus
	@scripts/run-tap -j 2 $(FUZZ)
check-sim: $(if $(SIM),$(B)/sim)  ## the simulator, SIM_SEEDS (50) of them
	@$(if $(SIM),scripts/run-tap -t 600 $(B)/sim,echo "no simulator")
check-bats: all  ## end-to-end stories on real processes
	@$(if $(BATS),scripts/run-tap -j 3 -t 900 $(BATS),echo "no stories")
fuzz:  ## search with libFuzzer, FUZZ_SECONDS (60) per target
	@$(MAKE) CC=clang MODE=fuzz run-fuzz
run-fuzz: $(FUZZ)
	@for f in $(FUZZ); do scripts/fuzz $$f $(or $(FUZZ_SECONDS),60) || exit 1; done
golden: $(B)/unit/wire_test  ## renew the recorded bytes of messages
	$(B)/unit/wire_test --renew

# ---- checks of the sources ----

SOURCES := $(shell git ls-files '*.[ch]' 2>/dev/null)
TIDY    := $(patsubst %.c,build/tidy/%.ok,$(filter-out test/%,$(filter %.c,$(SOURCES))))

lint: lint-fast lint-tidy  ## format, layers, headers, scripts, clang-tidy, generated files
lint-fast: all
	@bad=0; \
	for c in check-format check-layers tidy 'check-headers $(CPPFLAGS)' check-scripts; do \
		scripts/$$c || bad=1; \
	done; \
	build/dfs conf sample | cmp - dfs.conf.example && build/dfs help --man | cmp - docs/dfs.1 && \
		build/dfs help --metrics | cmp - docs/metrics.md || \
		{ echo "generated files are out of date: make docs" >&2; bad=1; }; \
	exit $$bad
lint-tidy: $(TIDY)
# Once per change: the object is newer when the file or a header of it is.
build/tidy/%.ok: %.c .clang-tidy $(B)/%.o
	@mkdir -p $(@D)
	@echo tidy $<
	@clang-tidy --quiet $< -- -std=c11 $(CPPFLAGS) 2>/dev/null
	@touch $@
format:  ## format the sources in place
	clang-format -i $(SOURCES)

docs: all  ## renew dfs.conf.example and the manual page
	build/dfs conf sample > dfs.conf.example
	@mkdir -p docs
	build/dfs help --man > docs/dfs.1
	build/dfs help --metrics > docs/metrics.md

# ---- installation ----

PREFIX  ?= /usr/local
BINDIR  := $(DESTDIR)$(PREFIX)/bin
MANDIR  := $(DESTDIR)$(PREFIX)/share/man/man1
# mount(8) looks for helpers in /sbin only.
HELPER  := $(DESTDIR)/sbin/mount.fuse.dfs

install: all  ## install to DESTDIR and PREFIX (/usr/local)
	install -D -m 755 $(B)/dfs $(BINDIR)/dfs
	install -D -m 644 docs/dfs.1 $(MANDIR)/dfs.1
	install -D -m 644 dfs.conf.example $(DESTDIR)$(PREFIX)/share/doc/dfs/dfs.conf.example
	install -d $(dir $(HELPER))
	ln -sf $(PREFIX)/bin/dfs $(HELPER)
uninstall:  ## take away what install put there
	rm -f $(BINDIR)/dfs $(MANDIR)/dfs.1 $(HELPER)
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/dfs

clean:  ## remove build/
	rm -rf build
help:  ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: all check build-tests build-threaded check-unit check-threads check-fuzz check-sim check-bats fuzz run-fuzz golden lint \
        lint-fast lint-tidy format docs install uninstall clean help FORCE
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)

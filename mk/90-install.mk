# make install: program, libraries, header, service and documentation. As in other makefiles: PREFIX (/usr/local), DESTDIR (in front of all, for packages), and the folders below.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DOCDIR ?= $(PREFIX)/share/doc/m40llm
UNITDIR ?= $(PREFIX)/lib/systemd/system
INSTALL ?= install

UNIT := $(BUILD)/m40llm.service
$(UNIT): packaging/systemd/m40llm.service.in FORCE
	@mkdir -p $(@D)
	sed -e 's|@BINDIR@|$(BINDIR)|' -e 's|@DOCDIR@|$(DOCDIR)|' $< >$@

.PHONY: install uninstall FORCE
install: all $(UNIT)
	$(INSTALL) -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR) $(INCLUDEDIR) $(DOCDIR) $(UNITDIR))
	$(INSTALL) -m 755 $(CLI) $(DESTDIR)$(BINDIR)/m40llm
	$(INSTALL) -m 755 $(LIB_SO) $(DESTDIR)$(LIBDIR)/$(notdir $(LIB_SO))
	ln -sf $(notdir $(LIB_SO)) $(DESTDIR)$(LIBDIR)/libm40llm.so
	$(INSTALL) -m 644 $(LIB_A) $(DESTDIR)$(LIBDIR)/
	$(INSTALL) -m 644 include/m40llm.h $(DESTDIR)$(INCLUDEDIR)/
	$(INSTALL) -m 644 README.md $(wildcard docs/*.*) $(DESTDIR)$(DOCDIR)/
	$(INSTALL) -m 644 $(UNIT) $(DESTDIR)$(UNITDIR)/

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/m40llm $(addprefix $(DESTDIR)$(LIBDIR)/,$(notdir $(LIB_SO)) libm40llm.so $(notdir $(LIB_A))) $(DESTDIR)$(INCLUDEDIR)/m40llm.h $(DESTDIR)$(UNITDIR)/m40llm.service
	rm -rf $(DESTDIR)$(DOCDIR)

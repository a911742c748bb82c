# make targets of the same names as ./dev has, for habit; and install, for packagers.
#
#   make install PREFIX=/usr/local DESTDIR=
#
# puts the programs into PREFIX/bin and everything else into PREFIX/lib/ctrun, laid out like the checkout.

PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR = $(PREFIX)/lib/ctrun

all: build

build demo test lint format clean:
	./dev $@

install: build
	./dev install '$(PREFIX)' '$(DESTDIR)'

uninstall:
	rm -rf '$(DESTDIR)$(LIBDIR)'
	rm -f '$(DESTDIR)$(PREFIX)/bin/ctrun' '$(DESTDIR)$(PREFIX)/bin/ctr-init-setup' \
	    '$(DESTDIR)$(PREFIX)/bin/ctr-criu-bridge'

.PHONY: all build demo test lint format clean install uninstall

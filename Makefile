# make targets of the same names as ./dev has, for habit; and install, for packagers.
#
#   make install PREFIX=/usr/local DESTDIR=
#
# puts the programs into PREFIX/bin, man pages and shell completions into PREFIX/share, and everything else into
# PREFIX/lib/ctrun, laid out like the checkout.

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
	cd '$(DESTDIR)$(PREFIX)/bin' && rm -f ctrun ctr-criu-bridge ctr-init-setup ctr-supervisor
	cd '$(DESTDIR)$(PREFIX)/share' && rm -f man/man1/ctrun.1 man/man8/ctr-criu-bridge.8 man/man8/ctr-init.8 \
	    man/man8/ctr-supervisor.8 bash-completion/completions/ctrun zsh/site-functions/_ctrun \
	    fish/vendor_completions.d/ctrun.fish

.PHONY: all build demo test lint format clean install uninstall

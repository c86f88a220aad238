# Builds pg_clip for one PostgreSQL and installs it there, as the makefiles of other extensions do. Cargo builds.
#
#   make                 builds; PostgreSQL must be there with its headers, and with pgvector
#   sudo make install    copies what make has built; it needs no cargo
#   make installcheck    runs all the tests against the installed files, on clusters of their own
#   sudo make uninstall  removes the installed files; models that were added to the demo model stay
#   make clean           removes all that was built
#
# PG_CONFIG    the pg_config of the PostgreSQL; by default the one on the PATH
# DESTDIR      a folder that stands for the root folder, such as that of a package
# ONNXRUNTIME  the path of ONNX Runtime's library, 1.24 or later; by default a pinned one is fetched with pip
# CARGO        by default cargo

PG_CONFIG ?= pg_config
DESTDIR ?=
ONNXRUNTIME ?=
CARGO ?= cargo

pg_config := $(shell command -v '$(PG_CONFIG)')
ifeq ($(filter clean,$(MAKECMDGOALS)),)
ifeq ($(pg_config),)
$(error $(PG_CONFIG) is not found: install PostgreSQL with its headers, or give make PG_CONFIG=PATH)
endif
endif

bindir = $(DESTDIR)$(shell '$(pg_config)' --bindir)
pkglibdir = $(DESTDIR)$(shell '$(pg_config)' --pkglibdir)
sharedir = $(DESTDIR)$(shell '$(pg_config)' --sharedir)

xtask = $(CARGO) xtask --pg-config '$(pg_config)' $(if $(ONNXRUNTIME),--onnxruntime '$(ONNXRUNTIME)')

# The installed files are laid out beneath a folder of their own for each choice of PostgreSQL and ONNX Runtime.
choice := $(shell { '$(pg_config)' --version --bindir --pkglibdir --sharedir; echo '$(ONNXRUNTIME)'; } 2>/dev/null | cksum | cut -d ' ' -f 1)
stage := target/stage/$(choice)
sources := Cargo.toml Cargo.lock LICENSE pg_clip.control $(wildcard models/demo/*.onnx models/demo/*.json models/demo/NOTICE) \
    $(shell find src sql xtask/src -type f) $(ONNXRUNTIME)

.PHONY: all install installcheck uninstall clean

all: $(stage)/complete

$(stage)/complete: $(sources)
	rm -rf $(stage)
	$(xtask) install --destdir $(stage)/root
	touch $@

# A running server has the old files mapped: they are unlinked, never written to.
install: $(stage)/complete
	umask 022 && mkdir -p '$(DESTDIR)/' && cd $(stage)/root && find . ! -type d -print0 \
	    | tar --create --null --files-from=- \
	    | (cd '$(CURDIR)' && tar --extract --directory='$(DESTDIR)/' --unlink-first --no-same-owner --preserve-permissions)

installcheck:
	$(xtask) test

uninstall:
	rm -f '$(bindir)/pg_clip_embedder' '$(bindir)/pg_clip_feeder' '$(pkglibdir)/pg_clip.so' '$(sharedir)/extension/pg_clip.control' \
	    '$(sharedir)/extension/pg_clip--'*.sql
	rm -rf '$(pkglibdir)/pg_clip' '$(sharedir)/pg_clip/licences' '$(sharedir)/pg_clip/models/demo'
	for folder in '$(sharedir)/pg_clip/models' '$(sharedir)/pg_clip'; do \
	    if [ -d "$$folder" ]; then rmdir --ignore-fail-on-non-empty "$$folder"; fi; done

clean:
	rm -rf target/stage
	$(CARGO) clean

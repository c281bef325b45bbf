# The pipeline in steps over one store: make -f examples/steps.mk EXPOSURES='raw/*.fits'
#
# Each step runs when what it depends on is newer: other methods and anchors (SOLVE) read no pixel, and of new
# exposures only these and their overlaps are measured, because the store keeps what was measured before.
EXPOSURES ?= raw/*.fits
WORK      ?= work
MATCHED   ?= matched
SKYMATCH  ?= skymatch
PLAN      ?=
MEASURE   ?=
SOLVE     ?=
STORE     := $(WORK)/field.db

FRAMES := $(wildcard $(EXPOSURES))
NAMES  := $(foreach frame,$(FRAMES),'$(frame)')
$(if $(FRAMES),,$(error no exposure matches EXPOSURES = $(EXPOSURES)))

.PHONY: all
all: $(MATCHED)/.done

$(WORK)/planned: $(FRAMES)
	mkdir -p $(WORK)
	$(SKYMATCH) plan $(PLAN) --store $(STORE) $(NAMES)
	touch $@

$(WORK)/measured: $(WORK)/planned
	$(SKYMATCH) measure $(STORE) $(MEASURE)
	touch $@

$(WORK)/solution.fits: $(WORK)/measured
	$(SKYMATCH) solve $(STORE) $(SOLVE) -o $@ --overwrite

$(MATCHED)/.done: $(WORK)/solution.fits
	$(SKYMATCH) apply $< --subtract --output-dir $(MATCHED) --overwrite
	touch $@

# The pipeline in steps, with a file between: make -f examples/steps.mk EXPOSURES='raw/*.fits' -j 4
#
# Each file is made when what it depends on is newer: other methods and anchors (SOLVE) touch no pixel, and a new
# exposure is read alone, because the last plan and the last measurement are taken over where they still hold.
EXPOSURES ?= raw/*.fits
WORK      ?= work
MATCHED   ?= matched
SKYMATCH  ?= skymatch
PLAN      ?=
MEASURE   ?=
SOLVE     ?=

FRAMES := $(wildcard $(EXPOSURES))
NAMES  := $(foreach frame,$(FRAMES),'$(frame)')
$(if $(FRAMES),,$(error no exposure matches EXPOSURES = $(EXPOSURES)))

.PHONY: all
all: $(MATCHED)/.done

$(WORK)/plan.fits: $(FRAMES)
	mkdir -p $(WORK)
	if test -f $@; then cp $@ $(WORK)/earlier-plan.fits; fi
	$(SKYMATCH) plan $(PLAN) -o $@ --overwrite $(NAMES) \
	    $$(test -f $(WORK)/earlier-plan.fits && echo --update $(WORK)/earlier-plan.fits)

$(WORK)/measured.fits: $(WORK)/plan.fits
	if test -f $@; then cp $@ $(WORK)/earlier.fits; fi
	$(SKYMATCH) measure $< $(MEASURE) -o $@ --overwrite \
	    $$(test -f $(WORK)/earlier.fits && echo --update $(WORK)/earlier.fits)

$(WORK)/solution.fits: $(WORK)/measured.fits
	$(SKYMATCH) solve $< $(SOLVE) -o $@ --overwrite

$(MATCHED)/.done: $(WORK)/solution.fits
	$(SKYMATCH) apply $< --subtract --output-dir $(MATCHED) --overwrite
	touch $@

#!/bin/sh
# A step of continuous integration: fails when frames disagree. [MAX_STEP=2] sh examples/check_frames.sh a.fits b.fits …
#
# MAX_STEP is the largest step between two images that you accept, in their unit; without it an overlap whose residual
# is above 5 sigma, and skies that are far more uncertain than the noise of the pixels, are too much.
# Exit codes of skymatch: 0 fine · 2 usage · 3 an input can't be used · 4 nothing overlaps · 5 there were warnings,
# also of images that can't be matched to the others.
set -u
if [ -n "${MAX_STEP:-}" ]; then
    limit="--max-step $MAX_STEP --allow disagreement"
else
    limit="--max-residual 5"
fi
# shellcheck disable=SC2086 # several words
skymatch match --dry-run --strict $limit --format json "$@" > sky.json
code=$?
case $code in
    0) echo "all frames agree" ;;
    5) echo "frames disagree: see the warnings above and sky.json" >&2 ;;
    *) echo "the check could not be made (skymatch exited with $code)" >&2 ;;
esac
exit $code

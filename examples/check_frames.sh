#!/bin/sh
# A step of continuous integration: fails when frames disagree. sh examples/check_frames.sh a.fits b.fits …
#
# Exit codes of skymatch: 0 fine · 2 usage · 3 an input can't be used · 4 nothing overlaps · 5 there were warnings,
# among them an overlap whose residual is above 5 sigma or images that can't be matched to the others.
set -u
skymatch match --dry-run --strict --max-residual 5 --format json "$@" > sky.json
code=$?
case $code in
    0) echo "all frames agree" ;;
    5) echo "frames disagree: see the warnings above and sky.json" >&2 ;;
    *) echo "the check could not be made (skymatch exited with $code)" >&2 ;;
esac
exit $code

#!/bin/sh
# A first session at the shell: sh examples/session.sh [FOLDER]. Everything happens in that folder.
set -eu
folder=${1:-skymatch-session}

skymatch demo --overwrite "$folder"               # a mosaic with known skies, see truth.txt
cd "$folder"
skymatch plan frame_*.fits                        # what overlaps, from headers alone
skymatch match --dry-run frame_*.fits             # the skies, as a table; no image is touched
skymatch match frame_*.fits                       # recorded in the headers (BKGLEVEL), pixels as they were
skymatch match --subtract frame_*.fits            # subtracted; running it again changes nothing
skymatch undo frame_*.fits                        # and everything is as before
skymatch match --dry-run --method globalmin+match --format csv 'frame_*.fits[SCI]' > skies.csv
skymatch match --dry-run --table overlaps --overwrite -o overlaps.ecsv frame_*.fits
